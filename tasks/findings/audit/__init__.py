"""What is not as safe as it could be: each finding says what, how it was seen, and a remedy.

What `doctor` finds as well is found by its own functions, so that it has one key and one remedy.
"""

from __future__ import annotations
