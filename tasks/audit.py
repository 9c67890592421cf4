"""Say what of a server is not as safe as it could be; and who did what to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import presence
from tasks.engine.console import console
from tasks.engine.server import TIMEOUT
from tasks.engine.shell import sh
from tasks.engine.task import remote
from tasks.findings import safety
from tasks.findings.advisories import advisories
from tasks.findings.audit.access import access
from tasks.findings.audit.places import places
from tasks.findings.audit.secrets import secrets
from tasks.findings.audit.tls import tls
from tasks.findings.audit.units import units
from tasks.findings.audit.users import users
from tasks.findings.audit.versions import versions
from tasks.findings.bucket import artifacts, backup
from tasks.findings.case import Case, Here
from tasks.findings.diagnosis import Area, Look, diagnose, tell, verdict
from tasks.findings.symptoms import LONGEST, looking
from tasks.findings.symptoms import parse as symptoms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.engine.server import Server
    from tasks.engine.task import Host

NAMESPACE = "audit"

# Each with the parts of the look that it needs, those of doctor's look among them.
AREAS = {
    "access": Area(access, "doors", "system"),
    "tls": Area(tls, "site"),
    "units": Area(units, "units"),
    "secrets": Area(secrets, "secrets", "system"),
    "versions": Area(versions, "packages"),
    "users": Area(users, "passwords", "users", "admins"),
    "places": Area(places, "places"),
    "artifacts": Area(artifacts, "bucket"),
    "backup": Area(backup, "bucket"),
}

PATIENCE = 20  # seconds; nobody waits for an audit as for a doctor

LINES = 100


def patience(timeout: int = PATIENCE, json: bool = False) -> None:
    """Refuse what is no time to wait; raises Exit."""
    Look("audit", timeout)


@remote(
    default_name="now",
    options=patience,
    verdict=verdict,
    help={
        "json": "print JSON instead of lines",
        "timeout": f"seconds that each part of the look may take ({PATIENCE}; up to {LONGEST})",
    },
)
def audit(c: Host, json: bool = False, timeout: int = PATIENCE) -> Any:
    """Look for what is not as safe as it could be.

    Listeners, SSH, firewall and updates; nginx's encryption; how the units are confined; modes of
    files, and secrets in wrong places; releases with known vulnerabilities; guessable passwords,
    users without use; experiments and models at places that no login may name; the backups' age.
    Reads only. Exit code 1 where a problem was found, 2 where none was and not all was looked at;
    notes do not count.

    Example: fab -H ec2 audit
    """
    look = Look("audit", timeout)
    case = examined(c.server, look.patience)
    found = diagnose(case, AREAS, look)
    if not json:
        tell(case.host, found, f"advisories: {case.advisories.source}")
    return found.rows


def examined(server: Server, patience: int) -> Case:
    """Look at host and advisories; raises Exit where there is no server to look at."""
    facts, settings = presence.refuse_nothing(server), server.settings
    steps = [looking(settings, [], patience), safety.auditing(settings, patience)]
    # One look after the other.
    reports = server.look("audit", steps, TIMEOUT + 2 * patience)
    found = safety.parse(reports)
    known = advisories(found.packages)
    here = Here(now=time.time())
    return Case(server.name, settings, facts, symptoms(reports), here, found, known)


def options(lines: str | None = None) -> int:
    """Read how many lines are wanted; raises Exit that says what is no number."""
    if lines is not None and not (lines.isdigit() and int(lines)):
        raise Exit(f"--lines is {lines!r}, not a number from 1 on. Such as: --lines 50")
    return int(lines or LINES)


def show(answers: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Print the lines of all hosts in the order of their times."""
    rows = [(row, host) for host, rows in answers.items() for row in rows]
    for row, host in sorted(rows, key=lambda one: one[0]["time"]):
        console.say("  ".join((row["time"], row["who"], row["task"], row["result"])), host)
    if not rows:
        console.say("no task has changed anything yet")


@remote(
    options=lambda lines=None, json=False: options(lines),
    report=show,
    help={"lines": f"how many of the last lines (default {LINES})", "json": "print JSON instead"},
)
def log(c: Host, lines: str | None = None, json: bool = False) -> list[dict[str, str]]:
    """Print who changed what on the host, and when.

    The line that every changing task leaves in audit.log there: time (UTC), operator, task,
    result. A task that was cut off has begun and not done.

    Example: fab -H ec2 audit.log --lines 20
    """
    server = c.server
    # A host without a log has no line, and is no failure.
    root = server.settings.root_path
    place = f'"$HOME"{sh(root[1:])}' if root.startswith("~") else sh(root)
    text = server.read(f"tail -n {options(lines)} {place}/audit.log 2> /dev/null || true")
    return [row for row in map(entry, text.splitlines()) if row]


def entry(line: str) -> dict[str, str] | None:
    """Read a line of the log; None where it was cut short."""
    parts = line.split("\t")
    return (
        dict(zip(("time", "who", "task", "result"), parts, strict=True))
        if len(parts) == 4
        else None
    )
