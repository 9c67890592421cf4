"""Switch a server to another release of MLflow, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.changes import files
from tasks.changes.backup import backing_up, serving_aside
from tasks.changes.releases import installing
from tasks.changes.switch import databases_beside, switching
from tasks.engine.change import Change
from tasks.engine.shell import sh
from tasks.engine.templates import source, staged

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
    python = f'"$root/releases/{release}/bin/python"'
    aside = serving_aside(settings, '"$root/next.part"', python)
    words = "\n".join(
        (
            f"unit={settings.unit} release={release} current={facts.release}",
            f"store={facts.database or 'sqlite'}",
            f"well={files.deploy_digest(wanted, after)} python={python}",
            "aside() {",
            aside.script,
            "}",
            switching(several),
        )
    )
    return [
        *([] if lock is None else [installing(release, lock)]),
        files.readying(settings, facts),
        Change(
            "rehearse the upgrade on a copy of the databases",
            f"{words}\n{source('rehearse_upgrade.sh')}",
            {**aside.files, **databases_beside(facts)},
        ),
        backing_up(settings),
        Change(
            f"switch from {facts.release} to {release}",
            source("upgrade.sh"),
            {"start": files.start_script(settings, after).text},
        ),
    ]


def looking(id: str) -> Change:
    """Build the look at the state that would be given back."""
    # The server's own Python knows PostgreSQL; the guide's server needs the host's alone.
    script = (
        'python=$root/venv/bin/python; [ -x "$python" ] || python=python3\n'
        f'PGPASSFILE=$root/.pgpass "$python" "$here/look_at_former.py" "$root" {sh(id)}'
    )
    return Change("look", script, staged("look_at_former.py"))


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
    return [
        files.readying(settings, facts),
        Change(f"go back to {former['name']}", script, databases_beside(facts)),
    ]
