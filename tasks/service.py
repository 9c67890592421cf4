"""Start, stop and watch the server's unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.commands import journalctl, sh, systemctl
from tasks.console import console, seconds
from tasks.deploy import is_deployed
from tasks.facts import Facts
from tasks.install import refuse_without_sudo
from tasks.kinds import Host, remote
from tasks.server import Change, Server
from tasks.templates import read

if TYPE_CHECKING:
    from tasks.settings import Settings

ABSENT = "There is no server on {host} yet. Type: ./fab -H {host} install configure deploy"


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

    Requests in flight are finished first. With the socket stopped too, nothing starts it again
    but `start` or a reboot.

    Example: fab -H ec2 stop
    """
    server = _deployed(c.server)
    unit = server.settings.unit
    names = (f"{unit}.socket", f"{unit}.service")
    if all(server.facts.unit(name).active in ("inactive", "failed") for name in names):
        server.say("stop: nothing to change, the server is stopped")
        return
    server.apply("stop", [Change("stop the server", f"as_root {systemctl.stop(*names)}")])
    server.say("✓ stopped; it starts again with: ./fab start", "green")


@remote
def restart(c: Host) -> None:
    """Restart the server; requests wait, none is lost.

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
    as_root = [f"as_root {command}" for command in commands]
    unit = f"unit={server.settings.unit}"
    script = "\n".join((unit, read("host/health.sh"), *as_root, "await_health"))
    server.apply(task, [Change(f"{task} the server", script)])
    server.say("✓ the server answers", "green")


def _deployed(server: Server) -> Server:
    if not is_deployed(server.settings, server.facts):
        raise Exit(ABSENT.format(host=server.name))
    refuse_without_sudo(server.facts)
    return server


def is_up(settings: Settings, facts: Facts) -> bool:
    """Tell whether everything that serves a request is active."""
    names = (f"{settings.unit}.socket", f"{settings.unit}.service", "nginx.service")
    return all(facts.unit(name).active == "active" for name in names)


def state(settings: Settings, facts: Facts) -> str:
    """Spell what the units do, in words that say what comes next."""
    if not is_deployed(settings, facts):
        return "not deployed"
    service = facts.unit(f"{settings.unit}.service")
    socket = facts.unit(f"{settings.unit}.socket")
    if service.active == "active":
        if facts.unit("nginx.service").active != "active":
            return "running, but nginx is down (./fab start)"
        return "running" if socket.active == "active" else "running without its socket"
    if service.active == "activating":
        return f"restarting after a failure ({service.restarts} times; ./fab logs)"
    if socket.active == "active":
        return "stopped, but the next request starts it (./fab stop stops both)"
    return "stopped (./fab start)"


def show(answers: Mapping[str, Any]) -> None:
    """Print one table for all hosts."""
    from rich.table import Table

    table = Table("host", "version", "state", "since", "memory", "runs", "disk free", box=None)
    for host, row in answers.items():
        since, memory = row["since_seconds"], row["memory_bytes"]
        table.add_row(
            host,
            row["version"] or "-",
            row["state"],
            seconds(since) if since is not None else "-",
            f"{memory / 1024**2:.0f} MB" if memory else "-",
            "-" if row["runs"] is None else str(row["runs"]),
            f"{row['disk_free_bytes'] / 1024**3:.1f} GB",
        )
    console.show(table)


@remote(report=show, help={"json": "print JSON instead of a table"})
def status(c: Host, json: bool = False) -> dict[str, Any]:
    """Show version, state, memory, runs and disk.

    One table for all hosts; reads only.

    Example: fab -H ec2 status
    """
    settings, facts = c.server.settings, c.server.facts
    service = facts.unit(f"{settings.unit}.service")
    running = service.active == "active"
    return {
        "version": (facts.release or "").rpartition("-")[0] or None,
        "state": state(settings, facts),
        "running": running,
        "since_seconds": facts.now - service.since if running and service.since else None,
        "memory_bytes": service.memory if running else None,
        "restarts": service.restarts,
        "runs": facts.runs,
        "experiments": facts.experiments,
        "users": facts.users,
        "port": settings.port,
        "disk_free_bytes": facts.free_kb * 1024,
    }


@remote(
    help={
        "follow": "go on printing new lines until Ctrl-C",
        "lines": "how many of the last lines (default 100)",
        "since": "start there, such as '1h', '2026-11-22' or 'today'",
        "grep": "only lines that match this pattern",
    }
)
def logs(
    c: Host,
    follow: bool = False,
    lines: int = 100,
    since: str | None = None,
    grep: str | None = None,
) -> None:
    """Print the server's log.

    What `sudo journalctl -u mlflow-server` prints on the host.

    Example: fab -H ec2 logs --since 1h --grep ERROR
    """
    server = c.server
    unit = server.settings.unit
    command = journalctl.log(unit, lines=lines, since=since, grep=grep, follow=follow)
    shell = sh("bash", "-c", f"if [ $(id -u) = 0 ]; then {command}; else sudo -n {command}; fi")
    if not follow:
        # journalctl exits 1 where nothing matches, which is an answer too.
        text = server.read(shell, check=False).strip()
        console.answer(_tagged(server, text or "-- no entries --"))
        return
    # With a terminal on the far side Ctrl-C ends journalctl itself: nothing is left running.
    server.run(
        shell,
        pty=True,
        timeout=None,
        check=False,
        on_line=lambda line: server.say(line),
    )


def _tagged(server: Server, text: str) -> str:
    if not console.tagged:
        return text
    return "\n".join(f"[{server.name}] {line}" for line in text.splitlines())
