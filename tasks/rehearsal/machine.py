"""A rehearsal host as its operator names it and OpenSSH knows it."""

from __future__ import annotations

from pathlib import Path

from tasks.engine.records import dataclass


@dataclass(frozen=True)
class Machine:
    """A rehearsal host. `pid` is its systemd as this machine sees it, None when it is off."""

    name: str
    alias: str
    address: str
    suite: str
    pid: int | None
    root: Path

    @property
    def booted(self) -> bool:
        """Tell whether it runs."""
        return self.pid is not None

    @property
    def number(self) -> int:
        """Count from 1 in its group."""
        return int(self.name.rpartition("-")[2])


def alias(number: int) -> str:
    """Name a host the way an operator does: sandbox, sandbox-2, sandbox-3, …"""
    return "sandbox" if number == 1 else f"sandbox-{number}"


def ssh_config(machines: list[Machine], key: Path, known_hosts: Path) -> str:
    """Spell an OpenSSH configuration that accepts exactly these hosts, by exactly this key."""
    return "\n".join(
        f"""Host {machine.alias}
    HostName {machine.address}
    User ubuntu
    IdentityFile {_quoted(key)}
    IdentitiesOnly yes
    IdentityAgent none
    HostKeyAlias {machine.name}
    UserKnownHostsFile {_quoted(known_hosts)}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
"""
        for machine in machines
    )


def _quoted(path: Path) -> str:
    # ssh_config(5): a path may hold spaces within quotes; % begins a token.
    return f'"{str(path).replace("%", "%%")}"'
