"""Keep one tunnel: run ssh, and bring its connection back whenever it is lost.

Runs as a program of its own, which outlives the `fab` that started it. It knows nothing but the
standard library, so that it starts in 30 ms and stays at 12 MB; `tasks.laptop.tunnels` starts,
asks and ends it. It never asks for /health: that would start a service that somebody has stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

TICK = 2.0  # seconds between two looks at the connection

GAP = 3.0  # seconds beyond a tick that mean: this machine slept

LOOKS_PER_GREETING = 5  # a hung ssh is found within 10 s

PATIENCE = 20.0  # seconds for one attempt to connect without anybody to answer

FIRST_PAUSE, LONGEST_PAUSE = 0.3, 5.0  # seconds between attempts

# A login that is refused again and again must not look like an attack.
REFUSALS, REFUSED_PAUSE = 10, 60.0

MOST_LOG = 200_000  # bytes

FORMER_NAME = "keeper.py"  # of this file: a tunnel that was opened by it may still be open

# The mark of a login that only somebody at a keyboard, or another key, can mend.
REFUSALS_SAY = ("Permission denied", "Host key verification failed", "Too many authentication")


@dataclass(frozen=True)
class Place:
    """The files of one tunnel, beside each other in a folder that is its owner's alone."""

    base: str

    @property
    def state(self) -> Path:
        return Path(f"{self.base}.json")

    @property
    def socket(self) -> Path:
        """Name ssh's control socket; it exists while, and only while, there is a connection."""
        return Path(f"{self.base}.ssh")

    @property
    def lock(self) -> Path:
        """Name the file that one program at a time holds: who opens the tunnel, then its keeper."""
        return Path(f"{self.base}.lock")

    @property
    def log(self) -> Path:
        return Path(f"{self.base}.log")

    def is_mark_of(self, command: str) -> bool:
        """Tell by its command line whether a process is this tunnel's keeper or one of its ssh."""
        return self.keeps(command) or f" -S {self.socket} " in f"{command} "

    def keeps(self, command: str) -> bool:
        names = Path(__file__).name, FORMER_NAME
        return any(f"{name} {self.base} " in f"{command} " for name in names)


@dataclass
class State:
    """What is known of a tunnel. `ssh` is the command line; `connected` a time since the epoch."""

    host: str
    environment: str | None
    local_port: int
    port: int
    ssh: list[str]
    connected: float | None = None
    losses: int = 0
    problem: str | None = None

    @property
    def label(self) -> str:
        """Name the environment to people."""
        return self.environment or "default"

    def write(self, place: Place) -> None:
        part = place.state.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)))
        part.replace(place.state)


