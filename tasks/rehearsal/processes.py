"""Start programs that outlive this one, and find and end exactly those again.

Each carries a mark in its environment. What runs is the record: there is no file of process ids
to go stale when the machine reboots, and no id that could meanwhile belong to somebody else.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from tasks.engine.records import dataclass

MARK = "REMOTE_MLFLOW_SANDBOX"

# What the operator's shell must not hand on: real keys, and the sockets of his own service manager.
PRIVATE = ("AWS_", "MOTO_", "NOTIFY_", "LISTEN_", "SYSTEMD_")


@dataclass(frozen=True)
class Process:
    """A running process: the words and the environment that it was started with."""

    pid: int
    argv: tuple[str, ...]
    environment: dict[str, str]


def environment(mark: str, **more: str) -> dict[str, str]:
    """Hand on this process's environment, with the mark, and without what is private to it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(PRIVATE)}
    return inherited | more | {MARK: mark}


def detach(argv: list[str], mark: str, log: Path, **more: str) -> None:
    """Start a program in a session of its own, so that it survives the end of this one."""
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment(mark, **more),
            check=True,
        )


def marked(mark: str) -> list[Process]:
    """Find the running processes that carry the mark, oldest first."""
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    found = (_read(pid) for pid in pids if _carries(pid, mark))
    return [process for process in found if process and process.environment.get(MARK) == mark]


def _carries(pid: int, mark: str) -> bool:
    """Tell at a glance whether a process may carry the mark: a machine has hundreds of others."""
    try:
        return f"{MARK}={mark}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def namespace(pid: int) -> int | None:
    """Identify the process namespace that a process lives in; None when it has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None


def kill(pid: int) -> None:
    """Kill a process at once; one that has ended already is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def end(mark: str, patience: float = 0.0) -> None:
    """Kill every process with the mark that has not left by itself within `patience` seconds.

    A process is held by a descriptor while its mark is looked at, so that a process id which is
    given to somebody else in between is never the one that gets the signal.
    """
    deadline = time.monotonic() + patience
    while (left := marked(mark)) and time.monotonic() < deadline + 5:
        if time.monotonic() > deadline:
            for process in left:
                _kill_exactly(process)
        time.sleep(0.01)


def _kill_exactly(process: Process) -> None:
    try:
        held = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if _read(process.pid) == process:
            signal.pidfd_send_signal(held, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(held)


def _read(pid: int) -> Process | None:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return None
    pairs = (word.partition("=")[::2] for word in environment.split("\0"))
    return Process(pid, tuple(argv.split("\0")[:-1]), dict(pairs))


def last_line(text: str) -> str:
    """Pick the last line that says something, without a terminal's colours."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no message"
