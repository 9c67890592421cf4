"""A backup that arrives on this machine: unpacked, compared with its manifest, then named."""

from __future__ import annotations

import hashlib
import json as serialised
import os
import re
import shutil
import tarfile
from functools import partial
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.backup_keys import vouches
from tasks.engine.backups import is_backup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import IO, Any

TAKEN = 1 << 20  # bytes that are written at once

LARGEST = 64 << 10  # bytes of a manifest

# What backup writes, as files/host/backup/shapes.py spells it too.
FILES = {"configuration.tar.gz", "configuration.tar.gz.enc"} | {
    f"{name}.{kind}" for name in ("mlflow", "basic_auth") for kind in ("db.zst", "db.gz", "dump")
}
SHA256 = re.compile(r"[0-9a-f]{64}")


def already(place: Path) -> str:
    return f"{place} is there already. Move it away, or give another --to."


def put(whole: Path, folder: Path) -> Path:
    """Move a folder that is complete to its name; never over another one."""
    place = folder / whole.name
    if place.exists():
        raise Exit(already(place))
    return whole.rename(place)


def unpack(stream: IO[bytes], folder: Path) -> None:
    """Write a set's files as they come; raises Exit where one is not what was sent.

    The tar begins with <id>/manifest.json, which names all others with size and SHA-256.
    """
    with tarfile.open(fileobj=stream, mode="r|", bufsize=TAKEN) as archive:
        first = archive.next()
        if first is None:
            raise tarfile.ReadError("nothing came")
        id, _, name = first.name.partition("/")
        if not is_backup(id) or name != "manifest.json" or first.size > LARGEST:
            raise Exit(f"{first.name!r} is no backup's manifest. Update this project.")
        text = member(archive, first).read()
        files = named(id, text)
        refuse_full(folder, sum(entry["bytes"] for entry in files))
        place = folder / id
        place.mkdir(mode=0o700)
        write(place / name, [text])
        for wanted in files:
            found = archive.next()
            if found is None:
                raise tarfile.ReadError("it was cut short")
            if found.name != f"{id}/{wanted['name']}" or found.size != wanted["bytes"]:
                raise Exit(f"The backup {id} holds {found.name!r}, which its manifest does not.")
            body = member(archive, found)
            digest = write(place / wanted["name"], iter(partial(body.read, TAKEN), b""))
            if digest != wanted["sha256"]:
                raise Exit(
                    f"The backup {id} is damaged: {wanted['name']} is not what was sent (SHA-256). "
                    "Choose another: ./fab backup.list"
                )


def doubt(folder: Path, key_of: Callable[[str], str | None]) -> str:
    """Say why nobody here vouches for a set that arrived, or nothing.

    `key_of` returns the key of an id, where the operator has it. Raises Exit where the set was not
    signed by the key that it names, or as another set.
    """
    manifest = serialised.loads((folder / "manifest.json").read_bytes())
    if manifest.get("id", folder.name) != folder.name:
        raise Exit(f"The backup {folder.name} is damaged: its manifest.json is that of another.")
    if "signature" not in manifest:
        return "nobody vouches for it: it is older than the server's backup key, or was put there"
    key = key_of(str(manifest.get("key")))
    if key is None:
        return "whether it is genuine was not checked here: its backup key is not on this machine"
    if "id" not in manifest or not vouches(key, manifest):
        raise Exit(
            f"The backup {folder.name} is damaged: its manifest.json was not signed by the key "
            "that it names. Choose another: ./fab backup.list"
        )
    return ""


def named(id: str, text: bytes) -> list[dict[str, Any]]:
    """Return what a manifest says of its files; raises Exit where it is not as backup writes it."""
    try:
        files = serialised.loads(text)["files"]
        fits = len({entry["name"] for entry in files}) == len(files) and all(
            entry["name"] in FILES
            and type(entry["bytes"]) is int
            and entry["bytes"] >= 0
            and SHA256.fullmatch(entry["sha256"])
            for entry in files
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        fits = False
    if not fits:
        raise Exit(
            f"The backup {id} is damaged: its manifest.json is not what was sent. Choose another: "
            "./fab backup.list"
        )
    return list(files)


def member(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    """Return a member's content; raises ReadError where it is no plain file."""
    body = archive.extractfile(entry)
    if body is None:
        raise tarfile.ReadError(f"{entry.name} is no file")
    return body


def write(path: Path, blocks: Iterable[bytes]) -> str:
    """Write a file that only its owner may read; returns its SHA-256."""
    sha = hashlib.sha256()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        for block in blocks:
            sha.update(block)
            stream.write(block)
    return sha.hexdigest()


def refuse_full(folder: Path, size: int) -> None:
    """Raise Exit where there is no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise Exit(
            f"The backup has {size / 1e9:.1f} GB, and {free / 1e9:.1f} are free here. "
            "Give another --to."
        )
