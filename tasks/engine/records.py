"""dataclass, at half of what it costs at start.

Python's own writes six functions for each frozen class, and compiles each: of ninety classes that
was a fifth of every start of ./fab. Here comparing, hashing and showing are one function each for
all classes; a field's `compare` and `repr` hold as ever.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, *, frozen=False, order=False):
        """Make a class one of named values, as `dataclasses.dataclass` does."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen, order=order)
        if order:
            return dataclasses.dataclass(frozen=frozen, order=True)(cls)
        own = vars(cls).copy()
        made = dataclasses.dataclass(eq=False, repr=False, frozen=frozen)(cls)
        methods = {"__eq__": _equal, "__repr__": _shown, "__hash__": _hash if frozen else None}
        for name in methods.keys() - own.keys():
            setattr(made, name, methods[name])
        return made


def _compared(record: Any) -> tuple[Any, ...]:
    return tuple(getattr(record, each.name) for each in dataclasses.fields(record) if each.compare)


def _equal(self: Any, other: object) -> bool:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return _compared(self) == _compared(other)


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _shown(self: Any) -> str:
    known = [each.name for each in dataclasses.fields(self) if each.repr]
    values = (f"{name}={getattr(self, name)!r}" for name in known)
    return f"{type(self).__qualname__}({', '.join(values)})"
