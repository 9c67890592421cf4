"""What can be wrong with the continuous stream of the databases to the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes import stream as stream_changes
from tasks.changes.files import differs
from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.case import Case, Finding


def stream(case: Case) -> Iterator[Finding]:
    name = f"{case.unit}-stream"
    unit = case.facts.unit(f"{name}.service")
    if unit.load != "loaded":
        return
    error = case.symptoms.stream_error
    why = f"It says: {error}." if error else f"journalctl -u {name} says why."
    restart = f"sudo systemctl restart {name}"
    if wrong := stream_changes.trouble(case.settings, case.facts):
        seen = f"systemctl: {name}.service {unit.active}; Litestream's own list"
        if unit.active != "active":
            yield case.finding("stream-stopped", wrong, seen, Remedy(why, script=restart))
        else:
            yield case.finding(
                "stream-late",
                wrong,
                seen,
                Remedy(f"{why} Mended, it goes on.", type=(case.fab("backup.stream", "status"),)),
            )
    elif case.symptoms.stream_astray:
        yield case.finding(
            "stream-astray",
            "The stream follows databases that others have taken the place of.",
            f"{case.facts.root}/.stream names other files than lie there",
            Remedy(script=restart),
        )
    elif case.symptoms.stream_loose:
        yield case.finding(
            "stream-loose",
            "Litestream does not hold the databases' logs: what it sends may restore damaged.",
            "/proc/locks: it has no reader's lock on one of them",
            Remedy("A restart begins a new stream; older ones stay as they are.", script=restart),
        )
    elif error:
        yield case.finding(
            "stream-errors",
            "The stream runs, and has had errors of late.",
            f"journalctl -u {name}",
            Remedy(why, type=(case.fab("backup.stream", "verify"),)),
            severity="note",
        )
    every = case.facts.stream_every or stream_changes.EVERY
    if case.settings.bucket and any(
        differs(case.facts, file) for file in stream_changes.files(case.settings, case.facts, every)
    ):
        yield case.finding(
            "stream-due",
            "The stream's files on the host and the settings differ.",
            "what backup.stream on would put there",
            Remedy(type=(case.fab("backup.stream", "on"),)),
            severity="note",
        )
