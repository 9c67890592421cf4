"""How this clone reaches a server's host by SSH: an entry of its own, and the host's key.

The entry's name is the server's unit. The key is kept under the instance's id, so that it holds
whatever address the instance has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import paths
from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = re.compile(r"^Host (?P<alias>\S+)\n(?:[ \t]+\S.*\n)+", re.M)


@dataclass(frozen=True)
class Entry:
    """One host: `identity` is a private key's file, where it is not one of the operator's own.

    With a `proxy_command` that alone leads there, whatever the hostname is.
    """

    alias: str
    hostname: str
    user: str
    instance: str
    identity: Path | None = None
    proxy_command: str | None = None

    def text(self) -> str:
        """Spell it for OpenSSH: exactly this host, by exactly this key."""
        for word in (self.alias, self.hostname, self.user, self.instance):
            refuse_unlike_a_word(word)
        lines = [
            f"Host {self.alias}",
            f"    HostName {self.hostname}",
            f"    User {self.user}",
            f"    HostKeyAlias {self.instance}",
            f"    UserKnownHostsFile {_quoted(known_hosts())}",
            "    GlobalKnownHostsFile /dev/null",
            "    StrictHostKeyChecking yes",
            "    UpdateHostKeys no",
        ]
        if self.identity:
            lines += [f"    IdentityFile {_quoted(self.identity)}", "    IdentitiesOnly yes"]
        if self.proxy_command:
            lines.append(f"    ProxyCommand {self.proxy_command}")
        return "".join(f"{line}\n" for line in lines)


def refuse_unlike_a_word(text: str) -> None:
    """Raise Exit for what would be more than one word of ssh's configuration, or a line more."""
    if not re.fullmatch(r"[^\s\"#%]+", text) or not text.isprintable():
        raise Exit(f"{text!r} cannot stand in ssh's configuration. Nothing was written there.")


def put_back(alias: str, text: str | None) -> None:
    """Have an entry be as it was, or have none of that name."""
    found = {name: block for name, block in blocks().items() if name != alias}
    kept = {**found, alias: text} if text else found
    _put(paths.provisioned() / "ssh_config", "".join(kept.values()))


def _quoted(path: Path) -> str:
    # ssh_config(5): a path may hold spaces within quotes; % begins a token.
    return f'"{str(path).replace("%", "%%")}"'


def known_hosts() -> Path:
    """Name the file with the keys of these hosts."""
    return paths.provisioned() / "known_hosts"


def write(entry: Entry) -> None:
    """Add an entry, or put it where the one of the same name is."""
    found = blocks()
    _put(paths.provisioned() / "ssh_config", "".join({**found, entry.alias: entry.text()}.values()))


def blocks() -> dict[str, str]:
    """Return the entries of this clone, by their names."""
    file = paths.provisioned() / "ssh_config"
    text = file.read_text() if file.is_file() else ""
    return {found["alias"]: found[0] for found in BLOCK.finditer(text)}


def of_instance(instance: str) -> list[str]:
    """Name the entries that lead to an instance."""
    mark = f"    HostKeyAlias {instance}\n"
    return [alias for alias, text in blocks().items() if mark in text]


def moved(instance: str, hostname: str) -> list[str]:
    """Have the entries of an instance lead to another address, and name them.

    Those through Session Manager lead to the instance itself, whatever its address is.
    """
    refuse_unlike_a_word(hostname)
    found, aliases = blocks(), of_instance(instance)
    for alias in aliases:
        if f"    HostName {instance}\n" in found[alias]:
            continue
        found[alias] = re.sub(
            r"(?m)^(    HostName ).*$", lambda line: line[1] + hostname, found[alias]
        )
    if aliases:
        _put(paths.provisioned() / "ssh_config", "".join(found.values()))
    return aliases


def forget(instance: str) -> list[str]:
    """Take the entries of an instance away with the host's key, and name them."""
    found, aliases = blocks(), of_instance(instance)
    if aliases:
        kept = (text for alias, text in found.items() if alias not in aliases)
        _put(paths.provisioned() / "ssh_config", "".join(kept))
    if is_trusted(instance):
        _put(known_hosts(), "".join(f"{line}\n" for line in _without(instance)))
    return aliases


def trust(instance: str, key: str) -> None:
    """Keep a host's key (kind and base64) under its instance's id, and no other there."""
    _put(known_hosts(), "".join(f"{line}\n" for line in (*_without(instance), f"{instance} {key}")))


def is_trusted(instance: str) -> bool:
    """Tell whether the key of a host is known."""
    return _lines() != _without(instance)


def _without(instance: str) -> list[str]:
    return [line for line in _lines() if not line.startswith(f"{instance} ")]


def _lines() -> list[str]:
    return known_hosts().read_text().splitlines() if known_hosts().is_file() else []


def _put(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.touch(mode=0o600)
    part.write_text(text)
    part.replace(file)
