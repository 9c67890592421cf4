"""The backups in the bucket: see them, thin them out, and bring one to this machine."""

from __future__ import annotations

import json as serialised
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tasks.backup import program, programs
from tasks.commands import sh
from tasks.console import console, typed
from tasks.kinds import Host, remote
from tasks.server import Change
from tasks.service import ABSENT
from tasks.status import age, plain, size

if TYPE_CHECKING:
    from tasks.server import Server
    from tasks.settings import Settings

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
    seen = ask(server, "backup.list", listing(server.settings))
    now = datetime.fromisoformat(seen["now"])
    if cut_off := seen["incomplete"]:
        server.warn(f"never finished, and no backups: {', '.join(cut_off)}")
    return [
        {**row, "age_seconds": int((now - datetime.fromisoformat(row["made"])).total_seconds())}
        for row in seen["sets"]
    ]


def ask(server: Server, task: str, step: Change) -> Any:
    """Have a step look at the bucket, in one exec; returns what it reports."""
    step = replace(step, script=f"{refusing_absent(server)}\n{step.script}")
    return serialised.loads(server.look(task, [step], LOOK_TIMEOUT)[-1])


def refusing_absent(server: Server) -> str:
    """Spell what says so where no server is, without a look at the host before."""
    return f'[ -x "$root/venv/bin/python" ] || fail {sh(ABSENT.format(host=server.name))}'


def listing(settings: Settings) -> Change:
    """Build the look at all backups."""
    script = program(settings, "list_sets.py")
    return Change("look at the backups", script, programs("list_sets.py"))


# -- thinning them out -------------------------------------------------------------------------


@remote(help={"yes": "do it; without, only say what would go"})
def prune(c: Host, yes: bool = False) -> None:
    """Delete backups that `keep` in the settings no longer asks for.

    Only says which, without --yes. The newest one, the newest that has runs and the newest that
    was verified stay whatever the settings say. What a cut-off backup left goes after a day.

    Example: fab -H ec2 backup.prune
    """
    server = c.server
    if yes:
        change = pruning(server.settings, "delete")
        seen = serialised.loads(server.apply("backup.prune", [change], decided=False)[-1])
    else:
        seen = ask(server, "backup.prune", pruning(server.settings, "look"))
    if damaged := seen["damaged"]:
        server.warn(f"not what was sent, and left alone: {', '.join(damaged)}")
    gone = [*seen["pruned"], *(f"{id} (never finished)" for id in seen["incomplete"])]
    if not gone:
        server.say(f"backup.prune: nothing to delete, {seen['kept']} backups stay")
        return
    for line in gone:
        server.say(f"  {line}")
    what = f"{len(gone)} of {len(gone) + seen['kept']} ({seen['bytes'] / 1e6:.1f} MB)"
    if yes:
        server.say(f"✓ deleted {what}", "green")
    else:
        again = typed(server.name, server.settings.environment, "backup.prune --yes")
        server.say(f"would delete {what}; nothing was deleted. Do it: {again}")


def pruning(settings: Settings, how: str) -> Change:
    """Build the change that deletes what need not stay; see files/host/prune_sets.py for `how`."""
    keep = settings.keep.model_dump_json()
    script = program(settings, "prune_sets.py", keep, how)
    files = programs("prune_sets.py", "retention.py")
    return Change("delete the backups that need not stay", script, files)
