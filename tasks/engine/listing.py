"""All tasks with a line each, in the groups and the order of the README's table."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from invoke import Collection

NAME = re.compile(r"`([a-z][a-z.-]*)`")

REST = "other tasks"  # those that the README does not name yet


@dataclass(frozen=True)
class Group:
    """Tasks under one heading: their names, the usual one first, and what each does."""

    heading: str
    tasks: Sequence[tuple[Sequence[str], str]]


def names_in(collection: Collection, prefix: str = "") -> dict[str, Any]:
    """Return all tasks by every name that they can be called by."""
    found = {f"{prefix}{name}": task for name, task in collection.tasks.items()}
    for name, inner in collection.collections.items():
        found |= names_in(inner, f"{prefix}{name}.")
        if inner.default:
            found[f"{prefix}{name}"] = inner[inner.default]
    return found


def grouped(readme: str, tasks: Mapping[str, Any]) -> list[Group]:
    """Put all tasks into the groups of the README's table; what it does not name comes last."""
    rows = list(table(readme))
    with_rows = {tasks[name].body for _, first, _ in rows for name in _known(first, tasks)}
    places = [
        (heading, name)
        for heading, first, rest in rows
        # A task without a row of its own stands in that of the one which it is a half of.
        for name in (
            *_known(first, tasks),
            *(name for name in _known(rest, tasks) if tasks[name].body not in with_rows),
        )
    ]
    groups: dict[str, list[tuple[Sequence[str], str]]] = {}
    shown = set()
    for heading, name in [*places, *((REST, name) for name in sorted(tasks))]:
        if tasks[name].body not in shown:
            shown.add(tasks[name].body)
            groups.setdefault(heading, []).append((_names(name, tasks), says(tasks[name])))
    return [Group(heading, found) for heading, found in groups.items()]


def table(readme: str) -> Iterator[tuple[str, str, str]]:
    """Yield the rows of the README's table of tasks: their group, and their two cells."""
    heading = REST
    for line in readme.partition("\n## Tasks\n")[2].partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 2 and (title := re.fullmatch(r"\*\*(.+)\*\*", cells[0])):
            heading = title[1]
        elif len(cells) == 2 and cells[0].startswith("`"):
            yield heading, cells[0], cells[1]


def _known(cell: str, tasks: Mapping[str, Any]) -> list[str]:
    return [name for name in NAME.findall(cell) if name in tasks]


def _names(usual: str, tasks: Mapping[str, Any]) -> list[str]:
    same = (name for name, task in tasks.items() if task.body is tasks[usual].body)
    return [usual, *sorted(name for name in same if name != usual)]


def says(task: Any) -> str:
    """Return the first line of a task's documentation."""
    return (task.__doc__ or "").strip().partition("\n")[0]


def lines(groups: Iterable[Group], width: int) -> Iterator[tuple[str, str | None]]:
    """Lay the groups out, each line with its style; nothing is cut, whatever the width."""
    found = list(groups)
    column = max(len(names[0]) for group in found for names, _ in group.tasks) + 4
    for group in found:
        yield group.heading[:1].upper() + group.heading[1:], "bold"
        for names, text in group.tasks:
            if names[1:]:
                text = f"{text.rstrip('.')} (also {', '.join(names[1:])})."
            yield from ((line, None) for line in entry(names[0], text, column, width))
        yield "", None


def entry(name: str, text: str, column: int, width: int) -> list[str]:
    """Lay out a name and what is said of it, which goes on below itself."""
    first, rest = f"  {name}".ljust(column), " " * column
    return textwrap.wrap(
        text, max(width - 1, column + 20), initial_indent=first, subsequent_indent=rest,
        break_on_hyphens=False,
    )  # fmt: skip
