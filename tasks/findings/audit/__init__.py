"""What is not as safe as it could be: the areas that only the audit looks at.

What doctor finds as well is found by its own functions, so that it has one key and one remedy.
"""

from __future__ import annotations
