"""The tunnels of this machine: which are open, and how one is opened, asked and ended.

A kept tunnel is a program of its own (tunnel_daemon.py) that outlives its task; `forwarded` holds
one for as long as a block takes. No file holds process ids: the processes of a tunnel are found by
their command lines, which name its files.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from invoke import Exit

from tasks.engine import session_manager
from tasks.engine.console import interactive
from tasks.engine.records import dataclass
from tasks.engine.typed import ssh, typed
from tasks.laptop import machine, tunnel_daemon
from tasks.laptop.tunnel_daemon import Place, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

    from tasks.engine.login import Login
    from tasks.engine.server import Server
    from tasks.engine.ssh import Target

# A connection that went silently is given up within 16 s, instead of hanging for hours.
ALIVE = ("-o", "ServerAliveInterval=4", "-o", "ServerAliveCountMax=3")

# What the operator's ssh configuration may say for logins, and would be in the way: other forwards,
# whose ports may be in use, commands, and a connection that is shared or leaves for the background.
ALONE = (
    "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no",
    "-o", "ControlPath=none", "-o", "ControlPersist=no",
)  # fmt: skip

UNATTENDED = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=INFO")

# Where a processor has instructions for it, half of what OpenSSH's first choice computes.
CHACHA, AES = "chacha20-poly1305@openssh.com", ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

LONGEST_SOCKET = 103  # bytes of sun_path in macOS's sys/un.h, without its end

WHILE_BINDING = 17  # what OpenSSH appends to the socket's path until it listens

OTHERS_PATIENCE = 30.0  # seconds for another `tunnel` that is just connecting

ENDING = 4.0  # seconds for a process to leave, as it was asked to

Condition = Literal["open", "connecting", "reconnecting", "dead", "stale"]

_asking = threading.Lock()


@dataclass(frozen=True)
class Tunnel:
    """A tunnel of this machine, as it is now.

    `keeper` and `ssh` are process ids of what runs for it; `since` is when it was last connected,
    in seconds since the epoch; `losses` counts the connections that broke.
    """

    host: str
    environment: str | None
    local_port: int
    port: int
    condition: Condition
    keeper: int | None
    ssh: tuple[int, ...]
    since: float | None
    losses: int
    problem: str | None

    @property
    def url(self) -> str:
        return url(self.local_port)

    @property
    def label(self) -> str:
        """Name the environment to people."""
        return self.environment or "default"

    @property
    def name(self) -> str:
        return f"the tunnel to {self.host} ({self.label})"

    @property
    def close(self) -> str:
        """Spell what closes it."""
        return typed(self.host, self.environment, "tunnel.close")


def opened(server: Server) -> Tunnel | None:
    """Return the server's tunnel, whatever its condition; None where there is none.

    Prints nothing, and asks nothing of the host: `answers` asks for /health, and
    `tunnel_daemon.reaches` asks without waking a stopped server.
    """
    place = place_of(server)
    state = tunnel_daemon.read(place)
    return _now(place, state, machine.processes()) if state else None


def tunnels(but: Collection[tuple[str, str]] = ()) -> list[Tunnel]:
    """Return all tunnels of this machine and user, stale ones too; `but` are hosts with labels."""
    places = [Place(str(file.with_suffix(""))) for file in sorted(_folder().glob("*.json"))]
    running = machine.processes()
    return [
        _now(place, state, running)
        for place in places
        if (state := tunnel_daemon.read(place)) and (state.host, state.label) not in but
    ]


def _now(place: Place, state: State, running: Iterable[machine.Process]) -> Tunnel:
    ours = [process for process in running if place.is_mark_of(process.command)]
    keepers = [process for process in ours if place.keeps(process.command)]
    return Tunnel(
        host=state.host,
        environment=state.environment,
        local_port=state.local_port,
        port=state.port,
        condition=_condition(place, state, keepers),
        keeper=keepers[0].pid if keepers else None,
        ssh=tuple(process.pid for process in ours if process not in keepers),
        since=state.connected,
        losses=state.losses,
        problem=state.problem,
    )


def _condition(place: Place, state: State, keepers: list[machine.Process]) -> Condition:
    if not keepers:
        return "stale"
    if keepers[0].stopped:
        return "dead"
    if state.connected is None:
        return "reconnecting" if state.losses or state.problem else "connecting"
    return "open" if tunnel_daemon.greets(place.socket) else "dead"


def url(port: int) -> str:
    return f"http://localhost:{port}"


def answers(port: int, timeout: float = 15) -> bool:
    """Tell whether the server's /health answers at a local port, whatever proxy is configured."""
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url(port)}/health", timeout=timeout) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def is_refused(port: int, login: Login) -> bool:
    """Tell whether the server at a local port refuses a login; MLflow's client takes half a minute.

    What else may be wrong, whoever asks next is told.
    """
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = urllib.request.Request(f"{url(port)}/api/2.0/mlflow/experiments/get?experiment_id=0")
    words = f"{login.username}:{login.password}".encode()
    asked.add_header("Authorization", f"Basic {base64.b64encode(words).decode()}")
    try:
        opener.open(asked, timeout=15).close()
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        pass
    return False


