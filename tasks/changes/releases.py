"""MLflow's releases: which packages each is locked to, and how one is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.packages import wheels
from tasks.engine.change import Change, digest
from tasks.engine.templates import FILES, source

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings


def python_of(settings: Settings, facts: Facts) -> str:
    """Spell the Python of MLflow's environment: the new one's beside a server of the guide's."""
    folder = f"releases/{release_of(settings)}" if facts.guide else "venv"
    return f'"$root/{folder}/bin/python"'


RELEASES = FILES / "releases"


def lock_of(settings: Settings) -> str:
    """Read the locked set of packages of the configured release."""
    lock = shipped(settings.version)
    if lock is None:
        known = ", ".join(sorted(path.stem for path in RELEASES.glob("*.txt")))
        raise Exit(
            f"There is no lock for MLflow {settings.version}. Set `version:` in fabric.yaml to "
            f"one of: {known}. A server that runs can go to any: upgrade --to {settings.version}"
        )
    return lock


def shipped(version: str) -> str | None:
    """Read the lock that this project has for a version; None where it has none."""
    file = RELEASES / f"{version}.txt"
    return file.read_text() if file.is_file() else None


def our_lock(release: str) -> str | None:
    """Read the lock that a release was made from, where that is one of ours."""
    lock = shipped(version_of(release))
    return lock if lock is not None and named(version_of(release), lock) == release else None


def release_of(settings: Settings) -> str:
    """Name the release's folder: version, and digest of its lock."""
    return named(settings.version, lock_of(settings))


def named(version: str, lock: str) -> str:
    """Name the folder of a version that is locked to these packages."""
    return f"{version}-{digest(lock)}"


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


def making(settings: Settings, facts: Facts, release: str, sent: bool = False) -> Change:
    """Build the change that makes the wanted release, by our lock or else by the host's own of it.

    `sent` says that no wheels but those that were sent may be used.
    """
    lock = lock_of(settings) if release not in facts.locked else our_lock(release)
    if lock is not None:
        return installing(release, lock, sent)
    script = f"{wheels(sent)}{source('kept_lock.sh')}{source('install_release.sh')}"
    return Change(
        f"make the environment of MLflow {version_of(release)} anew",
        f"release={release} known={known(release)}\n{script}",
        {"modules.txt": modules(release)},
    )


def installing(release: str, lock: str, sent: bool = False) -> Change:
    """Build the change that makes a release's environment; its lock is kept beside it."""
    return Change(
        f"install MLflow {version_of(release)} in an environment of its own",
        f"release={release} known={known(release)}\n{wheels(sent)}{source('install_release.sh')}",
        {"release.txt": lock, "modules.txt": modules(release)},
        usual="10 to 40 s",
    )


def modules(release: str) -> str:
    """List the files that a server of a release loads, or of the tested one where nobody saw it."""
    from tasks.engine.settings import TESTED_VERSION

    file = _modules_of(version_of(release))
    return (file if file.is_file() else _modules_of(TESTED_VERSION)).read_text()


def known(release: str) -> str:
    """Say yes where it is known what a server of this release loads, no elsewhere."""
    seen = our_lock(release) is not None and _modules_of(version_of(release)).is_file()
    return "yes" if seen else "no"


def _modules_of(version: str) -> Path:
    return RELEASES / f"{version}.modules"
