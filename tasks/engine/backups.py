"""What a backup is called, before a host is asked for it."""

from __future__ import annotations

import re

from invoke import Exit

# <UTC time>-<server>-<letters>, as files/host/backup/shapes.py spells it too.
ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_backup(id: str) -> bool:
    """Tell whether a backup can be called so."""
    return bool(ID.fullmatch(id))


def refuse_other_id(id: str = "") -> None:
    """Raise Exit where an id is given that no backup has."""
    if id and not is_backup(id):
        raise Exit(
            f"--id {id[:60]!r} is not a backup's ID, such as 20261125T120000Z-1a2b3c4d. See them "
            "all: ./fab backup.list"
        )
