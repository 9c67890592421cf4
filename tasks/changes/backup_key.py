"""The key that vouches for a server's backups, on its host and in the operator's copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import backup_keys, paths
from tasks.engine.change import Change
from tasks.engine.console import console
from tasks.engine.facts import NOTHING
from tasks.engine.templates import source

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings


def putting(settings: Settings, key: str, former: str | None) -> Change:
    """Build the change that gives a host its key in the place of a `former` one, by its id.

    Where the host has another one by then, it fails and changes nothing.
    """
    words = f"unit={settings.unit} former={former or NOTHING}"
    script = f"{words}\n{source('put_backup_key.sh')}"
    return Change("put the backup key", script, {"new_backup_key": key})


def missing(facts: Facts) -> list[str]:
    """Say, for a plan, that a host would get its key."""
    return [] if facts.backup_key else ["put the backup key"]


def agreeing(server: Server) -> list[Change]:
    """See that host and operator have the same key; return what gives it to a host without one.

    Where the host alone has one, it is fetched into the operator's copy. Raises Exit where both
    have different ones: neither is ever overwritten.
    """
    there = server.facts.backup_key
    if there is None:
        key, new = backup_keys.made_or_kept(server)
        if new:
            copy = paths.shown(backup_keys.copy_of(server))
            server.say(f"the backup key is kept in {copy}: keep it as you keep the password")
        return [putting(server.settings, key, None)]
    given = backup_keys.supplied(server)
    here = given or backup_keys.kept(server)
    if here is not None and backup_keys.id_of(here) == there:
        return []
    # One that is kept for another host is this one's after a restore of that one's backups.
    known = None if given else backup_keys.of(server, [there])
    if here is not None and known is None:
        raise Exit(differing(server, there, here, given is not None))
    kept = backup_keys.keep(server, known or fetched(server))
    server.say(f"the host's backup key {there} is kept in {paths.shown(kept)}")
    return []


def differing(server: Server, there: str, here: str, given: bool) -> str:
    """Say that the host has another key than the operator, and what to type."""
    copy = backup_keys.copy_of(server)
    away = f"mv '{copy}' '{copy}.other'"
    if given:
        away = f"unset {backup_keys.VARIABLE}"
    return (
        f"{server.name} has the backup key {there}, and yours is {backup_keys.id_of(here)}. To "
        f"take the host's: {away}; to have it take yours: ssh {server.name} sudo rm "
        f"/etc/{server.settings.unit}/backup.key; then run the same command again."
    )


def fetched(server: Server) -> str:
    """Return the key that a host has; raises Exit where that is none."""
    path = f"/etc/{server.settings.unit}/backup.key"
    step = Change("fetch the backup key", f'report key "$(as_root cat {path})"')
    key = server.look("deploy", [step])[-1].removeprefix("key\t").strip()
    console.protect(key)
    if not backup_keys.KEY.fullmatch(key):
        raise Exit(
            f"{path} on {server.name} is no backup key, which has 64 hexadecimal digits. Take it "
            f"away, then run the same command again: ssh {server.name} sudo rm {path}"
        )
    return key
