"""tables: see the move list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Row = Mapping[str, Any]

IN_A_FILE = 500  # columns: a line of the table stays one line for grep

GAP = 2  # blanks between two columns

DAY = 86400  # seconds


@dataclass(frozen=True)
class Column:
    """A heading, what stands below it, and how narrow the text may be folded (0: never)."""

    heading: str
    cell: Callable[[Row], str]
    least: int = 0

    def cells(self, rows: Sequence[Row]) -> list[str]:
        return [self.cell(row) for row in rows]

    def width(self, rows: Sequence[Row]) -> int:
        """Return how many characters it needs at least."""
        longest = max(map(len, [self.heading, *self.cells(rows)]))
        return min(longest, self.least) if self.least else longest

    def says_nothing(self, rows: Sequence[Row]) -> bool:
        return set(self.cells(rows)) <= {"-"}


def plain(key: str) -> Callable[[Row], str]:
    """Show a value as it is."""
    return lambda row: "-" if row[key] is None else str(row[key])


def size(key: str) -> Callable[[Row], str]:
    """Show a number of bytes."""
    return lambda row: "-" if row[key] is None else _size(row[key])


def age(key: str) -> Callable[[Row], str]:
    """Show a number of seconds."""
    return lambda row: "-" if row[key] is None else _age(row[key])


def _size(count: int) -> str:
    if count < 1024**3:
        return f"{count / 1024**2:.{1 if count < 10 * 1024**2 else 0}f} MB"
    return f"{count / 1024**3:.1f} GB"


def _age(seconds: int) -> str:
    for length, name in ((DAY, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length} {name}"
    return f"{max(seconds, 0)} s"


def needed(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """Return how many characters the columns need side by side."""
    return sum(column.width(rows) + GAP for column in columns) - GAP


def packed(
    who: Sequence[Column], what: Sequence[Column], rows: Sequence[Row], width: int
) -> list[list[Column]]:
    """Fill one part after the other with columns."""
    parts = [list(who)]
    for column in what:
        if len(parts[-1]) > len(who) and needed([*parts[-1], column], rows) > width:
            parts.append(list(who))
        parts[-1].append(column)
    return parts
