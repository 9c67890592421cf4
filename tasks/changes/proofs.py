"""Prove a server usable: its login, its database and its bucket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tasks.engine.change import Change
from tasks.engine.templates import staged

if TYPE_CHECKING:
    from tasks.engine.login import Login
    from tasks.engine.settings import Settings

CHECK = "check login, database and bucket"


def deep_check() -> dict[str, str | bytes]:
    """Return the program that proves the server usable, with what it imports."""
    return staged("deep_check.py")


def stage_login(files: dict[str, str | bytes], login: Login | None) -> str:
    """Stage the login as a file for the deep check; return its place as a word for the script."""
    if login is None:
        return "-"
    files["login.json"] = json.dumps({"username": login.username, "password": login.password})
    return '"$here/login.json"'


def login_check(settings: Settings, login: Login) -> Change:
    """Build the change that only asks whether the server takes this login."""
    files = deep_check()
    place = stage_login(files, login)
    script = f'"$root/venv/bin/python" "$here/deep_check.py" {settings.port} {place}'
    return Change(f"check the login of {login.username}", script, files)
