"""A tunnel from this machine to the server, by OpenSSH: fast, and shared by every program.

What keeps it open is a program of its own, tasks/laptop/tunnel_daemon.py.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.presence import absent
from tasks.engine.configuration import UNNAMED
from tasks.engine.console import console, seconds
from tasks.engine.facts import is_deployed
from tasks.engine.task import remote
from tasks.engine.typed import typed
from tasks.laptop import machine
from tasks.laptop.tunnels import (
    answers,
    end_all,
    lock_of,
    open_kept,
    opened,
    place_of,
    refuse_long,
    tunnels,
    url,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tasks.engine.server import Server
    from tasks.engine.task import Host
    from tasks.laptop.tunnels import Kept, Tunnel

NAMESPACE = "tunnel"


@remote(
    default_name="open",
    help={
        "background": "leave it open and return; close it with tunnel.close",
        "local-port": "port on this machine (default: local_port of the settings)",
        "any-port": "take the next free port where that one is taken",
    },
)
def tunnel(c: Host, background: bool = False, local_port: int = 0, any_port: bool = False) -> None:
    """Open a tunnel to the server; Ctrl-C closes it.

    Then http://localhost:5001 on this machine is the server. OpenSSH does the work, so host keys,
    jump hosts and agents are what `ssh` makes of them. A connection that is lost, because this
    machine slept or the host rebooted, comes back by itself.

    Example: fab -H ec2 tunnel --background
    """
    server = c.server
    port = _wanted(server, local_port)
    refuse_long(place_of(server))
    with lock_of(server) as lock:
        if lock is None:
            _is_open_already(server, local_port)
            return
        end_all(place_of(server))
        kept, port = open_kept(server, port, any_port, background, lock)
    try:
        if not _announce(server, port) and has_none(server):
            kept.end()
            raise Exit(absent(server))
        if background:
            server.say("close it with: ./fab tunnel.close")
            return
        server.say("Ctrl-C closes it")
        _attend(server, kept)
    except KeyboardInterrupt:
        kept.end()
        server.say("tunnel closed")


@remote
def close(c: Host) -> None:
    """Close the tunnel, and end all that is left of it.

    Also what a killed one left behind, and an ssh that hangs.

    Example: fab -H ec2 tunnel.close
    """
    if end_all(place_of(c.server)):
        c.server.say("✓ tunnel closed", "green")
    else:
        c.server.say("tunnel.close: there is no tunnel open")


def show(answers: Mapping[str, Any]) -> None:
    """Print the tunnels of all hosts in one table, then the others of this machine."""
    rows = [row for rows in answers.values() for row in rows]
    known = {(row["host"], row["environment"]) for row in rows}
    others = [_row(there) for there in tunnels(but=known)]
    if there := [row for row in (*rows, *others) if row["state"] != "closed"]:
        _show_table(there)
    for row in (*rows, *others):
        if advice := _advice(row):
            (console.say if row["state"] == "closed" else console.warn)(advice)


@remote(report=show, help={"json": "print JSON instead of a table"})
def status(c: Host, json: bool = False) -> list[dict[str, Any]]:
    """Show the tunnels that are open, and whether they work.

    Those to the host, of every environment; without --json those to other hosts too.

    Example: fab -H ec2 tunnel.status
    """
    server = c.server
    own = opened(server)
    rows = [_row(own) if own else _closed(server)]
    others = tunnels(but={(server.name, server.settings.label)})
    return [*rows, *(_row(there) for there in others if there.host == server.name)]


def _wanted(server: Server, local_port: int) -> int:
    if local_port and not 1024 <= local_port <= machine.HIGHEST:
        raise Exit(f"--local-port is {local_port}. Give one from 1024 to {machine.HIGHEST}.")
    return local_port or server.settings.local_port


def _is_open_already(server: Server, local_port: int) -> None:
    there = opened(server)
    if there is None:
        raise Exit(f"The tunnel to {server.name} was just closed. Run the same command again.")
    ports = (there.local_port, there.port)
    if ports != (local_port or there.local_port, server.settings.port):
        raise Exit(
            f"The tunnel to {server.name} is open already, from port {ports[0]} here to port "
            f"{ports[1]} there. Close it first: ./fab tunnel.close"
        )
    if there.condition != "open":
        raise Exit(f"The tunnel to {server.name} is there. {_advice(_row(there))}")
    server.say(f"tunnel: already open at {there.url}")


def _attend(server: Server, kept: Kept) -> None:
    """Say what happens to a tunnel in the foreground, until it ends."""
    while (said := kept.next()) and said["event"] != "closed":
        if said["event"] == "lost":
            server.warn(f"the connection was lost ({said['reason']}); reconnecting")
        elif said["event"] == "down":
            server.warn(f"still trying ({said['reason']})")
        else:
            server.say(f"✓ connected again after {seconds(said['seconds'])}", "green")
    kept.end()
    if said is None:
        raise Exit(f"The tunnel to {server.name} was killed. Open it again: ./fab tunnel")
    server.say("tunnel closed")


def has_none(server: Server) -> bool:
    """Tell whether the host is seen to have no server, neither ours nor one of the guide's."""
    with suppress(Exit):  # OpenSSH may have ways in that this look has not
        facts = server.facts
        return not (is_deployed(server.settings, facts) or facts.guide or facts.listeners)
    return False


def _announce(server: Server, port: int) -> bool:
    there = answers(port)
    if there:
        server.say(f"✓ MLflow is at {url(port)}", "green")
    else:
        server.warn(
            f"the tunnel is open at {url(port)}, but the server does not answer. Type: ./fab status"
        )
    return there


def _row(there: Tunnel) -> dict[str, Any]:
    is_open = there.condition == "open"
    return {
        "host": there.host,
        "environment": there.label,
        "state": there.condition,
        "url": there.url,
        "local_port": there.local_port,
        "port": there.port,
        "answers": answers(there.local_port, 5) if is_open else False,
        "since_seconds": round(time.time() - there.since) if is_open and there.since else None,
        "losses": there.losses,
        "problem": there.problem,
        "keeper": there.keeper,
        "ssh": list(there.ssh),
        "close": there.close,
    }


def _closed(server: Server) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("url", "local_port", "port", "since_seconds", "losses", "problem", "keeper")
    )
    place = {"host": server.name, "environment": server.settings.label}
    return {**place, "state": "closed", "answers": False, **nothing, "ssh": [], "close": None}


def _show_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("host", "environment", "tunnel", "state", "since", "lost", "server", box=None)
    for row in rows:
        since = row["since_seconds"]
        table.add_row(
            row["host"],
            row["environment"],
            row["url"],
            row["state"],
            "-" if since is None else seconds(since),
            str(row["losses"]),
            "answers" if row["answers"] else "silent" if row["state"] == "open" else "-",
        )
    console.show(table)


def _advice(row: Mapping[str, Any]) -> str | None:
    """Say what a tunnel's condition asks for, or None where all is well."""
    environment = None if row["environment"] == UNNAMED else row["environment"]
    again, look = (
        typed(row["host"], environment, words) for words in ("tunnel --background", "status")
    )
    name = f"{row['host']} ({row['environment']})"
    return {
        "closed": f"no tunnel to {name} is open; open one: {again}",
        "connecting": f"{name} is connecting.",
        "reconnecting": f"{name} comes back by itself; last: {row['problem']}",
        "dead": f"{name} is dead: its processes do not react. Close it: {row['close']}",
        "stale": f"{name} is stale: what kept it was killed. Clean up: {row['close']}",
        "open": None
        if row["answers"]
        else f"{name}: the server behind it does not answer. Type: {look}",
    }[row["state"]]
