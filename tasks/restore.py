"""Bring a server back to a backup or a moment, and put it as it was where that fails."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import backup_key, stream
from tasks.changes.backup import choosing
from tasks.changes.follow import follow
from tasks.changes.presence import refuse_absent
from tasks.changes.restore import fetching, fetching_moment, restoring
from tasks.changes.service import is_one_of_several
from tasks.engine import backup_keys, paths
from tasks.engine.backups import refuse_other_id
from tasks.engine.console import interactive, printable, refuse_nobody
from tasks.engine.stores import refuse_other_store
from tasks.engine.tables import counted
from tasks.engine.task import remote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from tasks.engine.change import Change
    from tasks.engine.server import Server
    from tasks.engine.task import Host

LOOK_TIMEOUT = 120  # seconds; a bucket with years of backups is listed first

HINT = (
    "The users and passwords are those of the backup. Should the login that is kept here be "
    "refused: ./fab users.reset-admin"
)


def options(id: str = "", at: str = "", yes: bool = False, unsigned: bool = False) -> None:
    """Refuse what makes no sense together, a moment that is none, and an id that no backup has."""
    if id and at:
        raise Exit("--id names a backup and --at a moment of the stream: give one of them.")
    refuse_other_id(id)
    if at:
        stream.moment(at)


@remote(
    options=options,
    in_turn=True,
    help={
        "id": "which backup, as backup.list names it (default: the newest that has runs)",
        "at": "a moment that was streamed, such as 2026-11-24T15:30:00Z, or latest",
        "yes": "do not ask",
        "unsigned": "also what nobody vouches for; asked about where somebody can answer",
    },
)
def restore(c: Host, id: str = "", at: str = "", yes: bool = False, unsigned: bool = False) -> None:
    """Go back to a backup or a moment, on this host or a new one.

    Databases, users, passwords and registry. Shows what would be replaced and asks. What comes is
    checked and served on the side before the server stops for a moment; the former databases stay
    on the host, for `rollback`, and come back by themselves where something fails. `--at` takes
    any moment that `backup.stream` sent, whichever host did. Without --id it is the newest backup
    that the server's backup key vouches for; a new host gets that key from your copy.

    Example: fab -H ec2 restore
    """
    server = c.server
    refuse_absent(server)
    if lead := c.turn.lead:
        follow(server, lead, "restore")
        return
    refuse_other_store(server.facts)
    if at and server.facts.database == "postgresql":
        raise Exit(
            "--at brings back what a stream of SQLite databases sent, and this server is on "
            "PostgreSQL. A managed one has its own point-in-time recovery; a backup: --id ID"
        )
    if at:
        restore_moment(server, stream.moment(at), yes, unsigned)
    else:
        restore_set(c, id, yes, unsigned)
    server.say(HINT)


def restore_set(c: Host, id: str, yes: bool, unsigned: bool) -> None:
    """Go back to a backup."""
    server = c.server
    chosen, key = with_key(server, lambda key: choose(server, id, key))
    id, doubt = chosen["set"]["id"], chosen["doubt"]
    consequence = replaced(chosen["set"], chosen["present"]) + other_key(server, key)
    ask(server, f"the backup {id}", consequence, [doubt] if doubt else [], yes, unsigned)
    fetch = fetching(server.settings, id, key, unsigned=bool(doubt))
    steps = restoring(server.settings, server.facts, fetch, is_one_of_several(c))
    server.apply("restore", [*steps, *taking_along(server, key)], False)
    server.say(f"✓ restored {id}: {holdings(chosen['set'])}", "green")


def restore_moment(server: Server, at: str, yes: bool, unsigned: bool) -> None:
    """Go back to a moment that was streamed."""
    settings = server.settings
    look = [stream.choosing(settings, server.facts, at)]
    chosen = json.loads(server.look("restore", look, LOOK_TIMEOUT)[-1])
    what = f"what was streamed until {chosen['at']}"
    if lacking := stream.installing(server.facts):
        if not yes:
            refuse_nobody(f"Restore {what} on {server.place}?")
        # What would be brought is looked at before anybody is asked.
        server.apply("restore", lacking, False)
    compared, key = with_key(server, lambda key: compare(server, at, chosen["stream"], key))
    doubts = [printable(line) for line in compared["doubts"]]
    consequence = overwritten(chosen) + other_key(server, key)
    ask(server, what, consequence, doubts, yes, unsigned)
    agreed = {"key": key, "agreed": compared["doubts"], "checked": not unsigned}
    fetch = fetching_moment(settings, at, chosen["stream"], **agreed)
    steps = restoring(settings, server.facts, fetch)
    done = stream.proven(server.apply("restore", [*steps, *taking_along(server, key)], False))
    server.say(f"✓ restored what was streamed until {done['at']}: {holdings(done)}", "green")
    if stream.state(settings, server.facts) is None:
        server.say("This host streams nothing itself yet: ./fab backup.stream on")


def ask(
    server: Server, what: str, consequence: str, doubts: Sequence[str], yes: bool, unsigned: bool
) -> None:
    """Raise Exit where that is not wanted.

    What speaks against it, --yes does not answer: a person does, or --unsigned.
    """
    if doubts and not unsigned and (yes or not interactive()):
        raise Exit(
            f"Nothing was restored: {'; '.join(doubts).rstrip('.')}. To restore it all the same, "
            "add --unsigned."
        )
    lines = [consequence, *(f"Mind: {doubt}" for doubt in doubts)]
    if not server.confirm(f"Restore {what} on {server.place}?", yes, "\n".join(lines)):
        raise Exit("Nothing was restored.")


def with_key(server: Server, look: Callable[[str], Any]) -> tuple[Any, str]:
    """Look, and again with the operator's copy of a key where the host has not the one that signed.

    Returns what was seen, and that key; "" where the host's own is the one, or nobody here has it.
    """
    seen = look("")
    key = backup_keys.of(server, seen["keys"]) if seen.get("doubt", seen.get("doubts")) else None
    return (look(key), key) if key else (seen, "")


def other_key(server: Server, key: str) -> str:
    """Say that another server's key vouches for what comes, and would become this host's."""
    if not key:
        return ""
    line = f"The backup key {backup_keys.id_of(key)} vouches for it, of which you have a copy"
    if former := server.facts.backup_key:
        return f"\n{line}. The host gets it in the place of its own, {former}."
    return f"\n{line}. The host gets it."


def taking_along(server: Server, key: str) -> list[Change]:
    """Build what makes the key of another host's backups this host's own, as their id is then."""
    if not key:
        return []
    copy = paths.shown(backup_keys.keep(server, key))
    server.say(f"the host gets the backup key {backup_keys.id_of(key)} of those backups ({copy})")
    return [backup_key.putting(server.settings, key, server.facts.backup_key)]


def compare(server: Server, at: str, which: str, key: str) -> Any:
    """Ask the host how a stream's users differ from those of the newest vouched backup."""
    step = stream.comparing(server.settings, at, which, key)
    return json.loads(server.look("restore", [step], LOOK_TIMEOUT)[-1])


