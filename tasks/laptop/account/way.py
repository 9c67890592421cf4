"""What only the host itself knows of the account: keys on it, and from where its operator comes."""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.hosts import server_on
from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.engine.server import Server
    from tasks.engine.task import Local

# The ids alone, which are no secret.
KEY_IDS = (
    "sed -n 's/^[[:space:]]*aws_access_key_id[[:space:]]*=[[:space:]]*//p' ~/.aws/credentials "
    "2> /dev/null || true"
)

TRIES = 3  # new connections; a changed rule holds at once, and a lost packet is no refusal


@dataclass(frozen=True)
class Way:
    """How the operator gets to a host: from which address, as the host itself sees it.

    `reach` tells whether a new connection gets through now.
    """

    address: str
    reach: Callable[[], bool]


def host(c: Local, name: str) -> Server | None:
    """Return the server of a host that -H or `hosts:` names; None for an instance's id or nothing.

    Raises Exit for a rehearsal host, which no account knows.
    """
    if not name or re.fullmatch(r"i-[0-9a-f]+", name):
        return None
    settings, _ = c.place()
    server = server_on(name, settings, c.client(), c.config)
    if server.rehearsal:
        raise Exit(f"{name} is a rehearsal host: no AWS account knows it. Name a real one with -H.")
    return server


def key_ids(server: Server) -> list[str]:
    """Return the ids of the lasting keys on the host; raises Exit where it cannot be reached.

    Keys of a session (ASIA…) belong to no user, and end by themselves.
    """
    try:
        lines = server.read(KEY_IDS).split()
    finally:
        server.connection.close()
    return [line for line in dict.fromkeys(lines) if re.fullmatch(r"AKIA[A-Z0-9]{12,124}", line)]


def host_key(server: Server) -> str:
    """Return the key that the host has shown to this connection (kind and base64).

    OpenSSH's known_hosts or the operator have vouched for it before.
    """
    server.connection.open()
    key = server.connection.transport.get_remote_server_key()
    return f"{key.get_name()} {key.get_base64()}"


def way_to(server: Server) -> Way | None:
    """See from which address the operator reaches the host; None where it cannot be reached.

    None as well where a jump host or a proxy lies between: what its address is, is its matter.
    """
    target = server.connection.target
    try:
        words = server.read('echo "$SSH_CONNECTION"').split()
    except Exit:
        return None
    finally:
        server.connection.close()
    if not words or target.proxy_command or not _is_address(words[0]):
        return None
    return Way(words[0], functools.partial(reaches, target.hostname, target.port))


def _is_address(word: str) -> bool:
    """Tell whether a host names one address: a network would open a port to more than that."""
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


def reaches(hostname: str, port: int) -> bool:
    """Tell whether a new connection to the host gets through."""
    for _ in range(TRIES):
        try:
            with socket.create_connection((hostname, port), timeout=5):
                return True
        except OSError:
            continue
    return False
