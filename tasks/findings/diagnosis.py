"""The frame of doctor and audit: areas that are looked through, and what is said of them.

A finding belongs to the module of its area, where `case.finding` makes it; here is nothing to add.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from invoke import Exit

from tasks.engine.console import console
from tasks.engine.records import dataclass
from tasks.engine.tables import counted
from tasks.findings.case import Finding, Remedy
from tasks.findings.symptoms import LONGEST, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

UNSEEN = 2  # the exit code where nothing is known to be wrong, and not all was looked at

LONGER = 30  # seconds, at least, that are proposed where the usual ones were too few

LATE = "within"  # is in every reason that a longer look can mend


class Looked(Protocol):
    """All that was seen, as a dataclass that knows which area is looked through.

    `looked` names the parts that gave an answer, `blind` says why one gave none; `fab` spells what
    to type about it.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def area(self) -> str: ...

    @property
    def looked(self) -> frozenset[str]: ...

    def blind(self, part: str) -> str: ...

    def fab(self, *words: str) -> str: ...

    @property
    def finding(self) -> Callable[..., Finding]: ...


Seen = TypeVar("Seen", bound=Looked)


class Area(Generic[Seen]):
    """A topic: the function that finds what is wrong in it, and the parts of the look it needs."""

    def __init__(self, findings: Callable[[Seen], Iterator[Finding]], *parts: str) -> None:
        self.findings, self.parts = findings, parts

    def missing(self, case: Seen) -> list[str]:
        """Name the parts that could not be looked at."""
        return [part for part in self.parts if part not in case.looked]


@dataclass(frozen=True)
class Look:
    """The task that looks, and how many seconds each part of its look may take."""

    task: str = "doctor"
    patience: int = PATIENCE

    def __post_init__(self) -> None:
        """Raise Exit where that is no number of seconds to wait for."""
        if not 1 <= self.patience <= LONGEST:
            raise Exit(
                f"--timeout is a number of seconds from 1 to {LONGEST}. Such as: --timeout {LONGER}"
            )

    def longer(self, case: Looked) -> tuple[str, ...]:
        """Spell what looks longer; nothing where that would be too long."""
        seconds = min(LONGEST, max(LONGER, 4 * self.patience))
        if seconds <= self.patience:
            return ()
        return (case.fab(self.task, "--timeout", str(seconds)),)


@dataclass(frozen=True)
class Diagnosis:
    """What was found, problems first; areas that are well, and those not looked at."""

    found: Sequence[Finding]
    well: Sequence[str]
    unseen: Sequence[Finding] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the findings as plain values, those of what was not looked at among them."""
        return [asdict(finding) for finding in (*self.found, *self.unseen)]


def diagnose(case: Seen, areas: Mapping[str, Area[Seen]], look: Look | None = None) -> Diagnosis:
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
        [
            _unseen(replace(case, area=name), missing, look or Look())
            for name, missing in unseen.items()
        ],
    )


def _unseen(case: Looked, missing: Sequence[str], look: Look) -> Finding:
    reasons = dict.fromkeys(case.blind(part) or "no answer" for part in missing)
    late = any(LATE in reason for reason in reasons)
    return case.finding(
        "not-looked-at",
        f"Not looked at: {case.area} ({', '.join(reasons)}).",
        "the look at the host",
        Remedy("" if late else "What keeps it from being seen has to go first.",
               type=look.longer(case) if late else ()),
        severity="blind",
    )  # fmt: skip


def tell(host: str, diagnosis: Diagnosis, about: str) -> None:
    """Print each with how it was seen and what to do, and what is well in one line.

    `about` is what that line says beside the areas' names.
    """
    for finding in diagnosis.found:
        mark, style = ("✗", "red") if finding.severity == "problem" else ("·", "yellow")
        console.say(f"{mark} {finding.what}", host, style)
        console.say(f"    seen: {finding.seen}", host)
        if finding.remedy:
            console.say(f"    {finding.remedy}", host)
        for command in finding.type:
            console.say(f"    type: {command}", host)
    for finding in diagnosis.unseen:
        console.say(f"? {finding.what}", host, "yellow")
    for command in dict.fromkeys(line for one in diagnosis.unseen for line in one.type):
        console.say(f"    type: {command}", host)
    if diagnosis.well:
        console.say(f"✓ well: {', '.join(diagnosis.well)} ({about})", host, "green")


def verdict(rows: Sequence[Mapping[str, Any]]) -> Exit | None:
    """Say why the exit code is 1, or 2 where all that is known is that not all was seen."""
    problems = [row for row in rows if row["severity"] == "problem"]
    if problems:
        first = problems[0]
        return Exit(f"{counted(len(problems), 'problem')}: {first['what']} {_next(first)}")
    if unseen := [row for row in rows if row["severity"] == "blind"]:
        names = ", ".join(row["area"] for row in unseen)
        first = next((row for row in unseen if row["type"]), unseen[0])
        return Exit(f"Not all was looked at: {names}. {_next(first)}".rstrip(), UNSEEN)
    return None


def _next(row: Mapping[str, Any]) -> str:
    return f"Type: {row['type'][0]}" if row["type"] else str(row["remedy"])
