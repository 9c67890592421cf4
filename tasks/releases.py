"""MLflow's releases: which packages each is locked to, and how one is installed."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from invoke import Exit

from tasks import paths
from tasks.commands import sh
from tasks.facts import Facts
from tasks.server import Change, Server
from tasks.templates import read

if TYPE_CHECKING:
    from tasks.settings import Settings

RESOLVE_TIMEOUT = 300  # seconds; uv asks the index for some sixty packages


def lock_of(settings: Settings) -> str:
    """Read the locked set of packages of the configured release."""
    lock = shipped(settings.version)
    if lock is None:
        known = ", ".join(sorted(path.stem for path in paths.RELEASES.glob("*.txt")))
        raise Exit(
            f"There is no lock for MLflow {settings.version}. Set `version:` in fabric.yaml to "
            f"one of: {known}. A server that runs can go to any: upgrade --to {settings.version}"
        )
    return lock


def shipped(version: str) -> str | None:
    """Read the lock that this project has for a version; None where it has none."""
    file = paths.RELEASES / f"{version}.txt"
    return file.read_text() if file.is_file() else None


def release_of(settings: Settings) -> str:
    """Name the release's folder: version, and digest of its lock."""
    return named(settings.version, lock_of(settings))


def named(version: str, lock: str) -> str:
    """Name the folder of a version that is locked to these packages."""
    return f"{version}-{digest(lock)}"


def digest(text: str) -> str:
    """Shorten a text to eight characters that change with it."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def version_of(release: str | None) -> str:
    """Return the MLflow version of a release's folder."""
    return (release or "").rpartition("-")[0]


def wanted_release(settings: Settings, facts: Facts) -> str:
    """Name the release that the host should have: one with databases keeps its own.

    Their schema goes with it; only `upgrade` and `rollback` change both together. A broken one
    keeps it as well, as long as the host has its lock.
    """
    if facts.schema and facts.release in facts.complete | facts.locked:
        return str(facts.release)
    return release_of(settings)


def is_behind(settings: Settings, facts: Facts) -> bool:
    """Tell whether the settings ask for another release than the host runs."""
    lock = shipped(settings.version)
    if lock is None:
        return version_of(facts.release) != settings.version
    return facts.release != named(settings.version, lock)


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
    script = f'python3 "$here/resolve_release.py" "$root" {sh(version)}'
    look = Change("resolve", script, {"resolve_release.py": read("host/resolve_release.py")})
    return str(json.loads(server.look("upgrade", [look], RESOLVE_TIMEOUT)[-1])["lock"])


def making(settings: Settings, facts: Facts, release: str) -> Change:
    """Build the change that makes the wanted release, by the lock that the host keeps of it."""
    if release not in facts.locked:
        return installing(release, lock_of(settings))
    return Change(
        f"make the environment of MLflow {version_of(release)} anew",
        f"release={release}\n{read('host/kept_lock.sh')}{read('host/install_release.sh')}",
    )


def installing(release: str, lock: str) -> Change:
    """Build the change that makes a release's environment; its lock is kept beside it."""
    return Change(
        f"install MLflow {version_of(release)} in an environment of its own",
        f"release={release}\n{read('host/install_release.sh')}",
        {"release.txt": lock},
    )
