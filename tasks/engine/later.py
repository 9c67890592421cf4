"""Invoke without what it loads for others: its copy of PyYAML, and for its MockContext asyncio.

Together half of what it takes to load. Both are there once something of them is used.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

YAML = "invoke.vendor.yaml"  # `fabric_yaml` reads our files with the real one


class Finder:
    """Find Invoke's PyYAML where it is, but have it run once an attribute is asked for."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where it is; None for any other module, which Python finds by itself."""
        spec = PathFinder.find_spec(name, path) if name == YAML else None
        if spec and spec.loader:
            spec.loader = LazyLoader(spec.loader)
        return spec


def mock(*given: Any, **named: Any) -> Any:
    """Return a Mock, as Invoke's MockContext asks for it: in tests, if ever."""
    from unittest.mock import Mock

    return Mock(*given, **named)


def load_invoke() -> None:
    """Load Invoke, unless somebody did before."""
    sys.meta_path.insert(0, Finder)
    stands_in = ModuleType("unittest.mock")
    vars(stands_in).update(Mock=mock)
    absent = sys.modules.setdefault("unittest.mock", stands_in) is stands_in
    try:
        import invoke  # noqa: F401
    finally:
        sys.meta_path.remove(Finder)
        if absent:
            del sys.modules["unittest.mock"]


load_invoke()
