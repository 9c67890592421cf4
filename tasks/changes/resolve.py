"""Find the packages of an MLflow release that has no lock here."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.releases import named, shipped, version_of
from tasks.engine.change import Change
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from tasks.engine.server import Server

RESOLVE_TIMEOUT = 300  # seconds; uv asks the index for some sixty packages


def find(server: Server, version: str) -> tuple[str, str | None]:
    """Return a version's release and its lock, which is None where the host has the release.

    A version that this project has no lock for is resolved on the host, as of its release date.
    """
    complete = server.facts.complete
    lock = shipped(version)
    if lock is None:
        there = [name for name in complete if version_of(name) == version]
        if there:
            return sorted(there)[0], None
        lock = resolved(server, version)
    release = named(version, lock)
    return release, None if release in complete else lock


def resolved(server: Server, version: str) -> str:
    """Have the host lock a version's packages as they were at its release."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)+(rc[0-9]+)?", version):
        raise Exit(f"{version!r} is no MLflow version. Name one such as 3.16.0.")
    script = 'python3 "$here/resolve_release.py" root="$root"'
    look = Change("resolve", script, requested("resolve_release.py", version=version))
    return str(json.loads(server.look("upgrade", [look], RESOLVE_TIMEOUT)[-1])["lock"])
