"""Send every change of the databases to the bucket as it comes, and bring any moment back."""

from __future__ import annotations

import json as serialised
import time
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import backup_key
from tasks.changes.backup import proving_aside
from tasks.changes.presence import absent
from tasks.changes.stream import (
    EVERY,
    LONGEST,
    SCRATCH,
    TIDY,
    aside,
    changes,
    files,
    installing,
    lag,
    looking,
    moment,
    place,
    proven,
    state,
    trouble,
    words,
)
from tasks.engine import tables
from tasks.engine.change import Change
from tasks.engine.console import seconds
from tasks.engine.facts import READY, is_deployed, refuse_without_sudo
from tasks.engine.tables import counted, size_text
from tasks.engine.task import remote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tasks.engine.server import Server
    from tasks.engine.task import Host

NAMESPACE = "backup"

# $ a month, of a server that logs runs without a pause: 1.7 objects a look, and what Litestream
# lists and joins every half minute. Counted at 20 to 70 runs a second; S3 takes 0.005 $ a thousand.
LOOKING, TIDYING, IDLE = 22, 2, 0.3

WORDS = ("on", "off", "status", "verify")


def options(what: str, every: int = 0, at: str = "", json: bool = False) -> None:
    """Refuse what makes no sense together."""
    if what not in WORDS:
        raise Exit(f"There is no backup.stream {what}. Give one of: {', '.join(WORDS)}")
    if every and what != "on":
        raise Exit("--every goes with backup.stream on.")
    if not 0 <= every <= LONGEST:
        raise Exit(f"--every is a number of seconds from 1 to {LONGEST}.")
    if at:
        moment(at)
        if what != "verify":
            raise Exit("--at goes with backup.stream verify. To bring it back: ./fab restore --at")
    if json and what != "status":
        raise Exit("--json goes with backup.stream status.")


def verdict(row: Mapping[str, Any] | None) -> str | None:
    """Say why the exit code is 1 although there is an answer."""
    return row.get("trouble") if row else None


@remote(
    options=options,
    verdict=verdict,
    help={
        "what": "on, off, status, or verify: restore it on the side and check what comes",
        "every": "seconds between two looks at the databases (1; more costs less)",
        "at": "the moment to verify, such as 2026-11-24T15:30:00Z (default: the last change)",
        "json": "print JSON instead of lines (status)",
    },
)
def stream(
    c: Host, what: str, every: int = 0, at: str = "", json: bool = False
) -> dict[str, Any] | None:
    """Send every change to the bucket as it comes.

    By Litestream, beside the backups, not in their place: a lost host costs seconds of runs
    instead of hours, and `restore --at` brings back any moment of a week. `on` makes a backup
    where there is none yet, and proves the stream by restoring it on the side. `off` keeps what
    lies in the bucket. A look each second costs up to 24 $ a month (docs/stream.md).

    Example: fab -H ec2 backup.stream on
    """
    server = c.server
    server.settings.require_bucket()
    if what == "on":
        turn_on(server, every)
    elif what == "off":
        turn_off(server)
    elif what == "verify":
        verify(server, at)
    else:
        row = standing(server)
        if not json:
            tell(server, row)
        return row
    return None


def refuse_unfit(server: Server) -> None:
    """Raise Exit where there is no SQLite database of ours that could be streamed."""
    settings, facts = server.settings, server.facts
    uri = settings.backend_store_uri or f"{facts.database or 'sqlite'}:"
    if not uri.startswith("sqlite:"):
        raise Exit(
            "A stream is for SQLite, and this server's runs are in another database. For "
            "PostgreSQL see docs/stream.md; the backups go on: ./fab backup"
        )
    if not (is_deployed(settings, facts) and facts.schema):
        raise Exit(absent(server))
    refuse_without_sudo(facts)


def turn_on(server: Server, every: int) -> None:
    refuse_unfit(server)
    settings, facts = server.settings, server.facts
    if f"{facts.root}/{READY}" not in facts.files:
        raise Exit("The server's files are of an older version. Type: ./fab deploy")
    every = every or facts.stream_every or EVERY
    needed = changes(settings, facts, every)
    if not needed:
        server.say(f"backup.stream on: nothing to change, it looks every {every} s")
        return
    needed = [*backup_key.agreeing(server), *needed]
    proof = proven(server.apply("backup.stream on", needed))
    server.say(f"  restored from it on the side: {held(proof)}")
    server.say(
        f"  a look every {every} s costs up to {LOOKING / every + TIDYING:.0f} $ a month in S3's "
        f"requests where runs are logged day and night, {IDLE} $ where none are (docs/stream.md)"
    )
    server.say(f"✓ every change goes to s3://{settings.bucket}/{place(settings)}/", "green")


def turn_off(server: Server) -> None:
    settings, facts = server.settings, server.facts
    if not any(file.path in facts.files for file in files(settings, facts, EVERY)):
        server.say("backup.stream off: nothing to change, nothing is streamed")
        return
    script = f"{words(settings)}\nstream_off"
    server.apply("backup.stream off", [Change("end the stream", script)])
    server.say(
        f"✓ the stream has ended; what lies in s3://{settings.bucket}/{place(settings)}/ stays",
        "green",
    )


def verify(server: Server, at: str) -> None:
    settings, facts = server.settings, server.facts
    if not facts.complete:
        raise Exit(f"Nothing is installed on {server.name} yet. Type: ./fab install configure")
    began = time.monotonic()
    on = state(settings, facts) is not None
    # A host that streams nothing looks at what another has streamed.
    fetch, tidy = aside(settings, moment(at or "latest"), "present" if on and not at else "")
    serve = proving_aside(settings, f'"{SCRATCH}"')
    away = Change("take it away where it fails", f"on_failure() {{ {TIDY}; }}", announce=False)
    steps = [*installing(facts), away, fetch, serve, tidy]
    proof = proven(server.apply("backup.stream verify", steps, decided=False))
    took = seconds(time.monotonic() - began)
    server.say(f"✓ restored and served on the side in {took}: {held(proof)}", "green")


def held(proof: Mapping[str, Any]) -> str:
    """Spell what a restored stream holds."""
    return f"{tables.held(proof)}, the last change of {proof['at']}"


def standing(server: Server) -> dict[str, Any]:
    """Say how the stream stands, in plain values with their units in the names."""
    settings, facts = server.settings, server.facts
    now = state(settings, facts)
    report, *errors = server.look("backup.stream status", [looking(settings)])
    wrong = trouble(settings, facts)
    return {
        "on": now is not None,
        "running": now == "active",
        "every_seconds": facts.stream_every if now else None,
        "lag_seconds": lag(settings, facts),
        **serialised.loads(report),
        "errors": errors if now else [],
        "trouble": server.completed(f"{wrong} Type: ./fab doctor") if wrong else None,
    }


def tell(server: Server, row: Mapping[str, Any]) -> None:
    if not row["on"]:
        server.say("nothing is streamed (./fab backup.stream on)")
    elif row["running"]:
        server.say(
            f"streamed every {row['every_seconds']} s, last {row['lag_seconds']} s ago; "
            f"{size_text(row['bytes'])} in {counted(row['objects'], 'object')} as "
            f"{row['stream']}"
        )
    for first, last in row["reaches"]:
        server.say(f"  brings back any moment from {first} to {last}")
    for error in row["errors"]:
        server.warn(f"  {error}")
