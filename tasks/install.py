"""Install what the server needs on the host: packages, tools, and MLflow's own environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.commands import sh
from tasks.facts import PACKAGES, Facts
from tasks.kinds import Host, remote
from tasks.releases import (
    digest,
    installing,
    is_behind,
    lock_of,
    version_of,
    wanted_release,
)
from tasks.server import Change
from tasks.templates import read

if TYPE_CHECKING:
    from tasks.settings import Settings

OLDEST_PYTHON = (3, 10)  # MLflow 3.17's own floor
NEEDED_KB = 2 * 1024 * 1024  # 664 MB of environment, packages, and room for the databases


@remote(then="configure deploy verify")
def install(c: Host) -> None:
    """Install packages, tools and MLflow on the host.

    What the guide lists (Python, AWS CLI, htop, tmux, git, curl), nginx, and the locked
    environment of the configured MLflow release. Waits for apt where a new instance is busy.

    Example: fab -H ec2 install
    """
    server = c.server
    needed = changes(server.settings, server.facts)
    if not needed:
        server.say(f"install: nothing to change (MLflow {server.facts.release})")
        if is_behind(server.settings, server.facts):
            wanted = f"MLflow {server.settings.version}"
            server.say(f"The settings want {wanted}. What that would do: ./fab upgrade --check")
        return
    server.apply("install", needed)
    server.say(f"✓ installed MLflow {server.settings.version}", "green")


def changes(settings: Settings, facts: Facts) -> list[Change]:
    """Decide what the host lacks; raises Exit where it cannot become a server."""
    refuse_unfit(settings, facts)
    needed = []
    missing = [name for name in PACKAGES if name not in facts.packages]
    if missing:
        script = f"packages={sh(' '.join(missing))}\n{read('host/install_packages.sh')}"
        needed.append(Change(f"install with apt: {', '.join(missing)}", script))
    if facts.tools != digest(read("tools.txt")):
        needed.append(environment("tools", "install uv and the AWS CLI", LINK))
    release = wanted_release(settings, facts)
    if release not in facts.complete:
        needed.append(installing(release, lock_of(settings)))
    if facts.release != release:
        needed.append(
            Change(
                f"make {release} the current release",
                f'ln -sfn {sh(f"releases/{release}")} "$root/venv.part"\n'
                'mv -fT "$root/venv.part" "$root/venv"',
            )
        )
    return needed


# The guide's own commands find it where the host has no other.
LINK = (
    "if ! command -v aws > /dev/null; then "
    'as_root ln -sfn "$root/tools/bin/aws" /usr/local/bin/aws; fi'
)


def environment(name: str, what: str, then: str = "") -> Change:
    """Build the change that makes a small environment from files/<name>.txt."""
    lock = read(f"{name}.txt")
    script = f"folder={name} digest={digest(lock)}\n{read('host/install_tools.sh')}{then}"
    return Change(what, script, {f"{name}.txt": lock})


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
            f"{facts.root}/venv is a folder that this project did not make, perhaps the guide's. "
            "Give this server another place: `root:` under `mlflow:` in fabric.yaml."
        )
    release = wanted_release(settings, facts)
    version = version_of(facts.release)
    # Another lock of the same version reads the same databases.
    if facts.schema and facts.release != release and version not in ("", settings.version):
        raise Exit(
            f"The environment of {facts.release} on the host is broken, and the settings say "
            f"{settings.version}. Set `version: {version}` in fabric.yaml, then type install again."
        )
    if release not in facts.complete and facts.free_kb < NEEDED_KB:
        raise Exit(
            f"The disk of the host has {facts.free_kb / 1024**2:.1f} GB free; installing needs "
            f"{NEEDED_KB / 1024**2:.0f}. Free some or enlarge the volume, then type install again."
        )


def refuse_without_sudo(facts: Facts) -> None:
    """Raise Exit where the login user cannot become root without a password."""
    if not facts.sudo:
        raise Exit(
            f"sudo asks {facts.user} for a password on the host. Allow it without one: "
            f"echo '{facts.user} ALL=(ALL) NOPASSWD:ALL' | sudo tee /etc/sudoers.d/{facts.user}"
        )
