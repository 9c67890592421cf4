"""This machine: who listens on its ports, and what of ours runs on it."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

HIGHEST = 65535

PROC = Path("/proc")  # Linux; macOS has none

LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def has_aes() -> bool:
    """Tell whether this processor has instructions for AES; each of a Mac of today has."""
    cpuinfo = PROC / "cpuinfo"
    return not cpuinfo.exists() or "aes" in cpuinfo.read_text().split()


def is_taken(port: int) -> bool:
    """Tell whether another program of this machine would get what is meant for localhost:PORT."""
    # Clients may try ::1 first, so a listener there is in the way as well.
    if any(_accepts(family, address, port) for family, address in LOOPBACK):
        return True
    with socket.socket() as probe:
        # A connection that has just ended is no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _accepts(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        with socket.socket(family) as probe:
            probe.settimeout(1)
            return probe.connect_ex((address, port)) == 0
    except OSError:  # no IPv6 here
        return False


def next_free(port: int) -> int | None:
    """Return the first free port from this one on, or None."""
    return next((free for free in range(port, HIGHEST + 1) if not is_taken(free)), None)


def owner(port: int) -> tuple[str, int | None] | None:
    """Name the program that listens on a port and its process id; None where nobody can tell.

    Another user's program is named by its user, without a process id.
    """
    return _owner_by_proc(port) if PROC.is_dir() else _owner_by_lsof(port)


def _owner_by_proc(port: int) -> tuple[str, int | None] | None:
    listeners = dict(_listeners(port))  # inode -> uid
    for entry in PROC.iterdir():
        if entry.name.isdigit() and _holds(entry, set(listeners)):
            with suppress(OSError):
                return (entry / "comm").read_text().strip(), int(entry.name)
    for uid in listeners.values():
        return f"a program of {_user(uid)}'s", None
    return None


def _listeners(port: int) -> Iterator[tuple[str, int]]:
    """Read inode and user of every socket that listens on a port: proc(5), /proc/net/tcp."""
    for table in (PROC / "net/tcp", PROC / "net/tcp6"):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, _, state, _, _, _, uid, _, inode, *_ = line.split()
            if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                yield inode, int(uid)


def _holds(process: Path, inodes: set[str]) -> bool:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    try:
        return any(_target(entry) in wanted for entry in (process / "fd").iterdir())
    except OSError:  # it has ended, or is another user's
        return False


def _target(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except OSError:  # closed since it was listed: the process may still hold others
        return ""


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _owner_by_lsof(port: int) -> tuple[str, int | None] | None:
    words = ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"]
    try:
        said = subprocess.run(words, check=False, capture_output=True, text=True, timeout=10).stdout
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    fields = {line[:1]: line[1:] for line in said.splitlines()}
    return (fields["c"], int(fields["p"])) if {"c", "p"} <= fields.keys() else None


@dataclass(frozen=True)
class Process:
    """A process of this user's; `group` is its process group, `command` its words in one line."""

    pid: int
    group: int
    stopped: bool
    command: str

    def send(self, number: signal.Signals) -> None:
        """Signal it, with the group that it leads; one that has ended already is fine."""
        with suppress(ProcessLookupError):
            if self.group == self.pid:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)


def processes() -> list[Process]:
    """List what runs as this user. What runs is the record: a noted process id may be reused."""
    return list(_by_proc() if PROC.is_dir() else _by_ps())


def _by_proc() -> Iterator[Process]:
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != os.getuid():
                continue
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            # proc(5): the name stands in parentheses, and may itself hold some.
            state, _, group, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        words = command.rstrip("\0").replace("\0", " ")
        if words:  # one that has ended but was not waited for has none
            yield Process(int(entry.name), int(group), state in "Tt", words)


def _by_ps() -> Iterator[Process]:
    words = ["ps", "-xww", "-o", "pid=,pgid=,stat=,command="]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        pid, group, state, command = [*line.split(None, 3), "", "", "", ""][:4]
        if command and not state.startswith("Z"):
            yield Process(int(pid), int(group), state.startswith("T"), command)
