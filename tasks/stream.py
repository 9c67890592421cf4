"""Send every change of the databases to the bucket as it comes, and bring any moment back."""

from __future__ import annotations

import json as serialised
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks import install
from tasks.backup import backing_up, program, programs, serving_aside
from tasks.configure import is_there
from tasks.console import seconds
from tasks.deploy import is_deployed
from tasks.facts import Facts
from tasks.install import refuse_without_sudo
from tasks.kinds import Host, remote
from tasks.releases import digest
from tasks.server import Change, Server
from tasks.service import absent
from tasks.templates import confined, read, render

if TYPE_CHECKING:
    from tasks.settings import Settings

EVERY = 1  # seconds between two looks at the databases, where nobody says otherwise
LONGEST = 3600
DAYS = 7  # how far back a stream leads
# $ a month, of a server that logs runs without a pause: 1.7 objects a look, and what Litestream
# lists and joins every half minute. Counted at 20 to 70 runs a second; S3 takes 0.005 $ a thousand.
LOOKING, TIDYING, IDLE = 22, 2, 0.3
LATE = 60  # seconds without a success that nobody need hear of: S3 has its moments
WORDS = ("on", "off", "status", "verify")


def options(what: str, every: int = 0, at: str = "", json: bool = False) -> None:
    """Refuse what makes no sense together."""
    if what not in WORDS:
        raise Exit(f"backup.stream {what} is nothing. Type one of: {', '.join(WORDS)}")
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


# -- on and off --------------------------------------------------------------------------------


def turn_on(server: Server, every: int) -> None:
    refuse_unfit(server)
    settings, facts = server.settings, server.facts
    every = every or facts.stream_every or EVERY
    needed = changes(settings, facts, every)
    if not needed:
        server.say(f"backup.stream on: nothing to change, it looks every {every} s")
        return
    proof = proven(server.apply("backup.stream on", needed))
    server.say(f"  restored from it on the side: {held(proof)}")
    server.say(
        f"  a look every {every} s costs up to {LOOKING / every + TIDYING:.0f} $ a month in S3's "
        f"requests where runs are logged day and night, {IDLE} $ where none are (docs/stream.md)"
    )
    server.say(f"✓ every change goes to s3://{settings.bucket}/{place(settings)}/", "green")


def changes(settings: Settings, facts: Facts, every: int) -> list[Change]:
    """Decide what turning it on would do."""
    unit = facts.unit(f"{settings.unit}-stream.service")
    same = all(is_there(facts, *file) for file in files(settings, facts, every))
    runs = unit.active == "active" and unit.file == "enabled"
    installed = installing(facts)
    if same and runs and not installed:
        return []
    # The key that sessions hang on lies in backups alone.
    first = [] if facts.backup else [backing_up(settings)]
    fetch, tidy = aside(settings, which="present")
    return [*installed, *first, streaming(settings, facts, every), fetch, tidy, pruning(settings)]


def installing(facts: Facts) -> list[Change]:
    """Build what brings Litestream to a host that lacks it."""
    if facts.stream == digest(read("stream.txt")):
        return []
    return [install.environment("stream", "install Litestream")]


def files(settings: Settings, facts: Facts, every: int) -> list[tuple[str, str, str]]:
    """Render the stream's files: path, text, mode."""
    unit, root = settings.unit, facts.root
    store = f"endpoint: {settings.endpoint_url}\nforce-path-style: true"
    texts = {
        "start_stream.sh": render(
            "start_stream.sh",
            unit=unit,
            settle=read("host/settle.sh").strip(),
            bucket=settings.require_bucket(),
            profile=settings.profile,
            # Another store wants any, and is asked for none.
            region=settings.region or ("us-east-1" if settings.endpoint_url else ""),
        ),
        "stream.yml": render(
            "stream.yml",
            unit=unit,
            root=root,
            bucket=settings.require_bucket(),
            store=store if settings.endpoint_url else "# endpoint: AWS's own",
            place=place(settings),
            every=every,
            hours=24 * DAYS,
        ),
    }
    service = render(
        "mlflow-stream.service",
        unit=unit,
        user=facts.user,
        root=root,
        confined=confined(root, facts.home),
    )
    return [
        (f"{root}/start_stream.sh", texts["start_stream.sh"], "700"),
        (f"{root}/stream.yml", texts["stream.yml"], "600"),
        (f"/etc/systemd/system/{unit}-stream.service", service, "644"),
    ]


