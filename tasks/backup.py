"""Back up databases and configuration, consistently and checked, to the bucket."""

from __future__ import annotations

import json
import json as serialised
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import backup_key
from tasks.changes.backup import backing_up, listing, pruning, sending, verifying
from tasks.changes.presence import ABSENT, absent
from tasks.engine import backup_keys
from tasks.engine.backups import refuse_other_id
from tasks.engine.change import Change
from tasks.engine.console import console
from tasks.engine.shell import sh
from tasks.engine.tables import age, counted, held, plain, size, size_text
from tasks.engine.task import remote
from tasks.laptop.downloads import already, doubt, put, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tasks.engine.server import Server
    from tasks.engine.task import Host

NAMESPACE = "backup"


@remote(default_name="now", guides_name="backup-db", once=True)
def backup(c: Host) -> None:
    """Back up databases and configuration to the bucket.

    Both databases as they are at one moment, while the server runs and writes; checked before they
    leave the host, read back after. A set without its manifest.json is not a backup.
    It is signed with the server's backup key, and its secrets are encrypted with that.

    Example: fab -H ec2 backup
    """
    server = c.server
    if server.facts.guide and not server.facts.server_env:
        raise Exit(absent(server))
    if not (server.settings.backend_store_uri or server.facts.schema):
        raise Exit(absent(server))
    steps = [*backup_key.agreeing(server), backing_up(server.settings)]
    reports = server.apply("backup", steps, decided=False)
    done = json.loads(reports[-1])
    server.say(f"  {held(done)}, {size_text(done['bytes'])} sent")
    server.say(f"Backup complete: {done['place']}", "green")


def called(id: str = "", to: str = ".", unsigned: bool = False) -> None:
    """Refuse an id that no backup has."""
    refuse_other_id(id)


@remote(
    options=called,
    once=True,
    help={
        "id": "which backup, as backup.list names it (default: the newest that is signed)",
        "unsigned": "also one that nobody vouches for",
    },
)
def verify(c: Host, id: str = "", unsigned: bool = False) -> None:
    """Prove that a backup can be restored and served.

    Fetches it to the host, checks it, starts the same MLflow version on it on the side, logs in
    and reads the newest run; the running server is not touched. The time is what a restore takes.

    Example: fab -H ec2 backup.verify
    """
    server = c.server
    if not server.facts.release:
        raise Exit(absent(server))
    step = verifying(server.settings, id, unsigned=unsigned)
    reports = server.apply("backup.verify", [step], decided=False)
    done = json.loads(reports[-1])
    server.say(f"  {held(done)}, made {done['made'][:19]} UTC")
    server.say(f"✓ {done['id']} was restored and served in {done['seconds']} s", "green")


LOOK_TIMEOUT = 300  # seconds; every manifest of years of backups is read

WIDTH = 160  # columns of the table where it goes to a file


def show(answers: Mapping[str, Any]) -> None:
    """Print one table for all hosts, the newest backup of each first."""
    from rich.table import Table

    headings = (
        "host",
        "backup",
        "age",
        "size",
        "MLflow",
        "runs",
        "users",
        "made on",
        "verified",
        "signed",
    )
    table = Table(*headings, box=None)
    for host, rows in answers.items():
        for row in rows:
            table.add_row(
                host, row["id"], age("age_seconds")(row), size("bytes")(row), row["version"],
                plain("runs")(row), plain("users")(row), row["made_on"],
                (row["verified"] or "never")[:16].replace("T", " "), row["signed"],
            )  # fmt: skip
        if not rows:
            table.add_row(host, "none yet")
    console.show(table, WIDTH)


