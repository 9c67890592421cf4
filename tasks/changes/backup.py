"""Make backups, list, verify and prune them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes.surroundings import as_the_server
from tasks.engine.change import Change
from tasks.engine.shell import sh
from tasks.engine.templates import source, staged

if TYPE_CHECKING:
    from tasks.engine.settings import Settings

PYTHON = '"$root/venv/bin/python"'  # of the release that serves


def backing_up(settings: Settings, python: str = PYTHON) -> Change:
    """Build the change that makes one set; `python` is a word for the script."""
    return Change(
        "back up both databases and the configuration",
        program(settings, "back_up.py", python=python),
        staged("back_up.py"),
    )


def verifying(settings: Settings, id: str = "") -> Change:
    """Build the change that restores a set on the side, serves it, and notes that it did."""
    aside = serving_aside(settings, '"$scratch"', '"$python"')
    script = "\n".join(
        (
            *_function("fetch", program(settings, "fetch_set.py", id) + ' "$scratch" aside'),
            *_function("aside", aside.script),
            *_function("noted", program(settings, "note_verified.py") + ' "$@"'),
            source("tidy.sh"),
            source("verify_set.sh"),
        )
    )
    names = ("fetch_set.py", "configuration.py", "note_verified.py", "beside.py")
    files = {**staged(*names), **aside.files}
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
    return Change(what, script, staged("migrate.py", "try_server.py"))


def program(settings: Settings, name: str, *words: str, python: str = PYTHON) -> str:
    """Spell a script that runs one of the programs that know the bucket's backups."""
    place = sh(
        settings.require_bucket(), settings.backup_prefix, settings.environment or "default",
        settings.endpoint_url or "", *words,
    )  # fmt: skip
    return f'{as_the_server(settings)}\n{python} "$here/{name}" "$root" {place}'


def listing(settings: Settings) -> Change:
    """Build the look at all backups."""
    script = program(settings, "list_sets.py")
    return Change("look at the backups", script, staged("list_sets.py"))


def pruning(settings: Settings, how: str) -> Change:
    """Build the change that deletes what need not stay; for `how` see prune_sets.py."""
    keep = settings.keep.model_dump_json()
    script = program(settings, "prune_sets.py", keep, how)
    files = staged("prune_sets.py")
    return Change("delete the backups that need not stay", script, files)