def read(place: Place) -> State | None:
    """Read a tunnel's state; None where there is none."""
    try:
        return State(**json.loads(place.state.read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # another version's is as good as none
        return None


def greets(control: Path, patience: float = 2.0) -> bool:
    """Tell whether the ssh behind a control socket is alive: it speaks first (PROTOCOL.mux).

    The same question as `ssh -O check`, without starting a program.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(patience)
        try:
            probe.connect(str(control))
            return bool(probe.recv(64))
        except OSError:
            return False


def reaches(port: int, patience: float = 5.0) -> bool:
    """Tell whether a tunnel reaches its host, without waking the server there.

    nginx answers TRACE itself, with 405. Where it is down, the host refuses, which is an answer
    too; only a dead connection says nothing.
    """
    request = b"TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), patience) as probe:
            probe.sendall(request)
            probe.recv(1)
            return True
    except (ConnectionResetError, BrokenPipeError):
        return True
    except OSError:
        return False


def now() -> float:
    """Read a clock that goes on while the machine sleeps, and that nobody sets."""
    # macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC counts sleep, where that of Linux does not.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def pauses() -> Iterator[float]:
    """Give the seconds to wait before each attempt."""
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE)


class Keeper:
    """One tunnel for as long as it is wanted.

    An attached one belongs to the terminal it was started from: its first connection may ask there
    for a passphrase or a host key, and it ends with the program that holds its standard input.
    """

    def __init__(self, place: Place, lock: int, attached: bool, may_ask: bool) -> None:
        state = read(place)
        assert state is not None
        self._place, self._state = place, state
        self._lock, self._attached, self._may_ask = lock, attached, may_ask
        self._ssh: subprocess.Popen[bytes] | None = None
        self._session: subprocess.Popen[bytes] | None = None
        self._ending = False
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def keep(self) -> None:
        """Connect, and again after every loss, until a signal or whoever started it says so."""
        self._hear_signals()
        try:
            if not self._connect(may_ask=self._may_ask):
                self._tell("failed", reason=self._state.problem)
                return
            self._tell("up")
            while self._until_lost():
                lost = time.monotonic()
                self._tell("lost", reason=self._state.problem)
                if self._until_back():
                    self._tell("back", seconds=time.monotonic() - lost)
        finally:
            self._end_ssh()
            if self._is_ours():
                self._place.state.unlink(missing_ok=True)
                self._place.socket.unlink(missing_ok=True)
            self._tell("closed")

    # -- the connection ----------------------------------------------------------------------

    def _connect(self, may_ask: bool = False) -> bool:
        """Make one attempt; where it fails, the state says why."""
        self._trim_log()
        self._start_ssh(may_ask)
        deadline = float("inf") if may_ask else now() + PATIENCE
        while not self._place.socket.exists() and self._lives() and not self._ending:
            if now() > deadline:
                self._end_ssh()
                return self._is_down(f"no connection within {PATIENCE:.0f} s")
            self._rest(0.05)
        if self._ending or not self._lives():
            self._end_ssh()
            return self._is_down(self._last_words() or "ssh ended without a word")
        if not self._forward():
            self._end_ssh()
            return self._is_down(f"port {self._state.local_port} of this machine is taken")
        self._begin_session()
        self._state.connected, self._state.problem = time.time(), None
        self._write()
        return True

    def _start_ssh(self, may_ask: bool) -> None:
        self._place.socket.unlink(missing_ok=True)
        program, *words = self._state.ssh
        # OpenSSH takes the first value it is given.
        first = ["-o", "BatchMode=no"] if may_ask else []
        # A group of its own, so that the ssh of a jump host ends with it. Only the terminal's own
        # group may ask there.
        self._grouped = not may_ask
        with self._place.log.open("ab") as log:
            self._began = log.tell()
            self._ssh = subprocess.Popen(
                [program, *first, *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=before_exec(self._grouped),
            )  # fmt: skip

    def _forward(self) -> bool:
        """Have the connection forward the port; False where another program has taken it."""
        state = self._state
        forward = f"127.0.0.1:{state.local_port}:127.0.0.1:{state.port}"
        words = [
            state.ssh[0], "-F", "/dev/null", "-S", str(self._place.socket),
            "-O", "forward", "-L", forward, "--", state.host,
        ]  # fmt: skip
        with self._place.log.open("ab") as log:
            try:
                done = subprocess.run(
                    words, check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    timeout=PATIENCE, preexec_fn=before_exec(False),
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return False
        return done.returncode == 0

    def _begin_session(self) -> None:
        """Run a command at the host that does nothing, whatever becomes of it.

        From then on the host's sshd sends at once what it has. Where there is no command it leaves
        Nagle's algorithm on: an answer waits until this machine has acknowledged what came before,
        which takes it 40 ms. So a request did after each 100 KB that clients had sent.
        """
        self._session = subprocess.Popen(
            [
                self._state.ssh[0], "-F", "/dev/null", "-S", str(self._place.socket),
                "-o", "ProxyCommand=false",  # never by a connection of its own
                "--", self._state.host, "true",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=before_exec(False),
        )  # fmt: skip

    def _until_lost(self) -> bool:
        """Watch the connection; True once it is lost, False once nobody wants it any more."""
        looks = 0
        while not self._ending:
            before = now()
            self._rest(TICK)
            slept = now() - before > TICK + GAP
            looks += 1
            if self._session:
                self._session.poll()  # or it would stay as a zombie
            if not self._is_ours():
                self._ending = True
            elif not self._lives():
                return self._is_lost(self._last_words() or "the connection broke")
            elif slept and not reaches(self._state.local_port):
                return self._is_lost("this machine slept")
            elif looks % LOOKS_PER_GREETING == 0:
                if not greets(self._place.socket):
                    return self._is_lost("ssh hung")
                self._stay_young()
                self._trim_log()
        return False

    def _is_lost(self, reason: str) -> bool:
        self._end_ssh()
        self._state.losses += 1
        self._is_down(reason)
        return not self._ending

    def _until_back(self) -> bool:
        reported = self._state.problem
        for attempt, pause in enumerate(pauses()):
            refused = attempt >= REFUSALS and (self._state.problem or "").startswith(REFUSALS_SAY)
            self._rest(REFUSED_PAUSE if refused else pause, whole=True)
            if not self._is_ours():
                self._ending = True
            if self._ending:
                return False
            if self._connect():
                return True
            if reported != self._state.problem and not self._ending:
                reported = self._state.problem
                self._tell("down", reason=reported)
        return False

    def _is_down(self, reason: str) -> bool:
        self._state.connected, self._state.problem = None, reason
        self._write()
        return False

    def _lives(self) -> bool:
        return self._ssh is not None and self._ssh.poll() is None

    def _end_ssh(self) -> None:
        """End ssh and its helpers; one that is stopped or hangs gets no second request."""
        ssh, self._ssh = self._ssh, None
        if ssh is None:
            return
        ssh.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            ssh.wait(1)
        ssh.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._grouped:
                os.killpg(ssh.pid, signal.SIGKILL)
        ssh.wait()

    # -- what others see ---------------------------------------------------------------------

    def _write(self) -> None:
        if self._is_ours():
            self._state.write(self._place)

    def _is_ours(self) -> bool:
        """Tell whether the files are still there, and ours: they go with a login session."""
        try:
            there = self._place.lock.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._lock)) and self._place.state.exists()

    def _stay_young(self) -> None:
        """Keep what cleans temporary folders from taking the files of a tunnel in use."""
        for file in (self._place.state, self._place.socket, self._place.lock, self._place.log):
            with contextlib.suppress(FileNotFoundError):
                os.utime(file)

    def _trim_log(self) -> None:
        # While nginx is down, ssh adds a line for every request.
        with self._place.log.open("ab") as log:
            if log.tell() > MOST_LOG:
                log.truncate(0)

    def _last_words(self) -> str | None:
        """Return the last line of what ssh said since it was started."""
        with self._place.log.open("rb") as log:
            log.seek(self._began)
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else None

    def _tell(self, event: str, **more: Any) -> None:
        """Tell whoever started this, as long as they listen."""
        with contextlib.suppress(OSError):
            os.write(1, json.dumps({"event": event, **more}).encode() + b"\n")
        if not self._attached:
            # They have their answer, and go.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.close(null)

    # -- time --------------------------------------------------------------------------------

    def _hear_signals(self) -> None:
        def end(*_: object) -> None:
            self._ending = True

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def _rest(self, seconds: float, whole: bool = False) -> None:
        """Wait until the time is up or, unless the `whole` is wanted, a child has ended.

        A signal to end, and the end of whoever holds the standard input, cut it short always.
        """
        end = time.monotonic() + seconds
        heard = [self._wake, *([0] if self._attached else [])]
        while not self._ending and (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select(heard, [], [], left)
            if 0 in ready and not os.read(0, 1):
                self._ending = True
            if self._wake in ready:
                os.read(self._wake, 512)
                if not whole:
                    return


def before_exec(own_group: bool) -> Callable[[], None]:
    """Prepare what a child does before it becomes ssh; on Linux it will not outlive its keeper."""
    keeper = os.getpid()
    libc = None
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None)

    def prepare() -> None:
        if own_group:
            os.setpgid(0, 0)
        if libc:
            libc.prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG, prctl(2)
            if os.getppid() != keeper:
                os._exit(1)

    return prepare


def main() -> None:
    """Run as: tunnel_daemon.py BASE LOCK-DESCRIPTOR background|attached|asking."""
    base, lock, manner = sys.argv[1:]
    os.set_inheritable(int(lock), False)
    os.umask(0o077)
    Keeper(Place(base), int(lock), manner != "background", manner == "asking").keep()


if __name__ == "__main__":
    main()
