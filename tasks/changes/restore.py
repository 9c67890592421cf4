"""Put a backup, or a moment of a stream, in the place of a server's state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.changes import stream
from tasks.changes.backup import ROOT, proving_aside, running
from tasks.changes.files import readying
from tasks.changes.switch import switching
from tasks.engine.change import Change
from tasks.engine.templates import source

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings


def restoring(
    settings: Settings, facts: Facts, fetch: Change, several: bool = False
) -> list[Change]:
    """Build what makes the state that `fetch` lays into next.part the server's."""
    begin = f"unit={settings.unit}\n{switching(several)}\non_failure() {{ give_up_next; }}"
    return [
        readying(settings, facts),
        replace(fetch, script=f"{begin}\n{fetch.script}"),
        proving_aside(settings, '"$root/next.part"'),
        Change("put it in place", source("restore.sh")),
    ]


def fetching(settings: Settings, id: str, key: str = "", unsigned: bool = False) -> Change:
    """Build what brings a backup.

    `key` is another one than the host's that vouches for it; `unsigned` says that none need.
    """
    what, folder = f"fetch and check the backup {id}", 'folder="$root/next.part"'
    fetch = running(settings, what, "fetch_set.py", ROOT, folder, id=id, key=key, unsigned=unsigned)
    return replace(fetch, script=f"give_up_next\n{fetch.script}")


def fetching_moment(settings: Settings, at: str, which: str, **request: Any) -> Change:
    """Build what brings a moment from one stream, with its server's key and id.

    `request` is which key vouches for backups as well, and what was agreed to of its users.
    """
    asked = {"own": True, "checked": True, **request}
    return stream.restoring(settings, at, "$root/next.part", which, **asked)
