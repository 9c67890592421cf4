"""What a blank host needs before a server can be configured on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.guide import refuse_unlike_guide
from tasks.changes.packages import LINK, environment, installing, lacking
from tasks.changes.presence import refuse_other_root
from tasks.changes.releases import making, version_of, wanted_release
from tasks.engine import stores
from tasks.engine.change import Change, digest
from tasks.engine.facts import refuse_without_sudo
from tasks.engine.shell import sh
from tasks.engine.templates import read

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings

OLDEST_PYTHON = (3, 10)  # MLflow 3.17's own floor

NEEDED_KB = 2 * 1024 * 1024  # 870 MB of environment, packages, and room for the databases


def changes(settings: Settings, facts: Facts, sent: bool = False) -> list[Change]:
    """Decide what the host lacks; raises Exit where it cannot become a server.

    `sent` says that no wheels but those that were sent may be used.
    """
    refuse_unfit(settings, facts)
    environments = []
    if facts.tools != digest(read("tools.txt")):
        environments.append(environment("tools", "install uv and the AWS CLI", LINK, sent))
    release = wanted_release(settings, facts)
    if release not in facts.complete:
        environments.append(making(settings, facts, release, sent))
    needed = installing(lacking(facts, stores.current(settings, facts).postgres), environments)
    if facts.release != release and not facts.guide:
        needed.append(
            Change(
                f"make {release} the current release",
                f'ln -sfn {sh(f"releases/{release}")} "$root/venv.part"\n'
                'mv -fT "$root/venv.part" "$root/venv"',
            )
        )
    return needed


def refuse_unfit(settings: Settings, facts: Facts) -> None:
    """Raise Exit where the host cannot become a server, naming why and what to do."""
    if facts.os.split(" ")[0] not in ("debian", "ubuntu") or not facts.systemd:
        raise Exit(
            f"The host runs {facts.os or 'an unknown system'}, not Ubuntu or Debian with systemd. "
            "Take an instance with Ubuntu 22.04 or 24.04, or Debian 12 or 13."
        )
    refuse_without_sudo(facts)
    if facts.python and facts.python[:2] < OLDEST_PYTHON:
        version = ".".join(map(str, facts.python))
        raise Exit(
            f"The host has Python {version}; MLflow {settings.version} needs 3.10 or newer. "
            "Take an instance with Ubuntu 22.04 or 24.04, or Debian 12 or 13."
        )
    if facts.foreign:
        raise Exit(
            f"{facts.root}/venv is a folder that neither this project nor the guide made. "
            "Give this server another place: `root:` under `mlflow:` in fabric.yaml."
        )
    refuse_unlike_guide(settings, facts)
    refuse_other_root(settings, facts)
    release = wanted_release(settings, facts)
    version = version_of(facts.release)
    # Another lock of the same version reads the same databases.
    if facts.schema and facts.release != release and version not in ("", settings.version):
        raise Exit(
            f"The environment of {facts.release} on the host is broken, and the settings say "
            f"{settings.version}. Set `version: {version}` in fabric.yaml, then type "
            "./fab install again."
        )
    if release not in facts.complete and facts.free_kb < NEEDED_KB:
        raise Exit(
            f"The disk of the host has {facts.free_kb / 1024**2:.1f} GB free; installing needs "
            f"{NEEDED_KB / 1024**2:.0f}. Free some or enlarge the volume, then type "
            "./fab install again."
        )
