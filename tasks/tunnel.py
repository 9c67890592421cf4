"""A tunnel from this machine to the server, by OpenSSH: fast, and shared by every program."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.kinds import Host, remote

if TYPE_CHECKING:
    from tasks.server import Server

# Half a minute of silence and the tunnel is given up, instead of hanging for hours.
ALIVE = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=2")


@remote(
    help={
        "background": "leave it open and return; close it with tunnel.close",
        "local-port": "port on this machine (default: local_port of the settings)",
    }
)
def tunnel(c: Host, background: bool = False, local_port: int = 0) -> None:
    """Open a tunnel to the server; Ctrl-C closes it.

    Then http://localhost:5001 on this machine is the server. OpenSSH does the work, so host keys,
    jump hosts and agents are what `ssh` makes of them.

    Example: fab -H ec2 tunnel --background
    """
    server = c.server
    port = local_port or server.settings.local_port
    if is_open(server):
        server.say(f"tunnel: already open at {url(_port_of(server) or port)}")
        return
    if background:
        _spawn(server, port)
        _announce(server, port)
        server.say(f"close it with: ./fab -H {server.name} tunnel.close")
        return
    with forwarded(server, port) as process:
        _announce(server, port)
        server.say("Ctrl-C closes it")
        try:
            process.wait()
        except KeyboardInterrupt:
            server.say("tunnel closed")
            return
    raise Exit(f"The tunnel to {server.name} broke. Open it again: ./fab -H {server.name} tunnel")


@remote
def close(c: Host) -> None:
    """Close the tunnel that runs in the background.

    Example: fab -H ec2 tunnel.close
    """
    server = c.server
    if not is_open(server):
        server.say("tunnel.close: there is no tunnel open")
        return
    _control(server, "exit")
    _port_file(server).unlink(missing_ok=True)
    server.say("✓ tunnel closed", "green")


@remote
def status(c: Host) -> None:
    """Tell whether a tunnel runs in the background.

    Example: fab -H ec2 tunnel.status
    """
    server = c.server
    port = _port_of(server)
    if not is_open(server) or port is None:
        server.say(f"no tunnel is open; open one: ./fab -H {server.name} tunnel --background")
    elif answers(port):
        server.say(f"open at {url(port)}, and the server answers")
    else:
        server.warn(f"open at {url(port)}, but the server does not answer. Type: ./fab status")


def url(port: int) -> str:
    return f"http://localhost:{port}"


def forward(server: Server, local_port: int) -> list[str]:
    """Spell the options that forward a local port to the server's port on its host."""
    return [
        "-N", "-o", "ExitOnForwardFailure=yes", *ALIVE,
        "-L", f"127.0.0.1:{local_port}:127.0.0.1:{server.settings.port}",
    ]  # fmt: skip


@contextmanager
def forwarded(server: Server, local_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Hold a tunnel open; its process ends with the block, whatever happens in it."""
    refuse_taken(local_port)
    words = server.client.to(server.name, *forward(server, local_port))
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    try:
        _await_open(process, server, local_port)
        yield process
    finally:
        process.terminate()
        process.wait()


def _spawn(server: Server, port: int) -> None:
    refuse_taken(port)
    options = ["-f", "-M", "-S", str(_socket(server)), *forward(server, port)]
    # ssh's own error output goes to a file: the process that stays behind would hold a pipe open.
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            server.client.to(server.name, *options),
            check=False, stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
        said.seek(0)
        if done.returncode:
            raise Exit(_refused(server, said.read()))
    _port_file(server).write_text(str(port))


def _await_open(process: subprocess.Popen[bytes], server: Server, port: int) -> None:
    # A prompt for a host key or passphrase may take its time; ssh itself ends it otherwise.
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise Exit(_refused(server, process.stderr.read() if process.stderr else b""))


def _refused(server: Server, said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
    return f"ssh cannot open the tunnel to {server.name}: {lines[-1]}. Try: ssh {server.name} true"


def _announce(server: Server, port: int) -> None:
    if answers(port):
        server.say(f"✓ MLflow is at {url(port)}", "green")
    else:
        server.warn(
            f"the tunnel is open at {url(port)}, but the server does not answer. Type: ./fab status"
        )


def answers(port: int, timeout: float = 15) -> bool:
    """Tell whether the server's /health answers at a local port, whatever proxy is configured."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url(port)}/health", timeout=timeout) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def refuse_taken(port: int) -> None:
    """Raise Exit where another program on this machine listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise Exit(
                f"Port {port} of this machine is taken. Choose another: tunnel --local-port "
                f"{port + 10}, or `local_port:` in fabric.yaml."
            ) from None


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_open(server: Server) -> bool:
    """Tell whether a tunnel of ours runs in the background."""
    return _socket(server).exists() and _control(server, "check") == 0


def _control(server: Server, command: str) -> int:
    words = server.client.to(server.name, "-S", str(_socket(server)), "-O", command)
    return subprocess.run(words, check=False, capture_output=True).returncode


def _port_of(server: Server) -> int | None:
    file = _port_file(server)
    return int(file.read_text()) if file.exists() else None


def _port_file(server: Server) -> Path:
    return _socket(server).with_suffix(".port")


def _socket(server: Server) -> Path:
    """Name the control socket: a path under 104 characters, in a folder that is ours alone."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp", f"remote-mlflow-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise Exit(f"{folder} belongs to somebody else. Set XDG_RUNTIME_DIR to a folder of yours.")
    name = f"{server.identity} {server.settings.environment} {server.settings.port}"
    return folder / hashlib.sha256(name.encode()).hexdigest()[:16]
