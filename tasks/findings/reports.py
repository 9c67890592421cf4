"""What a look at a host printed, by key, for those who make values of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class Reports:
    """The values of each key in the order of their lines, which are `<key><TAB><value>`."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._found: dict[str, list[str]] = {}
        for line in lines:
            key, _, value = line.partition("\t")
            self._found.setdefault(key, []).append(value)

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def all(self, key: str) -> list[str]:
        """Return all values of a key; none where it was not printed."""
        return self._found.get(key, [])

    def last(self, key: str, default: str = "") -> str:
        """Return the value that was printed last."""
        return self._found.get(key, [default])[-1]

    def data(self, key: str, default: Any = None) -> Any:
        """Return what the last value is as JSON; raises ValueError where it is none."""
        return json.loads(self.last(key)) if key in self else default

    def pairs(self, key: str) -> list[tuple[str, str]]:
        """Return each value's first word, and what follows it."""
        return [(first, rest) for first, _, rest in (v.partition(" ") for v in self.all(key))]
