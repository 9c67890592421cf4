"""Read a file of users and their grants."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.login import NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

# MLflow grants no NO_PERMISSIONS: without a grant there is default_permission, and DENY shuts out.
PERMISSIONS = ("READ", "USE", "EDIT", "MANAGE", "DENY")

COLUMNS = ("name", "admin", "experiment", "model", "permission")

TRUE, FALSE = ("yes", "true", "1"), ("no", "false", "0", "")


def _permission(text: str) -> str:
    if text.upper() not in PERMISSIONS:
        raise Exit(f"{text!r} cannot be granted. Give one of: {', '.join(PERMISSIONS)}")
    return text.upper()


def team(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read a team's file into users and grants; raises Exit that names the first wrong line."""
    users: dict[str, dict[str, Any]] = {}
    grants = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream, skipinitialspace=True)
            columns = [column.strip() for column in rows.fieldnames or []]
            if "name" not in columns or not set(columns) <= set(COLUMNS):
                raise Exit(
                    f"{file}: the first line must name the columns: name, and where wanted "
                    f"{', '.join(COLUMNS[1:])}. It names: {', '.join(columns) or 'none'}."
                )
            for line in rows:
                row = {key.strip(): (text or "").strip() for key, text in line.items() if key}
                where = f"{file}, line {rows.line_num}"
                user, granted = _team_row(row, where)
                former = users.setdefault(user["name"], user)
                former["admin"] = former["admin"] or user["admin"]
                grants += granted
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Exit(f"{file} cannot be read: {error}. Give a CSV file.") from None
    if not users:
        raise Exit(f"{file} names nobody. Write one user a line below: name,admin")
    return list(users.values()), grants


def _team_row(row: Mapping[str, str], where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        name = _plain(row["name"])
        permission = _permission(row["permission"]) if row.get("permission") else ""
    except Exit as error:
        raise Exit(f"{where}: {error.message}") from None
    admin = row.get("admin", "").lower()
    if admin not in (*TRUE, *FALSE):
        raise Exit(f"{where}: admin is {row['admin']!r}. Write yes or no.")
    named = [kind for kind in ("experiment", "model") if row.get(kind)]
    if bool(named) != bool(permission) or len(named) > 1:
        raise Exit(f"{where}: a grant needs an experiment or a model, and a permission.")
    grants = [
        {"name": name, "on": row[kind], "model": kind == "model", "permission": permission}
        for kind in named
    ]
    return {"name": name, "admin": admin in TRUE}, grants


def _plain(name: str) -> str:
    """Return a new user's name if it can be used everywhere; raises Exit otherwise."""
    if not NAME.fullmatch(name):
        raise Exit(
            f"{name!r} cannot be a user's name: give letters, digits and . _ @ + - (64 at most), "
            "beginning with a letter or digit."
        )
    return name
