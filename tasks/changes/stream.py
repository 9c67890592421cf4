"""The stream of both databases to the bucket, and what a stream brings back."""

from __future__ import annotations

import json as serialised
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import packages
from tasks.changes.backup import ROOT, backing_up, others_secrets, running, secrets
from tasks.changes.files import File, differs
from tasks.engine.change import Change, digest
from tasks.engine.templates import read, render, source, walled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings

EVERY = 1  # seconds between two looks at the databases, where nobody says otherwise

LONGEST = 3600

DAYS = 7  # how far back a stream leads

LATE = 60  # seconds without a success that nobody need hear of: S3 has its moments


def changes(settings: Settings, facts: Facts, every: int) -> list[Change]:
    """Decide what turning it on would do."""
    unit = facts.unit(f"{settings.unit}-stream.service")
    wanted = files(settings, facts, every)
    same = not any(differs(facts, file) for file in wanted)
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
    return [packages.environment("stream", "install Litestream")]


def present(settings: Settings, facts: Facts) -> list[File]:
    """Return the files that a stream which is on should have, with the pause that it has."""
    if facts.unit(f"{settings.unit}-stream.service").load != "loaded":
        return []
    return files(settings, facts, facts.stream_every or EVERY)


def files(settings: Settings, facts: Facts, every: int) -> list[File]:
    """Return the stream's files, as the host should have them."""
    unit, root = settings.unit, facts.root
    store = f"endpoint: {settings.endpoint_url}\nforce-path-style: true"
    texts = {
        "start_stream.sh": render(
            "start_stream.sh",
            unit=unit,
            bucket=settings.require_backup_bucket(),
            profile="default" if settings.backup_profile else settings.profile,
            keys=KEYS if settings.backup_profile else "# The server's own keys, or its role.",
            # Another store wants any, and is asked for none.
            region=settings.region or ("us-east-1" if settings.endpoint_url else ""),
        ),
        "stream.yml": render(
            "stream.yml",
            unit=unit,
            root=root,
            bucket=settings.require_backup_bucket(),
            store=store if settings.endpoint_url else "# endpoint: AWS's own",
            place=place(settings),
            every=every,
            hours=24 * DAYS,
        ),
    }
    service = render(
        "units/stream.service",
        unit=unit,
        user=facts.user,
        root=root,
        confined=walled(root, facts.home, hidden=others_secrets(settings)),
        secrets=secrets(settings),
    )
    return [
        File(f"{root}/start_stream.sh", "700", texts["start_stream.sh"]),
        File(f"{root}/stream.yml", "600", texts["stream.yml"]),
        File(f"/etc/systemd/system/{unit}-stream.service", "644", service),
    ]


# Where systemd lays what only this unit may read.
KEYS = "export AWS_SHARED_CREDENTIALS_FILE=$CREDENTIALS_DIRECTORY/backup-aws"


def place(settings: Settings) -> str:
    """Name the streams' place in the bucket."""
    return f"{settings.backup_prefix}/{settings.label}/stream"


def streaming(settings: Settings, facts: Facts, every: int) -> Change:
    """Build the change that starts a stream and waits until both databases are in the bucket."""
    start, configuration, service = (file.text for file in files(settings, facts, every))
    script = "\n".join((words(settings), source("stream_errors.sh"), source("stream_on.sh")))
    sent: dict[str, str | bytes] = {
        "start_stream.sh": start,
        "stream.yml": configuration,
        "stream.service": service,
    }
    return Change(f"stream both databases, with a look every {every} s", script, sent)


def words(settings: Settings) -> str:
    """Spell what scripts that stop the stream are written with."""
    return f"unit={settings.unit}\n{source('stream.sh')}"


def restoring(settings: Settings, at: str, folder: str, which: str = "", **request: Any) -> Change:
    """Build the change that brings both databases as they were at a moment into a folder.

    `at` is what `moment` returns; `folder` is a path for the host's shell, such as $root/next.part;
    `which` is a stream as <server id>/<begin>, "present" for the one that the host sends now, else
    the last that fits; for `request` see restore_stream.py. It reports a JSON object; the host must
    have Litestream (`installing`).
    """
    what = f"fetch and check the databases as they were at {at}"
    if at == "latest":
        what = "fetch and check the last that was streamed"
    words = (ROOT, f'folder="{folder}"')
    return running(settings, what, "restore_stream.py", *words, at=at, stream=which, **request)


def choosing(settings: Settings, facts: Facts, at: str) -> Change:
    """Build the look that tells which stream brings a moment back, and what it would replace."""
    on = state(settings, facts) == "active"
    return running(settings, "choose a stream", "choose_stream.py", ROOT, at=at, on=on)


def comparing(settings: Settings, at: str, which: str, key: str = "") -> Change:
    """Build the look that tells how its users differ from those of the newest vouched backup."""
    words = (ROOT, 'folder="$root/backups/users"')
    asked = {"at": at, "stream": which, "key": key}
    look = running(settings, "compare the users", "compare_stream.py", *words, **asked)
    return replace(look, script=f'mkdir -p -m 0700 "$root/backups"\n{look.script}')


def looking(settings: Settings) -> Change:
    """Build the look at what lies of the streams in the bucket, and what the unit runs into."""
    look = running(settings, "look at the stream", "look_at_stream.py", ROOT)
    lines = (
        look.script,
        f"unit={settings.unit}",
        source("stream_errors.sh"),
        "stream_errors | sed 's/^/@report /'",
    )
    return replace(look, script="\n".join(lines))


def moment(text: str) -> str:
    """Read the moment that an operator names; raises Exit where it is none, or still to come."""
    if text == "latest":
        return text
    example = "Give it as 2026-11-24T15:30:00Z (UTC), `2 hours ago`, or latest."
    try:
        when = ago(text) or datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise Exit(f"{text!r} does not say when. {example}") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    if when > datetime.now(timezone.utc):
        raise Exit(f"{text} is in the future. {example}")
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


UNITS = ("minute", "hour", "day")


def ago(text: str) -> datetime | None:
    """Read how long ago a moment was, such as `2 hours ago`; None where that is not said.

    `yesterday` is none: a day has many moments, and a restore wants one.
    """
    said = re.fullmatch(rf"(\d{{1,4}}) ({'|'.join(UNITS)})s? ago", text.strip().lower())
    if not said:
        return None
    return datetime.now(timezone.utc) - timedelta(**{f"{said[2]}s": int(said[1])})


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


def pruning(settings: Settings, timer: bool = False) -> Change:
    """Build the change that deletes what ended longer ago than a stream leads back.

    `timer` says that nobody watches.
    """
    what = "look for streams that are over"
    prune = running(settings, what, "prune_streams.py", ROOT, days=DAYS, timer=timer)
    return replace(prune, announce=False)


def proven(reports: Sequence[str]) -> Mapping[str, Any]:
    """Find what restore_stream.py reported."""
    return next(row for row in map(serialised.loads, reports) if "stream" in row)


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
