"""Ask OpenSSH what a host alias means, so that `-H alias` is what `ssh alias` would be.

`ssh -G` knows Include, Match, ProxyJump and every default; Paramiko's own parser does not.
Hosts that the project made itself stand in a configuration of this clone, consulted first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from invoke import Exit

from tasks.engine import paths
from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

AT_ONCE = 8  # hosts that OpenSSH is asked about at the same time


@dataclass(frozen=True)
class Target:
    """What OpenSSH makes of one alias."""

    alias: str
    hostname: str
    user: str
    port: int
    identities: tuple[str, ...]
    identities_only: bool
    identity_agent: str | None
    known_hosts: tuple[Path, ...]
    global_known_hosts: tuple[Path, ...]
    key_alias: str | None
    checking: str
    hash_known_hosts: bool
    proxy_command: str | None
    connect_timeout: int | None
    ciphers: tuple[str, ...]  # in the order in which they are offered

    @property
    def key_name(self) -> str:
        """Name the host the way known_hosts does."""
        name = self.key_alias or self.hostname
        return name if self.key_alias or self.port == 22 else f"[{name}]:{self.port}"

    @property
    def identity(self) -> str:
        """Name this very machine: an alias such as `sandbox` may mean another one elsewhere."""
        return self.key_alias or self.alias


class Client:
    """The OpenSSH client with one configuration: the clone's own hosts, then the operator's."""

    def __init__(self, config_file: str | None = None, identities: tuple[str, ...] = ()) -> None:
        if config_file and not Path(config_file).expanduser().is_file():
            raise Exit(f"No ssh configuration at {config_file}. Give -S an existing file.")
        self.config_file = config_file
        self._identities = identities

    def words(self) -> list[str]:
        """Spell the start of every ssh command line of ours; raises Exit where there is no ssh."""
        if shutil.which("ssh") is None:
            raise Exit("OpenSSH's client is missing. Install it: apt-get install openssh-client")
        words = ["ssh"]
        if own := paths.ssh_configs():
            words += ["-F", str(self._composed(own))]
        elif self.config_file:
            words += ["-F", _absolute(self.config_file)]
        for identity in self._identities:
            words += ["-i", identity]
        return words

    def _composed(self, own: list[Path]) -> Path:
        theirs = (
            [Path(self.config_file).expanduser().resolve()]
            if self.config_file
            else [Path.home() / ".ssh/config", Path("/etc/ssh/ssh_config")]
        )
        # OpenSSH takes the first value it finds: what was named by -S must win over a host of ours.
        order = [*theirs, *own] if self.config_file else [*own, *theirs]
        text = "".join(f'Include "{path}"\n' for path in order)
        # One file per content: two chains with other -S files do not rewrite each other's.
        file = own[0].with_name(f"ssh_config.{abs(hash_of(text)):x}")
        if not file.is_file() or file.read_text() != text:
            part = file.with_name(f"{file.name}.{os.getpid()}")
            part.write_text(text)
            part.replace(file)
        return file

    def to(self, host: str, *options: str) -> list[str]:
        """Spell the ssh command line to an alias, `user@host` or `host:port`.

        Raises Exit where that names no host.
        """
        if not spelt(host).name or host.startswith("-"):
            raise Exit(f"{host!r} is not a host. Name one with -H, such as -H ubuntu@1.2.3.4.")
        return [*self.words(), *options, *destination(host)]

    def target(self, host: str) -> Target:
        """Return what OpenSSH makes of an alias, `user@host` or `host:port`.

        Raises Exit where that names no host, and where OpenSSH itself refuses its configuration.
        """
        (target,) = self.targets([host])
        return target

    def targets(self, hosts: Iterable[str]) -> Iterator[Target]:
        """Yield what OpenSSH makes of hosts, in their order; raises Exit as `target` does.

        Each is a process of 4 ms: several are asked at once, and none goes on without us.
        """
        asked: deque[tuple[str, subprocess.Popen[str]]] = deque()
        try:
            for host in hosts:
                asked.append((host, self._asked(host)))
                if len(asked) == AT_ONCE:
                    yield self._answer(*asked[0])
                    asked.popleft()
            while asked:
                yield self._answer(*asked[0])
                asked.popleft()
        finally:
            for _, process in asked:
                with process:
                    process.kill()

    def _asked(self, host: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.to(host, "-G"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _answer(self, host: str, process: subprocess.Popen[str]) -> Target:
        out, err = process.communicate()
        if process.returncode:
            reason = (err.strip().splitlines() or ["no reason given"])[-1]
            raise Exit(f"OpenSSH does not understand host {host!r}: {reason}")
        return understood(host, out, self.words())


def understood(host: str, text: str, words: list[str]) -> Target:
    """Return what `ssh -G` printed; `words` start the command that reaches a jump host."""
    options: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        options.setdefault(key.lower(), []).append(value)

    def one(key: str) -> str | None:
        value = options.get(key, [""])[0]
        return None if value in ("", "none") else value

    port = int(one("port") or 22)
    hostname = one("hostname") or host
    user = one("user") or ""
    timeout = one("connecttimeout")
    proxy = None
    if command := one("proxycommand"):
        tokens = {"%": "%", "h": hostname, "n": _bare(host), "p": str(port), "r": user}
        proxy = _filled_in(command, tokens)
    elif jump := one("proxyjump"):
        proxy = _through(jump, f"[{hostname}]:{port}", words)
    return Target(
        alias=host,
        hostname=hostname,
        user=user,
        port=port,
        identities=tuple(
            str(path)
            for path in (Path(name).expanduser() for name in options.get("identityfile", []))
            if path.is_file()
        ),
        identities_only=one("identitiesonly") == "yes",
        identity_agent=options.get("identityagent", [None])[0],
        known_hosts=_files(one("userknownhostsfile")),
        global_known_hosts=_files(one("globalknownhostsfile")),
        key_alias=one("hostkeyalias"),
        checking=one("stricthostkeychecking") or "ask",
        hash_known_hosts=one("hashknownhosts") == "yes",
        proxy_command=proxy,
        connect_timeout=int(timeout) if timeout and timeout.isdigit() else None,
        ciphers=tuple((one("ciphers") or "").split(",")),
    )


def _filled_in(command: str, tokens: Mapping[str, str]) -> str:
    """Fill in what ProxyCommand accepts, see ssh_config(5), "TOKENS"."""
    return re.sub("%([%hnpr])", lambda token: tokens[token[1]], command)


def _through(jump: str, there: str, words: list[str]) -> str:
    """Spell ProxyJump as the command that OpenSSH itself would run: it checks the hops' keys."""
    import shlex

    *hops, last = jump.split(",")
    through = ["-J", ",".join(hops)] if hops else []
    to = destination(last.removeprefix("ssh://"))
    return shlex.join([*words, *through, "-W", there, *to])