def choose(server: Server, id: str, key: str = "") -> Any:
    """Ask the host which backup it would be and what is there now; raises Exit where none fits."""
    step = choosing(server.settings, id, key)
    return json.loads(server.look("restore", [step], LOOK_TIMEOUT)[-1])


def replaced(chosen: Mapping[str, Any], present: Mapping[str, Any] | None) -> str:
    """Say what the backup holds and what it would replace."""
    lines = [f"The backup {chosen['id']} (host {chosen['host']}, MLflow {chosen['version']}):"]
    lines.append(f"  {holdings(chosen)}")
    if present is None:
        lines.append("It replaces databases that cannot be read.")
    else:
        lines.append(f"It replaces {runs(present)}.")
    return "\n".join(lines)


def overwritten(chosen: Mapping[str, Any]) -> str:
    """Say of a moment which stream brings it, and what it would replace."""
    host, _, began = chosen["stream"].partition("/")
    line = f"The last change by then was sent at {chosen['at']}, by the stream of server {host} "
    lines = [f"{line}that began at {began}."]
    present = chosen["present"]
    if present is None:
        lines.append("It replaces databases that cannot be read.")
    else:
        lines.append(
            f"It replaces {runs(present)}; {present['younger']} of them began after that change."
        )
    return "\n".join(lines)


def holdings(held: Mapping[str, Any]) -> str:
    """Spell how much a backup holds."""
    return f"{runs(held)}, {counted(held['users'], 'user')}"


def runs(held: Mapping[str, Any]) -> str:
    """Spell how many runs there are, and when the newest began."""
    return f"{counted(held['runs'], 'run')}{newest(held)}"


def newest(held: Mapping[str, Any]) -> str:
    """Spell when the newest run began; nothing where there is none."""
    if not held.get("newest_run"):
        return ""
    try:
        moment = datetime.fromtimestamp(held["newest_run"] / 1000, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return ""  # a client may say any number
    return f", the newest of {moment:%Y-%m-%d %H:%M:%S} UTC"