def close_all_to(identity: str) -> None:
    """Close the tunnel to a host that is going away."""
    end_all(_place(identity, None))


@contextmanager
def lock_of(server: Server) -> Iterator[int | None]:
    """Give the lock of the server's tunnel, or None where somebody else has opened it."""
    descriptor = os.open(place_of(server).lock, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + OTHERS_PATIENCE
    try:
        while not _taken(descriptor):
            there = opened(server)
            # Stale, and yet held: what kept it is just ending, or somebody opens it anew.
            if there and there.condition not in ("connecting", "stale"):
                yield None
                return
            if time.monotonic() > deadline:
                raise Exit(
                    f"Another program opens the tunnel to {server.name}, and waits for something. "
                    f"Answer there, or end it: ./fab tunnel.close"
                )
            time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_kept(
    server: Server, port: int, any_port: bool, background: bool, lock: int
) -> tuple[Kept, int]:
    """Start a keeper; return it once it is connected, with the port that it got."""
    acquainted = False
    while True:
        port = _free(port, any_port)
        kept = Kept(server, port, background, lock)
        try:
            said = kept.next() or {}
        except KeyboardInterrupt:
            kept.end()
            raise
        if said.get("event") == "up":
            return kept, port
        kept.end()
        reason = said.get("reason") or f"its keeper ended; see {place_of(server).log}"
        if any_port and machine.is_taken(port):
            continue  # somebody took it just now
        if background and interactive() and not acquainted and needs_somebody(reason):
            acquainted = _acquaint(server)
            continue
        place_of(server).state.unlink(missing_ok=True)
        refuse_taken(port)
        if acquainted:
            raise Exit(
                f"{server.name} lets you in only where you answer ssh's questions; a tunnel in the "
                "background has to come back without. Type ssh-add first, or leave --background "
                "away."
            )
        raise Exit(_refused(server, reason))


def _free(port: int, any_port: bool) -> int:
    if not any_port:
        refuse_taken(port)
        return port
    free = machine.next_free(port)
    if free is None:
        raise Exit(f"No port of this machine is free from {port} on. Give another --local-port.")
    return free


class Kept:
    """A keeper that was started here, and what it tells."""

    def __init__(self, server: Server, local_port: int, background: bool, lock: int) -> None:
        self._server, self._place = server, place_of(server)
        settings = server.settings
        session_manager.refuse_without_programs(server.connection.target.proxy_command)
        control = ("-N", "-M", "-S", str(self._place.socket))
        options = (*ALONE, *UNATTENDED, *ALIVE, *ciphers(server.connection.target))
        ssh = server.client.to(server.name, *control, *options)
        state = State(server.name, settings.environment, local_port, settings.port, ssh)
        state.write(self._place)
        manner = "background" if background else "asking" if interactive() else "attached"
        program = [sys.executable, "-I", "-S", tunnel_daemon.__file__]
        with self._place.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*program, self._place.base, str(lock), manner],
                # One in the foreground ends when this pipe does, whatever ended this program.
                stdin=subprocess.DEVNULL if background else subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log,
                cwd="/", start_new_session=background, pass_fds=(lock,),
            )  # fmt: skip
        self._read = b""

    def next(self) -> dict[str, Any] | None:
        """Wait for what it tells next; None once it has ended."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._read:
            # Ctrl-C reaches only the main thread, which passes it on.
            if self._server.interrupted.is_set():
                raise KeyboardInterrupt
            if select.select([descriptor], [], [], 0.5)[0]:
                data = os.read(descriptor, 65536)
                if not data:
                    return None
                self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return dict(json.loads(line))

    def end(self) -> None:
        """End it, and all that it started."""
        if self._process.stdin:
            self._process.stdin.close()
        else:
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING)
        end_all(self._place)
        self._process.wait()


def needs_somebody(reason: str) -> bool:
    """Tell whether it failed for want of somebody who answers ssh's questions."""
    return any(text in reason for text in tunnel_daemon.REFUSALS_SAY)