@remote(name="list", report=show, help={"json": "print JSON instead of a table"})
def list_(c: Host, json: bool = False) -> list[dict[str, Any]]:
    """List the backups in the bucket, the newest first.

    Age, size, what it holds, which host made it, when backup.verify last served it, and whether the
    server's backup key vouches for it. What a cut-off backup has left is named on its own line.

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
    step = refusing_absent(server, step)
    return serialised.loads(server.look(task, [step], LOOK_TIMEOUT)[-1])


def refusing_absent(server: Server, step: Change) -> Change:
    """Have a step say so where no server is, without a look at the host before."""
    refusal = f'[ -x "$root/venv/bin/python" ] || fail {sh(ABSENT.format(host=server.name))}'
    return replace(step, script=f"{refusal}\n{step.script}")


@remote(
    help={
        "yes": "do it; without, only say what would go",
        "unsigned": "those too that nobody vouches for",
    }
)
def prune(c: Host, yes: bool = False, unsigned: bool = False) -> None:
    """Delete the backups that `keep` no longer asks for.

    It stands in the settings. Only says which, without --yes. The newest one, the newest that has
    runs and the newest that was verified always stay. What a cut-off backup left goes after a day.
    What the server's backup key does not vouch for is left alone without --unsigned.

    Example: fab -H ec2 backup.prune
    """
    server = c.server
    if yes:
        if not server.confirm(f"Delete backups of {server.place}?", yes):
            raise Exit("Nothing was deleted.")
        change = pruning(server.settings, "delete", unsigned)
        seen = serialised.loads(server.apply("backup.prune", [change], decided=False)[-1])
    else:
        seen = ask(server, "backup.prune", pruning(server.settings, "look", unsigned))
    if alone := seen["unsigned"]:
        server.say(f"  left alone, as nobody here vouches for them: {alone} (--unsigned)")
    if damaged := seen["damaged"]:
        server.warn(f"not what was sent, and left alone: {', '.join(damaged)}")
    gone = [*seen["pruned"], *(f"{id} (never finished)" for id in seen["incomplete"])]
    if not gone:
        server.say(f"backup.prune: nothing to delete; {counted(seen['kept'], 'backup')} kept")
        return
    for line in gone:
        server.say(f"  {line}")
    what = f"{len(gone)} of {len(gone) + seen['kept']} ({size_text(seen['bytes'])})"
    if yes:
        server.say(f"✓ deleted {what}", "green")
    else:
        flag = " --unsigned" if unsigned else ""
        server.say(
            f"would delete {what}; nothing was deleted. Do it: ./fab backup.prune --yes{flag}"
        )


@remote(
    options=called,
    help={
        "id": "which backup, as backup.list names it (default: the newest)",
        "to": "folder that gets a folder with its name; it is made if missing (default: this one)",
    },
)
def download(c: Host, id: str = "", to: str = ".") -> None:
    """Download a backup to this machine, whole and compared.

    Through the host, so that nothing here needs access to the bucket. Every file is compared with
    the manifest, and that with its signature where you have the key; the folder is there whole or
    not at all. It holds secrets, and only you may read it.

    Example: fab -H ec2 backup.download --to /mnt/offsite
    """
    server = c.server
    folder = Path(to).expanduser()
    if id and (folder / id).exists():
        raise Exit(already(folder / id))
    step = refusing_absent(server, sending(server.settings, id))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # On the same file system, so that it becomes its name by one rename.
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=folder) as part:
            with console.waiting(f"backup.download from {server.name}", server.name):
                server.draw("backup.download", [step], lambda stream: unpack(stream, Path(part)))
            (whole,) = Path(part).iterdir()
            unvouched = doubt(whole, lambda id: backup_keys.of(server, [id]))
            bytes_ = sum(file.stat().st_size for file in whole.iterdir())
            place = put(whole, folder)
    except OSError as error:
        raise Exit(
            f"{folder} does not take it: {error.strerror}. Nothing is kept; give another --to."
        ) from None
    server.say(f"✓ {size_text(bytes_)}, every file as it was sent: {place}", "green")
    if unvouched:
        server.warn(unvouched)
    server.warn("it holds secrets: the hashes of all passwords, and all that was logged")
