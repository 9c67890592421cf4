"""Prove a server usable: its login, its database and its bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.change import Change
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from tasks.engine.login import Login
    from tasks.engine.settings import Settings

CHECK = "check login, database and bucket"


def deep_check(settings: Settings, login: Login | None) -> dict[str, str | bytes]:
    """Return the program that proves the server usable, with what it imports.

    Without a login it proves what needs none.
    """
    pair = login and {"username": login.username, "password": login.password}
    return requested("deep_check.py", port=settings.port, login=pair)


def login_check(settings: Settings, login: Login) -> Change:
    """Build the change that only asks whether the server takes this login."""
    script = '"$root/venv/bin/python" "$here/deep_check.py"'
    return Change(f"check the login of {login.username}", script, deep_check(settings, login))
