"""Rehearsal hosts on this machine: throw-away, real systemd, real SSH, an S3 of their own."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import paths
from tasks.engine.console import confirm, console, interactive
from tasks.engine.task import local
from tasks.laptop import tunnels
from tasks.rehearsal import ours

if TYPE_CHECKING:
    from invoke import Context

    from tasks.rehearsal import Rehearsal
    from tasks.rehearsal.machine import Machine

NAMESPACE = "sandbox"

# moto takes any keys; these say in every log what they are.
KEYS = {"AWS_ACCESS_KEY_ID": "rehearsal", "AWS_SECRET_ACCESS_KEY": "rehearsal-no-secret"}

SUITES = ("bookworm", "trixie")


@local(
    help={
        "count": "how many hosts there shall be (default 1)",
        "suite": "Debian release: bookworm (12) or trixie (13)",
        "yes": "do not ask before changing this machine",
    }
)
def up(c: Context, count: int = 1, suite: str = "bookworm", yes: bool = False) -> None:
    """Boot rehearsal hosts on this machine.

    They are used as -H sandbox, sandbox-2, and so on; hosts that run already are kept. No real
    key, bucket or password is ever used there.

    Example: fab sandbox.up --count 2
    """
    machines = boot(count, suite, yes)
    names = ", ".join(machine.alias for machine in machines)
    console.say(f"✓ up: {names}. Use it as any host: ./fab -H sandbox status", style="green")


@local(help={"yes": "do not ask"})
def down(c: Context, yes: bool = False) -> None:
    """Take all rehearsal hosts down and remove them.

    Nothing is left behind: files, mounts, bridge, rules, processes.

    Example: fab sandbox.down --yes
    """
    from tasks.engine import rehearsed

    rehearsal = ours()
    machines = rehearsal.machines()
    aliases = [machine.alias for machine in machines]
    if aliases and not confirm(f"Remove {', '.join(aliases)} with all that is on them?", yes):
        raise Exit("Nothing was removed.")
    for machine in machines:
        tunnels.close_all_to(machine.name)
    for copy in paths.config().glob(f"{rehearsal.network.bridge}-*"):
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
    rehearsal.down()
    rehearsed.forget()
    console.say(f"✓ removed: {', '.join(aliases) or 'there was nothing left'}", style="green")


@local(name="list")
def list_(c: Context) -> None:
    """List the rehearsal hosts of this clone.

    Example: fab sandbox.list
    """
    machines = ours().machines()
    if not machines:
        console.say("no rehearsal host; make one: ./fab rehearse")
    for machine in machines:
        running = "running" if machine.booted else "off (./fab sandbox.up boots it)"
        console.say(f"{machine.alias}  {machine.address}  {machine.suite}  {running}")


def boot(count: int, suite: str, yes: bool) -> list[Machine]:
    """Have that many hosts running, after saying what that changes on this machine."""
    from tasks.engine import rehearsed

    if suite not in SUITES:
        raise Exit(f"Unknown suite {suite!r}. Give --suite one of: {', '.join(SUITES)}")
    if count < 1:
        raise Exit(f"--count is {count}. Give 1 or more; sandbox.down removes them all.")
    rehearsal = ours()
    if reason := rehearsal.why_not():
        raise Exit(f"{reason} A real host works from anywhere: ./fab -H HOST install")
    if not any(machine.booted for machine in rehearsal.machines()):
        console.say("A rehearsal host changes this machine:")
        for change in rehearsal.footprint():
            console.say(f"  - {change}")
        console.say("./fab sandbox.down takes all of it back, but packages and cached images.")
        # Nobody to ask means a script that asked for it by name.
        if interactive() and not confirm("Go on?", yes):
            raise Exit("Nothing was changed.")
    machines = rehearsal.up(count, suite)
    rehearsed.remember(
        {
            machine.name: {"settings": settings_of(rehearsal, machine), "variables": KEYS}
            for machine in machines
        }
    )
    return machines


def settings_of(rehearsal: Rehearsal, machine: Machine) -> dict[str, str]:
    """Return what a host is told: they share a bucket, and each has a prefix of its own there."""
    prefix = machine.alias.replace("sandbox", "mlflow-artifacts")
    return {"bucket": rehearsal.bucket, "endpoint_url": rehearsal.endpoint, "prefix": prefix}
