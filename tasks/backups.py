"""The backups in the bucket: see them, thin them out, and bring one to this machine."""

from __future__ import annotations

import json as serialised
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks.backup import program, programs
from tasks.commands import sh
from tasks.console import console
from tasks.kinds import Host, remote
from tasks.server import Change
from tasks.service import ABSENT
from tasks.status import age, plain, size

if TYPE_CHECKING:
    from tasks.server import Server

LOOK_TIMEOUT = 300  # seconds; every manifest of years of backups is read
WIDTH = 160  # columns of the table where it goes to a file


# -- seeing them -------------------------------------------------------------------------------


def show(answers: Mapping[str, Any]) -> None:
    """Print one table for all hosts, the newest backup of each first."""
    from rich.table import Table

    headings = ("host", "backup", "age", "size", "MLflow", "runs", "users", "made on", "verified")
    table = Table(*headings, box=None)
    for host, rows in answers.items():
        for row in rows:
            table.add_row(
                host, row["id"], age("age_seconds")(row), size("bytes")(row), row["version"],
                plain("runs")(row), plain("users")(row), row["made_on"],
                (row["verified"] or "never")[:16].replace("T", " "),
            )  # fmt: skip
        if not rows:
            table.add_row(host, "none yet")
    console.show(table, WIDTH)


@remote(name="list", report=show, help={"json": "print JSON instead of a table"})
def list_(c: Host, json: bool = False) -> list[dict[str, Any]]:
    """List the backups in the bucket, the newest first.

    Age, size, what it holds, which host made it, and when backup.verify last served it. What a
    backup that was cut off has left is named on a line of its own.

    Example: fab -H ec2 backup.list
    """
    server = c.server
    seen = ask(server, "list_sets.py")
    now = datetime.fromisoformat(seen["now"])
    if cut_off := seen["incomplete"]:
        server.warn(f"never finished, and no backups: {', '.join(cut_off)}")
    return [
        {**row, "age_seconds": int((now - datetime.fromisoformat(row["made"])).total_seconds())}
        for row in seen["sets"]
    ]


def ask(server: Server, name: str, *words: str) -> Any:
    """Have one of the programs look at the bucket, in one exec; returns what it reports."""
    step = Change("look at the backups", asking(server, name, *words), programs(name))
    return serialised.loads(server.look(f"backup of {server.name}", [step], LOOK_TIMEOUT)[-1])


def asking(server: Server, name: str, *words: str) -> str:
    """Spell a script that runs one of the programs where there is a server to run it."""
    absent = sh(ABSENT.format(host=server.name))
    guard = f'[ -x "$root/venv/bin/python" ] || fail {absent}'
    return f"{guard}\n{program(server.settings, name, *words)}"
