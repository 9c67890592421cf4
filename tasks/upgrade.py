"""Move a server to another MLflow release and back, with its databases."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import adopt, backup_key
from tasks.changes.follow import follow
from tasks.changes.install import NEEDED_KB
from tasks.changes.presence import refuse_absent
from tasks.changes.releases import version_of
from tasks.changes.resolve import find
from tasks.changes.service import is_one_of_several
from tasks.changes.upgrade import looking, rolling_back, upgrading
from tasks.engine import stores
from tasks.engine.stores import refuse_other_store
from tasks.engine.tables import counted, size_text
from tasks.engine.task import remote

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.facts import Facts
    from tasks.engine.server import Server
    from tasks.engine.task import Host


@remote(
    in_turn=True,
    help={
        "to": "MLflow version (default: `version:` of the settings)",
        "check": "only tell what an upgrade would do",
    },
)
def upgrade(c: Host, to: str = "", check: bool = False) -> None:
    """Move the server to another MLflow release.

    Installs the release beside the present one and rehearses the migration on a copy of the
    databases, all while the server runs; makes a backup; then stops for a moment, migrates, and
    switches. Whatever fails puts the former release and databases back. Also renews the locked
    packages where the version stays.

    Example: fab -H ec2 upgrade
    """
    server = c.server
    refuse_absent(server)
    if lead := c.turn.lead:
        follow(server, lead, "upgrade")
        return
    refuse_unfit(server.facts)
    release, lock = find(server, to or server.settings.version)
    version = version_of(release)
    if server.facts.release == release:
        server.say(f"upgrade: nothing to change, the server runs MLflow {version}")
        return
    if lock is not None:
        refuse_full_disk(server.facts)
    if check:
        tell(server, release)
        return
    steps = upgrading(server.settings, server.facts, release, lock, is_one_of_several(c))
    server.apply("upgrade", [*backup_key.agreeing(server), *steps])
    server.say(f"✓ MLflow {version} serves. To undo: ./fab rollback", "green")
    say_version(server, version)


def say_version(server: Server, version: str) -> None:
    """Say what to set where the settings name another version than the one that now serves."""
    if version != server.settings.version:
        server.say(f"Set `version: {version}` under `mlflow:` in fabric.yaml.")


def refuse_unfit(facts: Facts) -> None:
    """Raise Exit where an upgrade cannot begin, naming why and what to do."""
    refuse_other_store(facts)
    if facts.schema is None and facts.schema_error != stores.CUT_OFF:
        raise Exit("The server has no database that can be read. See why: ./fab doctor")


def refuse_full_disk(facts: Facts) -> None:
    """Raise Exit where the disk has no room for another release."""
    if facts.free_kb < NEEDED_KB:
        raise Exit(
            f"The disk of the host has {facts.free_kb / 1024**2:.1f} GB free; a release needs "
            f"{NEEDED_KB / 1024**2:.0f}. Free some or enlarge the volume, then type "
            "./fab upgrade again."
        )


def tell(server: Server, release: str) -> None:
    """Say what an upgrade would do."""
    facts = server.facts
    version, now = version_of(release), version_of(facts.release)
    what = f"from MLflow {now} to {version}"
    if version == now:
        what = f"MLflow {now} stays, its locked packages change"
    there = "is installed already" if release in facts.complete else "would be installed beside it"
    size = size_text(facts.database_bytes or 0)
    server.say(f"upgrade: {what}; the release {there}")
    server.say(
        f"  database {size} with {counted(facts.runs, 'run')}, disk "
        f"{size_text(facts.free_kb * 1024)} free; whether it has to be migrated, the "
        "rehearsal on a copy shows before anything stops"
    )


@remote(
    in_turn=True, help={"id": "which former state, as it is named on the host", "yes": "do not ask"}
)
def rollback(c: Host, id: str = "", yes: bool = False) -> None:
    """Go back to before the last upgrade, restore or adoption.

    The former release and, where it replaced them, the former databases: what was logged since is
    counted first, and asked about. What is put aside now is kept as well. Where deploy took over
    a server of the guide's, that one serves again, as it ran.

    Example: fab -H ec2 rollback
    """
    server = c.server
    if server.facts.guide and server.facts.guide.cut_off:
        server.apply(
            "rollback", [adopt.starting_again(server.settings, server.facts)], decided=False
        )
        say_given_back(server, server.facts.guide.version)
        return
    refuse_absent(server)
    if lead := c.turn.lead:
        follow(server, lead, "rollback")
        return
    stores.refuse_closed(server.facts)
    former = json.loads(server.look("rollback", [looking(id)])[-1])
    if not server.confirm(f"Roll {server.place} back to {former['name']}?", yes, lost(former)):
        raise Exit("Nothing was rolled back.")
    version = version_of(former["release"])
    if former["task"] == "adopt":
        changes = adopt.giving_back(server.settings, server.facts, former)
        server.apply("rollback", changes, decided=False)
        say_given_back(server, version)
        return
    steps = rolling_back(server.settings, server.facts, former, is_one_of_several(c))
    server.apply("rollback", steps, decided=False)
    server.say(f"✓ MLflow {version} serves, as before the {former['task']}", "green")
    say_version(server, version)


def say_given_back(server: Server, version: str) -> None:
    """Say that the guide's server is there again."""
    server.say(f"✓ the guide's server serves again, with MLflow {version}", "green")


def lost(former: Any) -> str:
    """Say what going back would lose."""
    when = datetime.fromtimestamp(former["replaced"], timezone.utc)
    task = "adoption" if former["task"] == "adopt" else former["task"]
    what = f"The state before the {task} of {when:%Y-%m-%d %H:%M} UTC"
    if not former["databases"]:
        return f"{what}: only the release changes, no run is lost."
    what = f"{what}: {counted(former['runs'], 'run')}."
    if former["lost"] is None:
        return f"{what} What is there now cannot be read; it is put aside."
    return f"{what} Put aside: {counted(former['lost'], 'run')} made since."
