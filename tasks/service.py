"""Start and stop the server's unit, and say how it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes.presence import is_up, refuse_absent
from tasks.changes.service import awaiting, drained, is_one_of_several, rolling
from tasks.engine import shell
from tasks.engine.change import Change
from tasks.engine.task import remote

if TYPE_CHECKING:
    from tasks.engine.task import Host


@remote
def start(c: Host) -> None:
    """Start the server and wait until it answers.

    Starts the socket and the service.

    Example: fab -H ec2 start
    """
    server = c.server
    refuse_absent(server)
    if is_up(server.settings, server.facts):
        server.say("start: nothing to change, the server runs")
        return
    _switch(c, "start")


@remote
def stop(c: Host) -> None:
    """Stop the server and its socket.

    Requests in flight are finished first; a balancer sends nothing new meanwhile. With the socket
    stopped too, nothing starts it again but `start` or a reboot.

    Example: fab -H ec2 stop
    """
    server = c.server
    refuse_absent(server)
    unit = server.settings.unit
    names = (f"{unit}.socket", f"{unit}.service")
    if all(server.facts.unit(name).active in ("inactive", "failed") for name in names):
        server.say("stop: nothing to change, the server is stopped")
        return
    script = f"as_root {shell.stop(*names)}"
    if is_one_of_several(c):
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
    server = c.server
    refuse_absent(server)
    _switch(c, "restart")


def _switch(c: Host, task: str) -> None:
    server = c.server
    alone = task == "start" or not is_one_of_several(c)
    serve = (awaiting if alone else rolling)(server.settings, task)
    script = f"as_root {shell.start(f'{server.settings.unit}.socket', 'nginx')}\n{serve}"
    server.apply(task, [Change(f"{task} the server", script)])
    server.say("✓ the server answers", "green")
