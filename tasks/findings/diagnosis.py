"""The frame of doctor and audit: areas that are looked through, and what is said of them.

A finding belongs to the module of its area, where `case.finding` makes it; here is nothing to add.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from tasks.engine.console import console
from tasks.findings.case import Case, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class Area:
    """A topic: the function that finds what is wrong in it, and the parts of the look it needs."""

    def __init__(self, findings: Callable[[Case], Iterator[Finding]], *parts: str) -> None:
        self.findings, self.parts = findings, parts

    def missing(self, case: Case) -> list[str]:
        """Name the parts that could not be looked at."""
        return [part for part in self.parts if part not in case.looked]


@dataclass(frozen=True)
class Diagnosis:
    """What was found, problems first; areas that are well; others with the parts not looked at."""

    found: Sequence[Finding]
    well: Sequence[str]
    unseen: Mapping[str, Sequence[str]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the findings as plain values."""
        return [asdict(finding) for finding in self.found]


def diagnose(case: Case, areas: Mapping[str, Area]) -> Diagnosis:
    """Look through all areas; problems come first, within them what others may follow from."""
    found = [
        finding
        for name, area in areas.items()
        for finding in area.findings(replace(case, area=name))
    ]
    ill = {finding.area for finding in found}
    unseen = {name: missing for name, area in areas.items() if (missing := area.missing(case))}
    return Diagnosis(
        sorted(found, key=lambda finding: finding.severity == "note"),
        [name for name in areas if name not in ill and name not in unseen],
        unseen,
    )


def tell_findings(host: str, found: Sequence[Finding]) -> None:
    """Print each with how it was seen and what to do."""
    for finding in found:
        mark, style = ("✗", "red") if finding.severity == "problem" else ("·", "yellow")
        console.say(f"{mark} {finding.what}", host, style)
        console.say(f"    seen: {finding.seen}", host)
        if finding.remedy:
            console.say(f"    {finding.remedy}", host)
        for command in finding.type:
            console.say(f"    type: {command}", host)


def verdict(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say why the exit code is 1, or None where nothing but notes was found."""
    problems = [row for row in rows if row["severity"] == "problem"]
    if not problems:
        return None
    first = problems[0]
    number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{number}: {first['what']} {_next(first)}"


def _next(row: Mapping[str, Any]) -> str:
    return f"Type: {row['type'][0]}" if row["type"] else str(row["remedy"])
