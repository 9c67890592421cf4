"""Make, list, verify and thin out the backups in the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes.surroundings import as_the_server, backup_place, for_backups, place
from tasks.engine.change import Change
from tasks.engine.templates import requested, source, staged

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.settings import Settings

PYTHON = '"$root/venv/bin/python"'  # of the release that serves


def secrets(settings: Settings, key: bool = False) -> str:
    """Spell what systemd gives a unit of what is root's: keys for the bucket, the backup key."""
    folder = f"/etc/{settings.unit}"
    lines = [f"LoadCredential=backup.key:{folder}/backup.key"] if key else []
    if settings.backup_profile:
        lines.append(f"LoadCredential=backup-aws:{folder}/backup-aws/credentials")
    return "\n".join(lines) or "# Nothing of root's: backups use the server's keys, or its role."


def others_secrets(settings: Settings) -> str:
    """Spell where systemd lays what is not the stream's: all, or what the timers' units get."""
    if not settings.backup_profile:
        return "/run/credentials"
    names = (f"{settings.unit}-backup", f"{settings.unit}-backup-verify", settings.unit)
    return " ".join(f"/run/credentials/{name}.service" for name in names)


ROOT = 'root="$root"'  # tells a program where the server is


def running(
    settings: Settings, what: str, name: str, *words: str, python: str = PYTHON, **request: Any
) -> Change:
    """Build the step that runs a program which knows the bucket's backups, with its request.

    `words`, such as ROOT, say what only the host knows; `python` is a word as well.
    """
    command = " ".join(("for_backups", python, f'"$here/{name}"', *words))
    files = requested(name, place=backup_place(settings), **request)
    return Change(what, f"{for_backups(settings)}\n{command}", files)


def backing_up(settings: Settings, python: str = PYTHON) -> Change:
    """Build the change that makes one set; `python` is a word for the script."""
    what = "back up both databases and the configuration"
    return running(settings, what, "back_up.py", ROOT, python=python)


def verifying(settings: Settings, id: str = "", **request: bool) -> Change:
    """Build the change that restores a set on the side, serves it, and notes that it did.

    `unsigned` says that it may be one that nobody vouches for, `timer` that nobody watches.
    """
    words = (for_backups(settings), source("tidy.sh"), source("verify_set.sh"))
    files = requested("verify_set.py", place=backup_place(settings), id=id, **request)
    files |= trying(settings)
    return Change(f"restore {id or 'the newest backup'} on the side", "\n".join(words), files)


def proving_aside(settings: Settings, folder: str) -> Change:
    """Migrate the databases in a folder where they are older, and serve them on the side.

    `folder` is a word for the script. It is done by the release that serves.
    """
    script = "\n".join(
        (
            as_the_server(settings),
            f'{PYTHON} "$here/migrate.py" folder={folder}',
            f'{PYTHON} "$here/try_server.py" folder={folder}',
        )
    )
    what = "bring them to this release's schema and serve them on the side"
    return Change(what, script, trying(settings))


def trying(settings: Settings, app: str = "") -> dict[str, str | bytes]:
    """Return the programs that bring databases to a release's schema and serve them on the side.

    `app` is the folder of the wall on the host where the release has to serve behind it.
    """
    programs = staged("migrate.py", "one_process.py")
    return programs | requested("try_server.py", place=place(settings), app=app)


def listing(settings: Settings) -> Change:
    """Build the look at all backups."""
    return running(settings, "look at the backups", "list_sets.py")


def choosing(settings: Settings, id: str, key: str = "") -> Change:
    """Build the look that tells which backup a restore would bring; without id the newest.

    `key` is another backup key than the host's, which vouches for backups as well.
    """
    return running(settings, "choose a backup", "choose_set.py", ROOT, id=id, key=key)


def sending(settings: Settings, id: str) -> Change:
    """Build the step that sends a backup to this machine; without id the newest."""
    return running(settings, "send a backup", "send_set.py", id=id)


def pruning(settings: Settings, how: str, unsigned: bool = False) -> Change:
    """Build the change that deletes what need not stay; for both words see prune_sets.py."""
    what = "delete the backups that need not stay"
    keep = settings.keep.model_dump()
    return running(settings, what, "prune_sets.py", keep=keep, how=how, unsigned=unsigned)
