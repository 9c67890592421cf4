"""What can be wrong with a server: each finding says what, how it was seen, and what to type.

Pure functions of what was seen, one module an area: another finding is one more `case.finding` in
the module of its area, a row in docs/doctor.md or docs/audit.md, and a row in a table of tests.
"""

from __future__ import annotations
