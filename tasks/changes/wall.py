"""The app that MLflow's stands behind (files/app): no login names a place to read or write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.change import Change, packed
from tasks.engine.facts import is_there
from tasks.engine.shell import sh
from tasks.engine.templates import APP_MARK, app, app_folder, source

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings


def changes(settings: Settings, facts: Facts) -> list[Change]:
    """Return what puts the app on a host that lacks it."""
    mark = f"{app_folder(settings.unit)}/{APP_MARK}"
    if is_there(facts, mark, app()[APP_MARK], "644"):
        return []
    return [putting(settings)]


def putting(settings: Settings) -> Change:
    """Build the change that puts the whole app in its folder at once, as root's."""
    folder = app_folder(settings.unit)
    script = f"wall={sh(folder)}\n{source('put_wall.sh')}"
    return Change(f"put {folder}", script, {"wall.tar": packed(app())})
