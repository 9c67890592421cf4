"""Back up databases and configuration, consistently and checked, to the bucket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.commands import sh
from tasks.deploy import as_the_server
from tasks.kinds import Host, remote
from tasks.server import Change
from tasks.service import absent
from tasks.templates import read

if TYPE_CHECKING:
    from tasks.settings import Settings

PYTHON = '"$root/venv/bin/python"'  # of the release that serves


@remote(once=True)
def backup(c: Host) -> None:
    """Back up databases and configuration to the bucket.

    Both databases by SQLite's online backup or pg_dump, while the server runs and writes; checked
    before they leave the host, read back after. A set without its manifest.json is not a backup.

    Example: fab -H ec2 backup
    """
    server = c.server
    if server.facts.guide and not server.facts.server_env:
        raise Exit(absent(server))
    if not (server.settings.backend_store_uri or server.facts.schema):
        raise Exit(absent(server))
    reports = server.apply("backup", [backing_up(server.settings)], decided=False)
    done = json.loads(reports[-1])
    server.say(f"  {done['runs']} runs, {done['users']} users, {done['bytes'] / 1e6:.1f} MB sent")
    server.say(f"Backup complete: {done['place']}", "green")


@remote(once=True, help={"id": "which backup, as backup.list names it (default: the newest)"})
def verify(c: Host, id: str = "") -> None:
    """Prove that a backup can be restored and served.

    Fetches it to the host, checks it, starts the same MLflow version on it on the side, logs in
    and reads the newest run; the running server is not touched. The time is what a restore takes.

    Example: fab -H ec2 backup.verify
    """
    server = c.server
    if not server.facts.release:
        raise Exit(absent(server))
    reports = server.apply("backup.verify", [verifying(server.settings, id)], decided=False)
    done = json.loads(reports[-1])
    held = next(json.loads(text) for text in reports if "users" in json.loads(text))
    server.say(f"  {held['runs']} runs, {held['users']} users, made {held['made'][:19]} UTC")
    server.say(f"✓ {done['id']} was restored and served in {done['seconds']} s", "green")


def backing_up(settings: Settings, python: str = PYTHON) -> Change:
    """Build the change that makes one set; `python` is a word for the script."""
    return Change(
        "back up both databases and the configuration",
        program(settings, "back_up.py", python=python),
        programs("back_up.py"),
    )


def verifying(settings: Settings, id: str = "") -> Change:
    """Build the change that restores a set on the side, serves it, and notes that it did."""
    aside = serving_aside(settings, '"$scratch"', '"$python"')
    script = "\n".join(
        (
            *_function("fetch", program(settings, "fetch_set.py", id) + ' "$scratch" aside'),
            *_function("aside", aside.script),
            *_function("noted", program(settings, "note_verified.py") + ' "$@"'),
            read("host/tidy.sh"),
            read("host/verify_set.sh"),
        )
    )
    names = ("fetch_set.py", "configuration.py", "note_verified.py", "beside.py")
    files = {**programs(*names), **aside.files}
    return Change(f"restore {id or 'the newest backup'} on the side", script, files)


def _function(name: str, body: str) -> tuple[str, ...]:
    return f"{name}() {{", body, "}"


def serving_aside(settings: Settings, folder: str, python: str = PYTHON) -> Change:
    """Migrate the databases in a folder where they are older, and serve them on the side.

    `folder` and `python`, the environment of the release that serves, are words for the script.
    """
    words = sh(settings.require_bucket(), settings.artifact_prefix)
    script = "\n".join(
        (
            as_the_server(settings),
            f'{python} "$here/migrate.py" {folder}',
            f'{python} "$here/try_server.py" {folder} {words}',
        )
    )
    what = "bring them to this release's schema and serve them on the side"
    return Change(what, script, programs("migrate.py", "try_server.py"))


def program(settings: Settings, name: str, *words: str, python: str = PYTHON) -> str:
    """Spell a script that runs one of the programs that know the bucket's backups."""
    place = sh(
        settings.require_bucket(), settings.backup_prefix, settings.environment or "default",
        settings.endpoint_url or "", *words,
    )  # fmt: skip
    return f'{as_the_server(settings)}\n{python} "$here/{name}" "$root" {place}'


def programs(*names: str) -> dict[str, str | bytes]:
    """Return programs with what they import."""
    common = ("sets.py", "databases.py", "postgres.py")
    return {file: read(f"host/{file}") for file in (*names, *common)}
