"""What can be wrong with a server: each finding says what, how it was seen, and what to type.

Pure functions of what was seen, one module a topic: every fault is a row in a table of tests.
"""

from __future__ import annotations
