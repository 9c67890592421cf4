"""Bring a server back to a backup, and put it as it was where that fails."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.backup import program, programs, serving_aside
from tasks.console import confirm
from tasks.deploy import is_deployed, readying
from tasks.facts import Facts
from tasks.install import refuse_without_sudo
from tasks.kinds import Host, remote
from tasks.server import Change, Server
from tasks.service import ABSENT
from tasks.templates import read

if TYPE_CHECKING:
    from tasks.settings import Settings

LOOK_TIMEOUT = 120  # seconds; a bucket with years of backups is listed first
HINT = (
    "The users and passwords are those of the backup. Should the login that is kept here be "
    "refused: ./fab users.reset-admin"
)


@remote(
    help={
        "id": "which backup, as backup.list names it (default: the newest that has runs)",
        "yes": "do not ask",
    }
)
def restore(c: Host, id: str = "", yes: bool = False) -> None:
    """Go back to a backup, on this host or a new one.

    Databases, users, passwords and registry. Shows what would be replaced and asks. The backup is
    checked and served on the side before the server stops for a moment; the former databases stay
    on the host, for `rollback`, and come back by themselves where something fails.

    Example: fab -H ec2 restore
    """
    server = c.server
    refuse_absent(server)
    refuse_other_store(server.facts)
    chosen = choose(server, id)
    consequence = replaced(chosen["set"], chosen["present"])
    if not confirm(f"Restore the backup {chosen['set']['id']} on {server.name}?", yes, consequence):
        raise Exit("Nothing was restored.")
    server.apply("restore", restoring(server.settings, server.facts, chosen["set"]["id"]), False)
    server.say(f"✓ restored {chosen['set']['id']}: {holdings(chosen['set'])}", "green")
    server.say(HINT)


def refuse_absent(server: Server) -> None:
    """Raise Exit where no server is deployed that could be switched."""
    if not is_deployed(server.settings, server.facts):
        raise Exit(ABSENT.format(host=server.name))
    refuse_without_sudo(server.facts)


def refuse_other_store(facts: Facts) -> None:
    """Raise Exit where the databases that would be replaced are not those that are served."""
    if facts.database not in (None, "sqlite"):
        raise Exit(
            "The backend store is not SQLite, which is all that restore replaces. Bring its dump "
            "here (./fab backup.download); its administrator restores it with pg_restore."
        )


def choose(server: Server, id: str) -> Any:
    """Ask the host which backup it would be and what is there now; raises Exit where none fits."""
    settings = server.settings
    script = program(settings, "choose_set.py", id)
    step = Change("choose a backup", script, programs("choose_set.py"))
    return json.loads(server.look("restore", [step], LOOK_TIMEOUT)[-1])


def restoring(settings: Settings, facts: Facts, id: str) -> list[Change]:
    """Build what brings one backup back."""
    fetch = program(settings, "fetch_set.py", id) + ' "$root/next.part"'
    return [
        readying(settings, facts),
        Change(
            f"fetch and check the backup {id}",
            f'rm -rf "$root/next.part"\n{fetch}',
            programs("fetch_set.py"),
        ),
        serving_aside(settings, '"$root/next.part"'),
        Change(
            "put it in place",
            "\n".join((f"unit={settings.unit}", switching(), read("host/restore.sh"))),
        ),
    ]


def switching() -> str:
    """Spell the words that a switch of the state is written with."""
    return read("host/health.sh") + read("host/stream.sh") + read("host/switch.sh")


def replaced(chosen: Mapping[str, Any], present: Mapping[str, Any] | None) -> str:
    """Say what the backup holds and what it would replace."""
    lines = [f"The backup {chosen['id']} (host {chosen['host']}, MLflow {chosen['version']}):"]
    lines.append(f"  {holdings(chosen)}")
    if present is None:
        lines.append("It replaces databases that cannot be read.")
    else:
        lines.append(f"It replaces {present['runs']} runs{newest(present)}.")
    return "\n".join(lines)


def holdings(held: Mapping[str, Any]) -> str:
    """Spell how much a backup holds."""
    return f"{held['runs']} runs{newest(held)}, {held['users']} users"


def newest(held: Mapping[str, Any]) -> str:
    """Spell when the newest run began; nothing where there is none."""
    if not held.get("newest_run"):
        return ""
    moment = datetime.fromtimestamp(held["newest_run"] / 1000, timezone.utc)
    return f", the newest of {moment:%Y-%m-%d %H:%M:%S} UTC"
