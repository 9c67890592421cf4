"""What stands in tables for people: values as they read them, and columns that share a terminal.

rich lays a table out, and folds what may be folded. Which columns there is room for is chosen here:
rich would cut or fold all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Row = Mapping[str, Any]

IN_A_FILE = 500  # columns: a line of the table stays one line for grep

GAP = 2  # blanks between two columns

DAY = 86400  # seconds


@dataclass(frozen=True)
class Column:
    """A heading, what stands below it, and how narrow the text may be folded (0: never).

    The higher its `rank`, the earlier it is left out where there is no room.
    """

    heading: str
    cell: Callable[[Row], str]
    least: int = 0
    rank: int = 0

    def cells(self, rows: Sequence[Row]) -> list[str]:
        """Return what stands below the heading."""
        return [self.cell(row) for row in rows]

    def width(self, rows: Sequence[Row]) -> int:
        """Return how many characters it needs at least."""
        longest = max(map(len, [self.heading, *self.cells(rows)]))
        return min(longest, self.least) if self.least else longest

    def says_nothing(self, rows: Sequence[Row]) -> bool:
        """Tell whether no row has a value."""
        return set(self.cells(rows)) <= {"-"}


def plain(key: str) -> Callable[[Row], str]:
    """Show a value as it is."""
    return lambda row: "-" if row[key] is None else str(row[key])


def size(key: str) -> Callable[[Row], str]:
    """Show a number of bytes."""
    return lambda row: "-" if row[key] is None else size_text(row[key])


def age(key: str) -> Callable[[Row], str]:
    """Show a number of seconds."""
    return lambda row: "-" if row[key] is None else age_text(row[key])


def counted(count: int | None, thing: str) -> str:
    """Spell a number of things: 1 user, 2 users, 0 users; None is a number that is not known."""
    if count is None:
        return f"an unknown number of {thing}s"
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def held(row: Row) -> str:
    """Spell what a server or a backup of it holds."""
    return f"{counted(row['runs'], 'run')}, {counted(row['users'], 'user')}"


def size_text(count: float) -> str:
    """Spell a number of bytes: 640 bytes, 12 kB, 4.2 MB, 17 MB, 1.5 GB."""
    if count < 1000:
        return counted(int(count), "byte")
    if count < 1000 * 1024:
        return f"{count / 1024:.0f} kB"
    if count < 1024**3:
        return f"{count / 1024**2:.{1 if count < 10 * 1024**2 else 0}f} MB"
    return f"{count / 1024**3:.1f} GB"


def age_text(seconds: int) -> str:
    """Spell a number of seconds in its largest unit: 3 days, 5 h, 12 min, 40 s."""
    for length, name in ((DAY, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length} {name}"
    return f"{max(seconds, 0)} s"


def clock(moment: float, offset: str | None = None) -> str:
    """Spell a moment, in seconds since 1970, as a clock shows it: Sun 03:04.

    `offset` is how far that clock is from UTC's, as `+0100`; without, it is this machine's.
    """
    zone = datetime.strptime(offset, "%z").tzinfo if offset else None
    return f"{datetime.fromtimestamp(moment, zone):%a %H:%M}"


def needed(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """Return how many characters the columns need side by side."""
    return sum(column.width(rows) + GAP for column in columns) - GAP


def fitting(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[Column]:
    """Choose the columns that have room side by side, the lowest rank first; return them in order.

    The lowest of all is there in any case: it folds where it has to.
    """
    chosen: list[Column] = []
    for column in sorted(columns, key=lambda column: column.rank):
        if not chosen or needed([*chosen, column], rows) <= width:
            chosen.append(column)
    return [column for column in columns if column in chosen]
