"""Tell whether the host finds out addresses, by names that it has to know.

Runs on the host with whatever Python it has. Reports `unresolved`: the first name that no name
server answered for, and why; nothing where one said yes or no to each.
"""

import dataclasses
import socket

import talk


@dataclasses.dataclass(frozen=True)
class Request:
    """Names of hosts, with blanks between them."""

    names: str


for name in talk.request(Request).names.split():
    try:
        socket.getaddrinfo(name, 443)
    except socket.gaierror as error:
        if error.errno != socket.EAI_NONAME:
            talk.report({"name": name, "why": error.strerror}, key="unresolved")
            break
