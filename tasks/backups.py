"""The backups in the bucket: see them, thin them out, and bring one to this machine."""

from __future__ import annotations

import hashlib
import json as serialised
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from invoke import Exit

from tasks.backup import program, programs
from tasks.commands import sh
from tasks.console import console
from tasks.kinds import Host, remote
from tasks.server import Change
from tasks.service import ABSENT
from tasks.status import age, plain, size

if TYPE_CHECKING:
    from tasks.server import Server
    from tasks.settings import Settings

LOOK_TIMEOUT = 300  # seconds; every manifest of years of backups is read
TAKEN = 1 << 20  # bytes that are written at once
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a name that leads nowhere else
WIDTH = 160  # columns of the table where it goes to a file


# -- seeing them -------------------------------------------------------------------------------


def show(answers: Mapping[str, Any]) -> None:
    """Print one table for all hosts, the newest backup of each first."""
    from rich.table import Table

    headings = ("host", "backup", "age", "size", "MLflow", "runs", "users", "made on", "verified")
    table = Table(*headings, box=None)
    for host, rows in answers.items():
        for row in rows:
            table.add_row(
                host, row["id"], age("age_seconds")(row), size("bytes")(row), row["version"],
                plain("runs")(row), plain("users")(row), row["made_on"],
                (row["verified"] or "never")[:16].replace("T", " "),
            )  # fmt: skip
        if not rows:
            table.add_row(host, "none yet")
    console.show(table, WIDTH)


@remote(name="list", report=show, help={"json": "print JSON instead of a table"})
def list_(c: Host, json: bool = False) -> list[dict[str, Any]]:
    """List the backups in the bucket, the newest first.

    Age, size, what it holds, which host made it, and when backup.verify last served it. What a
    backup that was cut off has left is named on a line of its own.

    Example: fab -H ec2 backup.list
    """
    server = c.server
    seen = ask(server, "backup.list", listing(server.settings))
    now = datetime.fromisoformat(seen["now"])
    if cut_off := seen["incomplete"]:
        server.warn(f"never finished, and no backups: {', '.join(cut_off)}")
    return [
        {**row, "age_seconds": int((now - datetime.fromisoformat(row["made"])).total_seconds())}
        for row in seen["sets"]
    ]


def ask(server: Server, task: str, step: Change) -> Any:
    """Have a step look at the bucket, in one exec; returns what it reports."""
    step = replace(step, script=f"{refusing_absent(server)}\n{step.script}")
    return serialised.loads(server.look(task, [step], LOOK_TIMEOUT)[-1])


def refusing_absent(server: Server) -> str:
    """Spell what says so where no server is, without a look at the host before."""
    return f'[ -x "$root/venv/bin/python" ] || fail {sh(ABSENT.format(host=server.name))}'


def listing(settings: Settings) -> Change:
    """Build the look at all backups."""
    script = program(settings, "list_sets.py")
    return Change("look at the backups", script, programs("list_sets.py"))


# -- thinning them out -------------------------------------------------------------------------


@remote(help={"yes": "do it; without, only say what would go"})
def prune(c: Host, yes: bool = False) -> None:
    """Delete the backups that `keep` no longer asks for.

    It stands in the settings. Only says which, without --yes. The newest one, the newest that has
    runs and the newest that was verified always stay. What a cut-off backup left goes after a day.

    Example: fab -H ec2 backup.prune
    """
    server = c.server
    if yes:
        if not server.confirm(f"Delete backups of {server.place}?", yes):
            raise Exit("Nothing was deleted.")
        change = pruning(server.settings, "delete")
        seen = serialised.loads(server.apply("backup.prune", [change], decided=False)[-1])
    else:
        seen = ask(server, "backup.prune", pruning(server.settings, "look"))
    if damaged := seen["damaged"]:
        server.warn(f"not what was sent, and left alone: {', '.join(damaged)}")
    gone = [*seen["pruned"], *(f"{id} (never finished)" for id in seen["incomplete"])]
    if not gone:
        server.say(f"backup.prune: nothing to delete, {seen['kept']} backups stay")
        return
    for line in gone:
        server.say(f"  {line}")
    what = f"{len(gone)} of {len(gone) + seen['kept']} ({seen['bytes'] / 1e6:.1f} MB)"
    if yes:
        server.say(f"✓ deleted {what}", "green")
    else:
        again = server.fab("backup.prune --yes")
        server.say(f"would delete {what}; nothing was deleted. Do it: {again}")


def pruning(settings: Settings, how: str) -> Change:
    """Build the change that deletes what need not stay; see files/host/prune_sets.py for `how`."""
    keep = settings.keep.model_dump_json()
    script = program(settings, "prune_sets.py", keep, how)
    files = programs("prune_sets.py", "retention.py")
    return Change("delete the backups that need not stay", script, files)


# -- bringing one here -------------------------------------------------------------------------


@remote(
    help={
        "id": "which backup, as backup.list names it (default: the newest)",
        "to": "folder that gets a folder with its name (default: this one)",
    }
)
def download(c: Host, id: str = "", to: str = ".") -> None:
    """Download a backup to this machine, whole and compared.

    Through the host, so that nothing here needs access to the bucket. Every file is compared with
    the manifest; the folder is there whole or not at all. It holds secrets, and only you may
    read it.

    Example: fab -H ec2 backup.download --to /mnt/offsite
    """
    server = c.server
    folder = Path(to).expanduser()
    if not folder.is_dir():
        raise Exit(f"There is no folder {folder}. Make it, or give another --to.")
    if id and (folder / id).exists():
        raise Exit(already(folder / id))
    script = program(server.settings, "send_set.py", id)
    step = Change("send a backup", f"{refusing_absent(server)}\n{script}", programs("send_set.py"))
    try:
        # On the same file system, so that it becomes its name by one rename.
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=folder) as part:
            with console.waiting(f"backup.download from {server.name}", server.name):
                server.draw("backup.download", [step], lambda stream: unpack(stream, Path(part)))
            (whole,) = Path(part).iterdir()
            size = sum(file.stat().st_size for file in whole.iterdir())
            place = put(whole, folder)
    except OSError as error:
        raise Exit(
            f"{folder} does not take it: {error.strerror}. Nothing is kept; give another --to."
        ) from None
    server.say(f"✓ {size / 1e6:.1f} MB, every file as it was sent: {place}", "green")
    server.warn(
        "it holds secrets: the server's key, the hashes of all passwords, and all that was logged"
    )


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
        if not PLAIN.fullmatch(id) or name != "manifest.json":
            raise Exit(f"{first.name!r} is no backup's manifest. Update this project.")
        text = member(archive, first).read()
        manifest = serialised.loads(text)
        refuse_full(folder, sum(entry["bytes"] for entry in manifest["files"]))
        place = folder / id
        place.mkdir(mode=0o700)
        write(place / name, [text])
        for wanted in manifest["files"]:
            found = archive.next()
            if found is None:
                raise tarfile.ReadError("it was cut short")
            if not PLAIN.fullmatch(wanted["name"]) or found.name != f"{id}/{wanted['name']}":
                raise Exit(f"The backup {id} holds {found.name!r}, which its manifest does not.")
            body = member(archive, found)
            digest = write(place / wanted["name"], iter(partial(body.read, TAKEN), b""))
            if digest != wanted["sha256"]:
                raise Exit(
                    f"The backup {id} is damaged: {wanted['name']} is not what was sent (SHA-256). "
                    "Choose another: ./fab backup.list"
                )


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
