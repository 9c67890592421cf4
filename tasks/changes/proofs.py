"""proofs: see the move list."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tasks.engine.change import Change
from tasks.engine.templates import read

if TYPE_CHECKING:
    from tasks.engine.login import Login
    from tasks.engine.settings import Settings

CHECK = "check login, database and bucket"


def deep_check() -> dict[str, str | bytes]:
    """Return the program that proves the server usable, with what it imports."""
    return {name: read(f"host/{name}") for name in ("deep_check.py", "tracking.py")}


def stage_login(staged: dict[str, str | bytes], login: Login | None) -> str:
    """Stage the login as a file for the deep check; return its place as a word for the script."""
    if login is None:
        return "-"
    staged["login.json"] = json.dumps({"username": login.username, "password": login.password})
    return '"$here/login.json"'


def login_check(settings: Settings, login: Login) -> Change:
    """Build the change that only asks whether the server takes this login."""
    staged = deep_check()
    place = stage_login(staged, login)
    script = f'"$root/venv/bin/python" "$here/deep_check.py" {settings.port} {place}'
    return Change(f"check the login of {login.username}", script, staged)