def key_files(named: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the paths of the keys that -i or `key_filename:` names: none, one or several."""
    names = [named] if isinstance(named, str) else named or ()
    return tuple(_absolute(name) for name in names if name)


def _absolute(path: str) -> str:
    """Spell a path for a program that runs elsewhere, and later."""
    return str(Path(path).expanduser().absolute())


def _bare(host: str) -> str:
    return spelt(host).name


class Spelt(NamedTuple):
    """The parts of `user@host:port`; what is not said is empty."""

    user: str
    name: str
    port: str


def spelt(host: str) -> Spelt:
    """Take `user@host:port` apart; an address of IPv6, full of colons, has no port here."""
    user, _, rest = host.rpartition("@")
    name, _, port = rest.partition(":") if rest.count(":") == 1 else (rest, "", "")
    return Spelt(user, name, port)


def destination(host: str) -> list[str]:
    """Spell a host for ssh's command line, which knows a port only as an option."""
    user, name, port = spelt(host)
    return [*(["-p", port] if port else []), "--", f"{user}@{name}" if user else name]


def _files(text: str | None) -> tuple[Path, ...]:
    """Split a list of paths that `ssh -G` prints unquoted, although they may hold spaces."""
    found: list[Path] = []
    rest = (text or "").split(" ")
    while rest and rest != [""]:
        for end in range(len(rest), 0, -1):
            path = Path(" ".join(rest[:end])).expanduser()
            if path.exists() or end == 1:
                found.append(path)
                rest = rest[end:]
                break
    return tuple(found)


def hash_of(text: str) -> int:
    """Number a text the same way in every process."""
    import zlib

    return zlib.crc32(text.encode())