def _acquaint(server: Server) -> bool:
    """Let ssh ask what it has to ask, once, before the tunnel goes where nobody answers."""
    words = server.client.to(server.name, "-T", *ALONE)
    with _asking:
        done = subprocess.run([*words, "true"], check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise Exit(f"ssh cannot log in to {server.name}; its own words stand above.")
    return True


def _refused(server: Server, reason: str) -> str:
    remedy = f"Try: {ssh(server.name, 'true')}"
    if "Permission denied" in reason:
        remedy = f"If its key has a passphrase, type: ssh-add. {remedy}"
    return f"ssh cannot open the tunnel to {server.name}: {reason.rstrip('.')}. {remedy}"


def refuse_taken(port: int) -> None:
    """Raise Exit where another program on this machine listens on the port; names that program."""
    if not machine.is_taken(port):
        return
    others = "Or take another port: tunnel --any-port, or `local_port:` in fabric.yaml."
    for there in tunnels():
        if there.local_port == port and (there.keeper or there.ssh):
            raise Exit(
                f"Port {port} of this machine is taken by {there.name}. Close that: {there.close}. "
                f"{others}"
            )
    name, pid = machine.owner(port) or ("another program", None)
    ending = f" (process {pid}). End that: kill {pid}" if pid else ""
    raise Exit(f"Port {port} of this machine is taken by {name}{ending}. {others}")


def end_all(place: Place) -> bool:
    """End all that runs for a tunnel, and remove its files; True where there was any of it."""
    found = place.state.exists()
    for number in (signal.SIGTERM, signal.SIGKILL):
        running = _running(place)
        found = found or bool(running)
        for process in running:
            process.send(number)
            # One that was stopped has to go on to hear it.
            process.send(signal.SIGCONT)
        deadline = time.monotonic() + ENDING
        while _running(place) and time.monotonic() < deadline:
            time.sleep(0.05)
    _remove_files(place)
    return found


def _running(place: Place) -> list[machine.Process]:
    """List the processes of a tunnel, its keeper first: it would bring an ssh back."""
    ours = [process for process in machine.processes() if place.is_mark_of(process.command)]
    return sorted(ours, key=lambda process: not place.keeps(process.command))


def _remove_files(place: Place) -> None:
    descriptor = os.open(place.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Whoever holds it now opens the tunnel anew: the files are theirs.
        if _taken(descriptor):
            for file in (place.state, place.socket, place.log):
                file.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def ciphers(target: Target) -> list[str]:
    """Spell the option that has ssh offer AES first, of what it would offer anyway.

    Nothing where the operator's configuration begins with another cipher than OpenSSH itself does,
    or where AES is slow.
    """
    offered = target.ciphers
    first = [cipher for cipher in AES if cipher in offered]
    if not first or offered[0] != CHACHA or not machine.has_aes():
        return []
    rest = [cipher for cipher in offered if cipher not in first]
    return ["-o", "Ciphers=" + ",".join([*first, *rest])]


def forward(server: Server, local_port: int) -> list[str]:
    """Spell the options that forward a local port to the server's port on its host."""
    return [
        "-N", "-o", "ExitOnForwardFailure=yes", *ALIVE,
        *ciphers(server.connection.target),
        "-L", f"127.0.0.1:{local_port}:127.0.0.1:{server.settings.port}",
    ]  # fmt: skip


@contextmanager
def forwarded(server: Server, local_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Hold a tunnel open; its process ends with the block, whatever happens in it."""
    refuse_taken(local_port)
    session_manager.refuse_without_programs(server.connection.target.proxy_command)
    words = server.client.to(server.name, *forward(server, local_port))
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    try:
        _await_open(process, server, local_port)
        yield process
    finally:
        process.terminate()
        process.wait()


def _await_open(process: subprocess.Popen[bytes], server: Server, port: int) -> None:
    # A prompt for a host key or passphrase may take its time; ssh itself ends it otherwise.
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    said = process.stderr.read() if process.stderr else b""
    lines = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
    raise Exit(_refused(server, lines[-1]))


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def place_of(server: Server) -> Place:
    """Name the files of the server's tunnel: one a host and environment."""
    return _place(server.identity, server.settings.environment)


def _place(identity: str, environment: str | None) -> Place:
    name = f"{identity} {environment}"
    return Place(str(_folder() / hashlib.sha256(name.encode()).hexdigest()[:16]))


def refuse_long(place: Place) -> None:
    if len(os.fsencode(place.socket)) + WHILE_BINDING > LONGEST_SOCKET:
        raise Exit(
            f"{_folder()} is too long a name for a socket's folder. Set XDG_RUNTIME_DIR to a "
            "shorter one of yours."
        )


def _folder() -> Path:
    """Make the folder of this user's tunnels; raises Exit where it is not ours alone."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp", f"remote-mlflow-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise Exit(f"{folder} belongs to somebody else. Set XDG_RUNTIME_DIR to a folder of yours.")
    return folder