def managed_files(settings: Settings) -> list[str]:
    """Name the files whose content decides whether something must be shipped."""
    unit, root = settings.unit, settings.root_path
    return [
        f"{root}/start_stream.sh",
        f"{root}/stream.yml",
        f"/etc/systemd/system/{unit}-stream.service",
    ]


def place(settings: Settings) -> str:
    """Name the streams' place in the bucket."""
    return f"{settings.backup_prefix}/{settings.label}/stream"


def streaming(settings: Settings, facts: Facts, every: int) -> Change:
    """Build the change that starts a stream and waits until both databases are in the bucket."""
    start, configuration, service = (text for _, text, _ in files(settings, facts, every))
    script = "\n".join((words(settings), read("host/stream_errors.sh"), read("host/stream_on.sh")))
    staged: dict[str, str | bytes] = {
        "start_stream.sh": start,
        "stream.yml": configuration,
        "stream.service": service,
    }
    return Change(f"stream both databases, with a look every {every} s", script, staged)


def words(settings: Settings) -> str:
    """Spell what scripts that stop the stream are written with."""
    return f"unit={settings.unit}\n{read('host/stream.sh')}"


def turn_off(server: Server) -> None:
    settings, facts = server.settings, server.facts
    if not any(path in facts.files for path, _, _ in files(settings, facts, EVERY)):
        server.say("backup.stream off: nothing to change, nothing is streamed")
        return
    script = f"{words(settings)}\nstream_off"
    server.apply("backup.stream off", [Change("end the stream", script)])
    server.say(
        f"✓ the stream has ended; what lies in s3://{settings.bucket}/{place(settings)}/ stays",
        "green",
    )


# -- bringing back -----------------------------------------------------------------------------


def restoring(
    settings: Settings, at: str, folder: str, which: str = "", own: bool = False
) -> Change:
    """Build the change that brings both databases as they were at a moment into a folder.

    `at` is what `moment` returns; `folder` is a path for the host's shell, such as $root/next.part;
    `which` is a stream as <server id>/<begin>, "present" for the one that the host sends now, else
    the last that fits; `own` says that the key and id of its server shall come too. It reports a
    JSON object; the host must have Litestream (`installing`).
    """
    script = f'{program(settings, "restore_stream.py", at, which)} "{folder}"'
    if own:
        script += " own"
    what = f"fetch and check the databases as they were at {at}"
    if at == "latest":
        what = "fetch and check the last that was streamed"
    return Change(what, script, programs("restore_stream.py", "streams.py", "configuration.py"))


def choosing(settings: Settings, facts: Facts, at: str) -> Change:
    """Build the look that tells which stream brings a moment back, and what it would replace."""
    on = ["on"] if state(settings, facts) == "active" else []
    script = program(settings, "choose_stream.py", at, *on)
    return Change("choose a stream", script, programs("choose_stream.py", "streams.py"))


def moment(text: str) -> str:
    """Read the moment that an operator names; raises Exit where it is none, or still to come."""
    if text == "latest":
        return text
    example = "Give it as 2026-11-24T15:30:00Z, or latest."
    try:
        when = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise Exit(f"{text} is no moment. {example}") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    if when > datetime.now(timezone.utc):
        raise Exit(f"{text} is still to come. {example}")
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


SCRATCH = "$root/backups/stream"
TIDY = f'rm -rf "{SCRATCH}"'


