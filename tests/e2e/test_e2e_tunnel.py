"""The tunnel of an operator who types one command and forgets it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from lab import Host, answer
from waiting import until

from tasks.laptop.machine import Process, processes
from tasks.laptop.tunnels import free_port

PROMISE = 10  # seconds until service is back
POLL = 1.0  # seconds, as a client would


@pytest.fixture
def tunnel(host: Host) -> Iterator[Callable[[], dict[str, Any]]]:
    """Open a tunnel in the background; gives what tunnel.status says of it."""
    host.fab("tunnel", "--background")
    try:
        yield lambda: status(host)[0]
    finally:
        host.fab("tunnel.close")
        assert left(host) == []


def status(host: Host) -> list[dict[str, Any]]:
    return list(json.loads(host.fab("tunnel.status", "--json").out))


def left(host: Host) -> list[Process]:
    """List what runs for tunnels of this lab."""
    return [process for process in processes() if str(host.lab.runtime) in process.command]


def works(port: int) -> bool:
    with suppress(OSError):
        return answer(f"http://127.0.0.1:{port}/health", timeout=5) == 200
    return False


@contextmanager
def client(port: int) -> Iterator[list[tuple[float, bool]]]:
    """Poll once a second meanwhile, as a client would; gives when it asked and what it got."""
    asked: list[tuple[float, bool]] = []
    over = threading.Event()

    def poll() -> None:
        while not over.is_set():
            asked.append((time.monotonic(), works(port)))
            over.wait(POLL)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        until(lambda: asked, "a first answer")
        yield asked
    finally:
        over.set()
        thread.join()


def longest_gap(asked: list[tuple[float, bool]]) -> float:
    """Return the longest time between two answers that were good, in seconds."""
    good = [moment for moment, well in asked if well]
    return max(later - earlier for earlier, later in itertools.pairwise(good))


def close_sessions(host: Host) -> None:
    host.run("pkill -KILL -f '^sshd: ubuntu'")


def test_a_closed_session_is_back_within_10_s_without_a_command(host: Host, tunnel: Any) -> None:
    with client(host.lab.local_port) as asked:
        close_sessions(host)
        until(lambda: tunnel()["losses"] == 1 and tunnel()["answers"], "connected again")
        seen = len(asked)
        until(lambda: len(asked) > seen + 1, "answers after that")
    print(f"longest gap {longest_gap(asked):.1f} s")
    assert longest_gap(asked) < PROMISE


def test_a_reboot_of_the_host_brings_the_tunnel_back(host: Host, tunnel: Any) -> None:
    host.lab.rehearsal.reboot(host.alias)
    until(lambda: works(host.lab.local_port), "service through the same tunnel")
    assert tunnel()["state"] == "open"
    assert tunnel()["losses"] >= 1


def test_a_silent_network_is_noticed_and_forgotten(host: Host, tunnel: Any) -> None:
    host.run("ip link set host0 down")
    try:
        until(lambda: tunnel()["state"] == "reconnecting", "the silence is noticed", 30)
    finally:
        host.run("ip link set host0 up")
    until(lambda: works(host.lab.local_port), "service is back", PROMISE)


def test_after_a_sleep_a_dead_connection_is_replaced_at_once(host: Host, tunnel: Any) -> None:
    there = tunnel()
    for pid in (there["keeper"], *there["ssh"]):
        os.kill(pid, signal.SIGSTOP)
    close_sessions(host)
    time.sleep(6)
    for pid in (*there["ssh"], there["keeper"]):
        os.kill(pid, signal.SIGCONT)
    until(lambda: works(host.lab.local_port), "service is back", PROMISE)


def test_a_stopped_server_is_not_woken_by_its_tunnel(host: Host, tunnel: Any) -> None:
    host.run("systemctl stop mlflow-server.service")
    try:
        close_sessions(host)
        until(lambda: tunnel_is_connected(host), "connected again")
        time.sleep(3)
        assert host.unit("mlflow-server.service", "ActiveState") == "inactive"
    finally:
        host.run("systemctl start mlflow-server.service")


def tunnel_is_connected(host: Host) -> bool:
    """Ask this machine alone: tunnel.status would ask the server."""
    return any(json.loads(f.read_text())["connected"] for f in host.lab.runtime.rglob("*.json"))


def test_a_killed_keeper_leaves_no_ssh(host: Host) -> None:
    host.fab("tunnel", "--background")
    os.kill(status(host)[0]["keeper"], signal.SIGKILL)
    until(lambda: not left(host), "ssh ended with it", 5)
    done = host.fab("tunnel.status")
    assert "stale" in done.out
    assert "tunnel.close" in done.err
    assert "✓ tunnel closed" in host.fab("tunnel.close").out
    assert "there is no tunnel open" in host.fab("tunnel.close").out


def test_a_stopped_ssh_is_named_and_closed(host: Host) -> None:
    host.fab("tunnel", "--background")
    there = status(host)[0]
    # The keeper too, which would replace it within 15 s.
    for pid in (there["keeper"], *there["ssh"]):
        os.kill(pid, signal.SIGSTOP)
    done = host.fab("tunnel.status")
    assert " dead " in done.out
    assert "is dead: its processes do not react. Close it: ./fab -H sandbox" in done.err
    host.fab("tunnel.close")
    assert left(host) == []


def test_a_stopped_ssh_is_replaced_by_itself(host: Host, tunnel: Any) -> None:
    os.kill(tunnel()["ssh"][0], signal.SIGSTOP)
    until(lambda: tunnel()["losses"] == 1 and tunnel()["answers"], "a new one", 20)


def test_close_ends_it_while_the_host_is_away(host: Host) -> None:
    host.fab("tunnel", "--background")
    host.run("systemctl stop ssh")
    try:
        close_sessions(host)
        until(lambda: status(host)[0]["state"] == "reconnecting", "the loss is seen")
        assert "Connection refused" in host.fab("tunnel.status").err
        host.fab("tunnel.close")
        assert left(host) == []
    finally:
        host.run("systemctl start ssh")


def test_tunnels_live_side_by_side_and_a_taken_port_names_its_owner(
    host: Host, tunnel: Any
) -> None:
    aim = ("-S", str(under_another_name(host, "other")), "-H", "other")
    host.refused(
        "tunnel", "--background", aim=aim,
        because=(
            f"Port {host.lab.local_port} of this machine is taken by the tunnel to {host.alias}",
            f"./fab -S {aim[1]} -H {host.alias} tunnel.close",
        ),
    )  # fmt: skip
    done = host.fab("tunnel", "--background", "--any-port", aim=aim)
    try:
        (other,) = json.loads(host.fab("tunnel.status", "--json", aim=aim).out)
        assert other["local_port"] > host.lab.local_port
        assert other["url"] in done.out
        assert works(host.lab.local_port)
        assert works(other["local_port"])
        assert "other" in host.fab("tunnel.status").out
    finally:
        host.fab("tunnel.close", aim=aim)
    assert tunnel()["answers"]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        host.fab("tunnel.close")
        host.refused(
            "tunnel", "--local-port", str(port),
            because=(f"Port {port} of this machine is taken by ", f"(process {os.getpid()})"),
        )  # fmt: skip


def under_another_name(host: Host, alias: str) -> Path:
    """Write an ssh configuration that knows the host by an alias, as if it were a second one."""
    words = ["ssh", "-F", str(host.lab.ssh_config), "-G", host.alias]
    asked = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    options = dict(line.split(" ", 1) for line in asked.splitlines())
    file = host.home / "ssh_config"
    file.write_text(
        f"Host {alias}\n  HostName {host.address}\n  User {options['user']}\n"
        f'  IdentityFile "{options["identityfile"]}"\n  IdentitiesOnly yes\n'
        f'  UserKnownHostsFile "{host.home}/known_hosts"\n  StrictHostKeyChecking accept-new\n'
    )
    return file


def test_a_client_gets_the_port_of_the_tunnel_that_is_open(host: Host) -> None:
    port = free_port()
    host.fab("tunnel", "--background", "--local-port", str(port))
    try:
        exported = host.fab("client", "--export").out
        assert f"export MLFLOW_TRACKING_URI=http://localhost:{port}\n" in exported
        assert works(port)
    finally:
        host.fab("tunnel.close")


def test_in_the_foreground_it_comes_back_and_ctrl_c_ends_all_of_it(host: Host) -> None:
    with host.start("tunnel") as working:
        until(lambda: "Ctrl-C closes it" in working.so_far, "open")
        close_sessions(host)
        until(lambda: "✓ connected again" in working.so_far, "connected again", PROMISE)
        working.send(signal.SIGINT)
        done = working.done(timeout=15)
    assert done.code == 0, done
    assert done.out.endswith("tunnel closed\n")
    assert left(host) == []


def test_in_the_foreground_kill_9_leaves_nothing(host: Host) -> None:
    with host.start("tunnel") as working:
        until(lambda: "Ctrl-C closes it" in working.so_far, "open")
        working.send(signal.SIGKILL)
        until(lambda: not left(host), "nothing is left", 10)
