"""Back up databases and configuration, consistently and checked, to the bucket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.commands import sh
from tasks.configure import environment
from tasks.kinds import Host, remote
from tasks.server import Change
from tasks.service import ABSENT
from tasks.templates import read

if TYPE_CHECKING:
    from tasks.settings import Settings


@remote
def backup(c: Host) -> None:
    """Back up databases and configuration to the bucket.

    Both databases by SQLite's online backup, while the server runs and writes; checked before
    they leave the host, read back after. A set without its manifest.json is not a backup.

    Example: fab -H ec2 backup
    """
    server = c.server
    if not (server.settings.backend_store_uri or server.facts.schema):
        raise Exit(ABSENT.format(host=server.name))
    reports = server.apply("backup", [backing_up(server.settings)], decided=False)
    done = json.loads(reports[-1])
    server.say(f"  {done['runs']} runs, {done['users']} users, {done['bytes'] / 1e6:.1f} MB sent")
    server.say(f"Backup complete: {done['place']}", "green")


def backing_up(settings: Settings) -> Change:
    """Build the change that makes one set."""
    arguments = sh(
        settings.require_bucket(), settings.backup_prefix, settings.environment or "default",
        settings.endpoint_url or "",
    )  # fmt: skip
    script = "\n".join(
        (
            environment(settings),
            'set -a; . "$root/server.env"; set +a',
            f'"$root/venv/bin/python" "$here/back_up.py" "$root" {arguments}',
        )
    )
    programs = ("back_up.py", "databases.py", "postgres.py")
    return Change(
        "back up both databases and the configuration",
        script,
        {name: read(f"host/{name}") for name in programs},
    )
