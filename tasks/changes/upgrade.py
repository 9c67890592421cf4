"""Switch a server to another release of MLflow, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.changes import files
from tasks.changes.backup import backing_up, trying
from tasks.changes.releases import installing
from tasks.changes.surroundings import as_the_server
from tasks.changes.switch import databases_beside, switching
from tasks.engine.change import Change
from tasks.engine.shell import sh
from tasks.engine.templates import app_folder, requested, source, staged

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings


def upgrading(
    settings: Settings, facts: Facts, release: str, lock: str | None, several: bool = False
) -> list[Change]:
    """Build the whole of an upgrade; `lock` is None where the release is installed."""
    after = replace(facts, release=release)
    wanted = [*files.files(settings, after), files.auth_file(settings, after)]
    words = "\n".join(
        (
            f"unit={settings.unit} release={release} current={facts.release}",
            f"well={files.deploy_digest(wanted, after)} store={facts.database or 'sqlite'}",
            switching(several),
        )
    )
    return [
        *([] if lock is None else [installing(release, lock)]),
        files.readying(settings, facts),
        rehearsing(
            settings,
            "rehearse the upgrade on a copy of the databases",
            words,
            f'"$root/releases/{release}/bin/python"',
            app_folder(settings.unit),
        ),
        backing_up(settings),
        Change(
            f"switch from {facts.release} to {release}",
            source("upgrade.sh"),
            {"start": files.start_script(settings, after).text},
        ),
    ]


def rehearsing(settings: Settings, what: str, words: str, python: str, app: str = "") -> Change:
    """Build the rehearsal of a move to another release, on a copy of the databases.

    `words` are what a switch is written with; `python`, that of the release, is a word for the
    script; `app` is the folder of the wall on the host, where it must serve behind that. Steps that
    follow have `$python`, the file `$migrates` where databases must be migrated, and aside.py to do
    so.
    """
    script = "\n".join((words, f"python={python}", as_the_server(settings), source("rehearse.sh")))
    files = staged("rehearse.py", "aside.py") | trying(settings, app)
    return Change(what, script, files, usual="20 s to 2 min, with the databases' size")


def looking(id: str) -> Change:
    """Build the look at the state that would be given back."""
    # The server's own Python knows PostgreSQL; the guide's server needs the host's alone.
    script = (
        'python=$root/venv/bin/python; [ -x "$python" ] || python=python3\n'
        'PGPASSFILE=$root/.pgpass "$python" "$here/look_at_former.py" root="$root"'
    )
    return Change("look", script, requested("look_at_former.py", id=id))


def rolling_back(
    settings: Settings, facts: Facts, former: Any, several: bool = False
) -> list[Change]:
    """Build the way back to one former state."""
    after = replace(facts, release=former["release"])
    wanted = [*files.files(settings, after), files.auth_file(settings, after)]
    script = "\n".join(
        (
            f"unit={settings.unit} current={facts.release}",
            f"former={sh(former['name'])} was={former['task']} release={former['release']}",
            f"well={files.deploy_digest(wanted, after)}",
            switching(several),
            source("rollback.sh"),
        )
    )
    # A state that was made before has a start script of its time.
    start = {"start": files.start_script(settings, after).text}
    return [
        files.readying(settings, facts),
        Change(f"go back to {former['name']}", script, databases_beside(facts) | start),
    ]
