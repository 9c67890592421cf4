"""Install what the server needs on the host: packages, tools, and MLflow's own environment."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.install import changes
from tasks.changes.releases import is_behind, release_of, version_of, wanted_release
from tasks.changes.wheelhouse import checking, locks, refuse_packages
from tasks.engine import stores
from tasks.engine.locks import Target
from tasks.engine.paths import shown
from tasks.engine.task import remote
from tasks.laptop.wheelhouses import read, refuse_other, send

if TYPE_CHECKING:
    from tasks.engine.change import Change
    from tasks.engine.server import Server
    from tasks.engine.task import Host
    from tasks.laptop.wheelhouses import Wheelhouse


def options(from_wheelhouse: str = "") -> None:
    """Look a wheelhouse through before any connection."""
    if from_wheelhouse:
        wheels_in(from_wheelhouse)


@functools.cache
def wheels_in(typed: str) -> Wheelhouse:
    """Look the folder that was typed through, once for all hosts: it holds hundreds of MB."""
    return read(Path(typed).expanduser().absolute())


@remote(
    options=options,
    then="configure deploy verify",
    help={"from_wheelhouse": "the folder of wheels to send, for a host without internet"},
)
def install(c: Host, from_wheelhouse: str = "") -> None:
    """Install packages, tools and MLflow on the host.

    What the guide lists (Python, AWS CLI, htop, tmux, git, curl), nginx, and the locked
    environment of the configured MLflow release. Waits for apt where a new instance is busy. With
    --from-wheelhouse, a folder that `wheelhouse` made, the host itself fetches nothing.

    Example: fab -H ec2 install
    """
    server = c.server
    settings, facts = server.settings, server.facts
    needed = changes(settings, facts, bool(from_wheelhouse))
    if facts.guide:
        server.say(f"the guide's server (MLflow {facts.guide.version}) is left as it is")
    release = wanted_release(settings, facts)
    behind = release == facts.release and is_behind(settings, facts)
    if not needed:
        server.say(f"install: nothing to change (MLflow {release})")
    steps = needed
    if from_wheelhouse and (needed or behind):
        # Where the server's own release is whole, the wheels are those of the next, to upgrade to.
        of = release_of(settings) if release in facts.complete else release
        steps = [sent(server, wheels_in(from_wheelhouse), of), *needed]
    if steps:
        server.apply("install", steps)
    if needed:
        now = f"MLflow {version_of(release)}"
        what = f"what was missing; the server keeps {now}" if behind else now
        server.say(f"✓ installed {what}", "green")
    if behind:
        there = ", whose wheels are on the host" if from_wheelhouse else ""
        server.say(
            f"The settings want MLflow {settings.version}{there}. "
            "What that would do: ./fab upgrade --check"
        )


def sent(server: Server, wheels: Wheelhouse, release: str) -> Change:
    """Send a release's wheelhouse to a host; return the change that looks through what arrived.

    Raises Exit where it is for another release or host, or the host lacks what it does not hold.
    """
    settings, facts = server.settings, server.facts
    refuse_packages(facts, stores.current(settings, facts).postgres)
    host = Target(".".join(map(str, facts.python[:2])), facts.machine)
    if host != wheels.target:
        raise Exit(
            f"{shown(wheels.folder)} is for {wheels.target}, and the host has {host}. "
            f"Make one for it: {wheels.making(host)}"
        )
    refuse_other(wheels, release, locks(settings))
    send(server, wheels)
    return checking(wheels.digests)