def aside(settings: Settings, at: str = "latest", which: str = "") -> list[Change]:
    """Build what restores the stream on the side; the second change takes it away again."""
    restore = restoring(settings, at, SCRATCH, which)
    script = f'mkdir -p -m 0700 "$root/backups"\n{restore.script}'
    return [
        Change("restore it on the side and check what comes", script, restore.files),
        Change("take it away", TIDY, announce=False),
    ]


def pruning(settings: Settings, *how: str) -> Change:
    """Build the change that deletes what ended longer ago than a stream leads back.

    `how` is "timer" where nobody watches.
    """
    script = program(settings, "prune_streams.py", str(DAYS), *how)
    return Change(
        "look for streams that are over", script, programs("prune_streams.py", "streams.py"), False
    )


def verify(server: Server, at: str) -> None:
    settings, facts = server.settings, server.facts
    if not facts.complete:
        raise Exit(f"Nothing is installed on {server.name} yet. Type: ./fab install configure")
    began = time.monotonic()
    on = state(settings, facts) is not None
    # A host that streams nothing looks at what another has streamed.
    fetch, tidy = aside(settings, moment(at or "latest"), "present" if on and not at else "")
    serve = serving_aside(settings, f'"{SCRATCH}"')
    away = Change("take it away where it fails", f"on_failure() {{ {TIDY}; }}", announce=False)
    steps = [*installing(facts), away, fetch, serve, tidy]
    proof = proven(server.apply("backup.stream verify", steps, decided=False))
    took = seconds(time.monotonic() - began)
    server.say(f"✓ restored and served on the side in {took}: {held(proof)}", "green")


def proven(reports: Sequence[str]) -> Mapping[str, Any]:
    """Find what restore_stream.py reported."""
    return next(row for row in map(serialised.loads, reports) if "stream" in row)


def held(proof: Mapping[str, Any]) -> str:
    """Spell what a restored stream holds."""
    return f"{proof['runs']} runs, {proof['users']} users, the last change of {proof['at']}"


# -- how it stands -----------------------------------------------------------------------------


def trouble(settings: Settings, facts: Facts) -> str | None:
    """Say what is wrong with the stream; None where it is well, or off."""
    unit = facts.unit(f"{settings.unit}-stream.service")
    if unit.load != "loaded":
        return None
    if unit.active != "active":
        failing = f", after {unit.restarts} starts" if unit.restarts else ""
        return f"The stream is on and does not run ({unit.active}{failing})."
    late = lag(settings, facts) or 0
    if late > LATE + 2 * (facts.stream_every or EVERY):
        return f"The databases were last streamed {late} s ago."
    return None


def state(settings: Settings, facts: Facts) -> str | None:
    """Return the state of the stream's unit; None where it is off."""
    unit = facts.unit(f"{settings.unit}-stream.service")
    return unit.active if unit.load == "loaded" else None


def lag(settings: Settings, facts: Facts) -> int | None:
    """Return for how many seconds nothing was sent, None where it does not run.

    Since its start where nothing ever was.
    """
    unit = facts.unit(f"{settings.unit}-stream.service")
    if unit.active != "active":
        return None
    return max(0, round(facts.now - unit.since if facts.stream_lag is None else facts.stream_lag))


def standing(server: Server) -> dict[str, Any]:
    """Say how the stream stands, in plain values with their units in the names."""
    settings, facts = server.settings, server.facts
    now = state(settings, facts)
    script = "\n".join(
        (
            program(settings, "look_at_stream.py"),
            f"unit={settings.unit}",
            read("host/stream_errors.sh"),
            "stream_errors | sed 's/^/@report /'",
        )
    )
    step = Change("look at the stream", script, programs("look_at_stream.py", "streams.py"))
    report, *errors = server.look("backup.stream status", [step])
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
            f"{row['bytes'] / 1e6:.1f} MB in {row['objects']} objects as {row['stream']}"
        )
    for first, last in row["reaches"]:
        server.say(f"  brings back any moment from {first} to {last}")
    for error in row["errors"]:
        server.warn(f"  {error}")
