"""Install what the server needs on the host: packages, tools, and MLflow's own environment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from invoke import Exit

from tasks import stores
from tasks.commands import sh
from tasks.facts import PACKAGES, POSTGRES_CLIENT, Facts
from tasks.kinds import Host, remote
from tasks.releases import (
    digest,
    is_behind,
    making,
    release_of,
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
    if guide := server.facts.guide:
        server.say(f"the guide's server (MLflow {guide.version}) is left as it is")
    if not needed:
        release = server.facts.release or release_of(server.settings)
        server.say(f"install: nothing to change (MLflow {release})")
        if is_behind(server.settings, server.facts) and not guide:
            wanted = f"MLflow {server.settings.version}"
            server.say(f"The settings want {wanted}. What that would do: ./fab upgrade --check")
        return
    server.apply("install", needed)
    server.say(f"✓ installed MLflow {server.settings.version}", "green")


def changes(settings: Settings, facts: Facts) -> list[Change]:
    """Decide what the host lacks; raises Exit where it cannot become a server."""
    refuse_unfit(settings, facts)
    needed = packages(facts, stores.current(settings, facts).postgres)
    if facts.tools != digest(read("tools.txt")):
        needed.append(environment("tools", "install uv and the AWS CLI", LINK))
    release = wanted_release(settings, facts)
    if release not in facts.complete:
        needed.append(making(settings, facts, release))
    if facts.release != release and not facts.guide:
        needed.append(
            Change(
                f"make {release} the current release",
                f'ln -sfn {sh(f"releases/{release}")} "$root/venv.part"\n'
                'mv -fT "$root/venv.part" "$root/venv"',
            )
        )
    return needed


def packages(facts: Facts, postgres: bool) -> list[Change]:
    """Build what installs the packages that the host lacks."""
    wanted = [*PACKAGES, *([POSTGRES_CLIENT] if postgres else [])]
    missing = [name for name in wanted if name not in facts.packages]
    if not missing:
        return []
    script = f"packages={sh(' '.join(missing))}\n{read('host/install_packages.sh')}"
    return [Change(f"install with apt: {', '.join(missing)}", script)]


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
            f"{facts.root}/venv is a folder that neither this project nor the guide made. "
            "Give this server another place: `root:` under `mlflow:` in fabric.yaml."
        )
    refuse_unlike_guide(settings, facts)
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


def refuse_unlike_guide(settings: Settings, facts: Facts) -> None:
    """Raise Exit where the guide's server could not be taken over with these settings.

    Its runs name artifacts by their path below the destination, so that another one loses them all.
    """
    guide = facts.guide
    if guide is None:
        return
    if guide.store != f"{facts.root}/mlflow.db" or guide.auth != f"{facts.root}/basic_auth.db":
        raise Exit(
            f"The guide's server in {facts.root} keeps its databases elsewhere, or runs and users "
            "not both in SQLite; such a server is not taken over. Give this one another place: "
            "`root:` and `port:` under `mlflow:` in fabric.yaml."
        )
    if facts.schema is None or not facts.has_users:
        why = facts.schema_error or facts.users_error or "not both are there yet"
        raise Exit(
            f"The databases of the guide's server in {facts.root} cannot be read ({why}). Start it "
            "once, then type the same again."
        )
    if minor(guide.version) > minor(settings.version):
        raise Exit(
            f"The guide's server runs MLflow {guide.version}, whose databases the older "
            f"{settings.version} cannot read. Set `version: {guide.version}` under `mlflow:` in "
            "fabric.yaml, then type the same again."
        )
    bucket, _, prefix = guide.destination.removeprefix("s3://").rstrip("/").partition("/")
    if not (guide.destination.startswith("s3://") and prefix):
        raise Exit(
            f"The guide's server keeps artifacts in {guide.destination or 'an unknown place'}; "
            "only one with a folder in an S3 bucket is taken over. Give this server another place: "
            "`root:` and `port:` under `mlflow:` in fabric.yaml."
        )
    found = {
        "bucket": (bucket, settings.bucket),
        "prefix": (prefix, settings.artifact_prefix),
        "profile": (guide.profile, settings.profile),
        "default_permission": (guide.permission, settings.default_permission),
    }
    unlike = [f"`{key}: {its}`" for key, (its, wanted) in found.items() if its != wanted]
    if unlike:
        raise Exit(
            f"The guide's server has other settings than fabric.yaml. Set {' and '.join(unlike)} "
            "under `mlflow:` there, then type the same again."
        )


def minor(version: str) -> tuple[int, ...]:
    """Return the part of a version that schemas change with: (3, 17) of 3.17.2."""
    return tuple(int(part) for part in re.findall("[0-9]+", version)[:2])


def refuse_without_sudo(facts: Facts) -> None:
    """Raise Exit where the login user cannot become root without a password."""
    if not facts.sudo:
        raise Exit(
            f"sudo asks {facts.user} for a password on the host. Allow it without one: "
            f"echo '{facts.user} ALL=(ALL) NOPASSWD:ALL' | sudo tee /etc/sudoers.d/{facts.user}"
        )
