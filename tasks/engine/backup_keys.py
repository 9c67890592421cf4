"""The operator's copies of backup keys, which vouch for backups and open what is secret in them.

One file for each host and environment, beside the login's, that only its owner can read. A key is
told from others by eight digits of its digest, which give nothing of it away.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import credentials, paths, stores
from tasks.engine.console import console

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from tasks.engine.server import Server

VARIABLE = "REMOTE_MLFLOW_BACKUP_KEY"

KEY = re.compile(r"[0-9a-f]{64}")

# A rehearsal host never gets a key of a real server's.
REAL, REHEARSED = ".backup-key", ".rehearsal-backup-key"

# Servers of one database have one key: the first that asks makes it, however many ask at once.
_making = threading.Lock()


def id_of(key: str) -> str:
    """Return what a key is called, as facts.sh and files/host/backup/vouching.py spell it too."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def supplied(server: Server) -> str | None:
    """Return the key in the variable; raises Exit where that is none."""
    key = server.variables.get(VARIABLE, "").strip()
    if not key:
        return None
    console.protect(key)
    if not KEY.fullmatch(key):
        raise Exit(
            f"{VARIABLE} is no backup key, which has 64 digits of 0-9 and a-f. Fix or unset it."
        )
    return key


def copy_of(server: Server) -> Path:
    """Name the operator's copy of this server's key: one for all with a database in common.

    The name ends in the environment, also where the login's names the database alone.
    """
    copy, environment = credentials.copy_of(server), server.settings.environment
    if stores.in_common(server.settings) and environment:
        return copy.with_name(f"{copy.stem}--{environment}{_ending(server)}")
    return copy.with_suffix(_ending(server))


def kept(server: Server) -> str | None:
    """Return the key in the operator's copy, or None; raises Exit where it cannot be read."""
    return _read(copy_of(server))


def keep(server: Server, key: str) -> Path:
    """Write the operator's copy and return it; another key that was there is kept beside it."""
    copy = copy_of(server)
    former = _read(copy)
    if former is not None and former != key:
        copy.rename(copy.with_suffix(f".{id_of(former)}{_ending(server)}"))
    credentials.write_privately(copy, key + "\n")
    return copy


def made_or_kept(server: Server) -> tuple[str, bool]:
    """Return the key that a server without one gets, kept here first; and whether it is new."""
    import secrets

    with _making:
        known = supplied(server) or kept(server)
        key = known or secrets.token_hex(32)
        console.protect(key)
        keep(server, key)
    return key, known is None


def of(server: Server, ids: Sequence[str]) -> str | None:
    """Return the first of these keys that the operator has, of the server's own environment."""
    known = {id_of(key): key for key in _all(server)}
    return next((known[id] for id in ids if id in known), None)


def _all(server: Server) -> Iterator[str]:
    if given := supplied(server):
        yield given
    if own := kept(server):
        yield own
    for file in sorted(paths.config().glob("*" + _ending(server))):
        if _is_of_environment(server, file) and (key := _read(file)):
            yield key


def _is_of_environment(server: Server, file: Path) -> bool:
    """Tell whether a copy is of a server of the same environment.

    Who has the key of a server for trials must not speak for the one in production.
    """
    name = re.sub(r"(\.[0-9a-f]{8})?\Z", "", file.name.removesuffix(_ending(server)))
    _, dashes, environment = name.rpartition("--")
    return (environment if dashes else None) == server.settings.environment


def _ending(server: Server) -> str:
    return REHEARSED if server.rehearsal else REAL


def _read(file: Path) -> str | None:
    try:
        key = file.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Exit(f"{file} cannot be read ({error}). Move it away, or fix it.") from None
    if not KEY.fullmatch(key):
        raise Exit(
            f"{file} holds no backup key, which has 64 hexadecimal digits. Move it away, then run "
            "the same command again."
        )
    console.protect(key)
    return key


def vouches(key: str, manifest: Mapping[str, Any]) -> bool:
    """Tell whether a key signed a backup's manifest, as files/host/backup/vouching.py does it."""
    told = {name: value for name, value in manifest.items() if name != "signature"}
    text = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    extracted = hmac.digest(bytes(32), bytes.fromhex(key), "sha256")
    derived = hmac.digest(extracted, b"remote-mlflow backup manifest\1", "sha256")
    signature = hmac.new(derived, text, "sha256").hexdigest()
    return hmac.compare_digest(signature, str(manifest.get("signature")))
