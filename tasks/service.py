"""Start and stop the server's unit, and say how it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.commands import systemctl
from tasks.console import completed
from tasks.deploy import is_deployed
from tasks.facts import Facts
from tasks.install import refuse_without_sudo
from tasks.kinds import Host, remote
from tasks.server import Change, Server
from tasks.templates import read

if TYPE_CHECKING:
    from tasks.settings import Settings

TIMED = ("backup", "backup-verify")  # what timers begin, as their units are called
ABSENT = "There is no server on {host} yet. Type: ./fab -H {host} install configure deploy"
GUIDES = (
    "The server on {host} is one that the guide made, and not taken over yet. "
    "Type: ./fab -H {host} install configure deploy"
)


def absent(server: Server) -> str:
    """Say that there is no server of ours, and what makes one."""
    return (GUIDES if server.facts.guide else ABSENT).format(host=server.name)


def failed_by_timer(settings: Settings, facts: Facts) -> tuple[str, ...]:
    """Name what a timer began last and failed at: backup, backup.verify.

    A backup that was made since, by hand, makes up for one that failed.
    """
    backup, verify = (facts.unit(f"{settings.unit}-{name}.service") for name in TIMED)
    made = int(facts.backup.split()[0]) if facts.backup else 0
    found = {
        "backup": backup.active == "failed" and made <= backup.changed,
        "backup.verify": verify.active == "failed",
    }
    return tuple(name for name, failed in found.items() if failed)


@remote
def start(c: Host) -> None:
    """Start the server and wait until it answers.

    Starts the socket and the service.

    Example: fab -H ec2 start
    """
    server = _deployed(c.server)
    if is_up(server.settings, server.facts):
        server.say("start: nothing to change, the server runs")
        return
    unit = server.settings.unit
    _switch(server, "start", systemctl.start(f"{unit}.socket", "nginx", f"{unit}.service"))


@remote
def stop(c: Host) -> None:
    """Stop the server and its socket.

    Requests in flight are finished first; a balancer sends nothing new meanwhile. With the socket
    stopped too, nothing starts it again but `start` or a reboot.

    Example: fab -H ec2 stop
    """
    server = _deployed(c.server)
    unit = server.settings.unit
    names = (f"{unit}.socket", f"{unit}.service")
    if all(server.facts.unit(name).active in ("inactive", "failed") for name in names):
        server.say("stop: nothing to change, the server is stopped")
        return
    script = f"as_root {systemctl.stop(*names)}"
    if is_one_of_several(server):
        script = f"{drained(server.settings)}\n{script}\nundrain"
    server.apply("stop", [Change("stop the server", script)])
    server.say("✓ stopped; it starts again with: ./fab start", "green")


@remote(in_turn=True)
def restart(c: Host) -> None:
    """Restart the server; requests wait, none is lost.

    Several with one database are restarted one after the other: balancers send nothing new to it,
    what is under way ends, and the next one's turn comes once this one is usable again. If it does
    not come back, the others are left alone.

    Example: fab -H ec2 restart
    """
    server = _deployed(c.server)
    unit = server.settings.unit
    _switch(
        server,
        "restart",
        systemctl.start(f"{unit}.socket", "nginx"),
        systemctl.restart(f"{unit}.service"),
    )


def _switch(server: Server, task: str, *commands: str) -> None:
    script = awaiting(server.settings, *commands)
    if task == "restart" and is_one_of_several(server):
        script = rolling(server.settings, *commands)
    server.apply(task, [Change(f"{task} the server", script)])
    server.say("✓ the server answers", "green")


def awaiting(settings: Settings, *commands: str) -> str:
    """Spell a script that runs the commands as root, then waits until the server answers."""
    as_root = [f"as_root {command}" for command in commands]
    return "\n".join((f"unit={settings.unit}", read("host/health.sh"), *as_root, "await_health"))


def is_one_of_several(server: Server) -> bool:
    """Tell whether others may serve meanwhile: a balancer stands in front."""
    return server.several or bool(server.settings.balancers)


def drained(settings: Settings) -> str:
    """Spell a script that has balancers send nothing new here, and waits for what is under way."""
    return "\n".join((f"unit={settings.unit}", read("host/drain.sh"), "drain"))


def rolling(settings: Settings, *commands: str) -> str:
    """Spell what `awaiting` does for a server that others stand in for meanwhile."""
    lines = (drained(settings), awaiting(settings, *commands), "await_usable", "come_back")
    return "\n".join(lines)


def _deployed(server: Server) -> Server:
    if not is_deployed(server.settings, server.facts):
        raise Exit(absent(server))
    refuse_without_sudo(server.facts)
    return server


def is_up(settings: Settings, facts: Facts) -> bool:
    """Tell whether everything that serves a request is active."""
    names = (f"{settings.unit}.socket", f"{settings.unit}.service", "nginx.service")
    return all(facts.unit(name).active == "active" for name in names)


def state(settings: Settings, facts: Facts) -> str:
    """Spell what the units do, in words that say what comes next."""
    return completed(_state(settings, facts), settings.environment)


def _state(settings: Settings, facts: Facts) -> str:
    if facts.guide:
        return "the guide's (./fab deploy takes it over)"
    if not is_deployed(settings, facts):
        return "not deployed"
    service = facts.unit(f"{settings.unit}.service")
    socket = facts.unit(f"{settings.unit}.socket")
    if service.active == "active":
        if facts.drained:
            return "drained: balancers send nothing here (./fab restart ends that)"
        if facts.unit("nginx.service").active != "active":
            return "running, but nginx is down (./fab start)"
        return "running" if socket.active == "active" else "running without its socket"
    if service.active == "activating":
        return f"restarting after a failure ({service.restarts} times; ./fab logs)"
    if socket.active == "active":
        return "stopped, but the next request starts it (./fab stop stops both)"
    return "stopped (./fab start)"
