"""Several servers from one fabric.yaml: choose one for the tasks that follow, and list them all."""

from __future__ import annotations

import json as serialised
import os
from collections import Counter
from typing import TYPE_CHECKING

from tasks.engine.configuration import UNNAMED
from tasks.engine.console import console
from tasks.engine.task import choosing, local

if TYPE_CHECKING:
    from typing import Any

    from invoke import Context

    from tasks.engine.settings import Settings


@choosing(help={"name": "one of `environments:` in fabric.yaml; `default` is the unnamed server"})
def use(c: Context, name: str) -> None:
    """Choose the environment of the tasks that follow.

    It holds up to the next `use` of the same command, and wins over FABRIC_MLFLOW_ENVIRONMENT and
    `environment:` in fabric.yaml. The tasks of one environment begin once those of the one before
    are done on all its hosts; where one fails, nothing after it begins.

    Example: fab use staging deploy verify
    """


@local(help={"json": "print JSON instead of a table"})
def environments(c: Context, json: bool = False) -> None:
    """List the environments of fabric.yaml.

    Each with its hosts, ports, folder, prefix and version. A star marks the one that tasks work on
    without `use`. Looks at no host: for that see status.

    Example: fab environments
    """
    from tasks.engine.configuration import configured
    from tasks.engine.environments import has_default, refuse_shared, settle_all
    from tasks.engine.settings import settle

    file = configured(c.config)
    chosen = settle(file, os.environ)[0].label
    refuse_shared(file, os.environ)
    rows = [
        row(settings, hosts, settings.label == chosen)
        for settings, hosts in settle_all(file, os.environ)
        if settings.label in (chosen, settings.environment) or not has_default(file)
    ]
    if json:
        console.answer(serialised.dumps(rows, indent=2))
        return
    show(rows)
    for line in remarks(rows):
        console.say(line)


def row(settings: Settings, hosts: list[str], default: bool) -> dict[str, Any]:
    """Say what an environment is, in plain values.

    `default` tells whether tasks without `use` work on it.
    """
    keys = ("port", "local_port", "version", "workers", "bucket", "profile", "confirm")
    return {
        "environment": settings.label,
        "default": default,
        "hosts": hosts,
        "root": settings.root_path,
        "prefix": settings.artifact_prefix,
        **{key: getattr(settings, key) for key in keys},
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print one line an environment."""
    from rich.table import Table

    headings = (
        "", "environment", "hosts", "port", "tunnel", "folder", "bucket and prefix", "MLflow",
        "workers",
    )  # fmt: skip
    table = Table(*headings, box=None, pad_edge=False)
    for one in rows:
        table.add_row(
            "*" if one["default"] else "",
            one["environment"],
            ", ".join(one["hosts"]) or "-",
            str(one["port"]),
            str(one["local_port"]),
            one["root"],
            f"{one['bucket'] or '-'}/{one['prefix']}",
            one["version"],
            str(one["workers"] or "auto"),
        )
    console.show(table)


def remarks(rows: list[dict[str, Any]]) -> list[str]:
    """Say what is allowed and yet worth knowing."""
    if [one["environment"] for one in rows] == [UNNAMED]:
        return ["fabric.yaml has no `environments:`; see docs/environments.md."]
    ports = Counter(one["local_port"] for one in rows)
    return [
        f"{' and '.join(one['environment'] for one in rows if one['local_port'] == port)} share "
        f"local_port {port}: one tunnel at a time."
        for port, count in ports.items()
        if count > 1
    ]
