"""Look at a balancer and at the servers behind it, as it sees them.

Runs on the balancer's host. Reports {"block": our part of its configuration, "active": whether it
runs, "servers": {server: status of /usable}}; a status is null where nobody answers.
"""

import dataclasses
import http.client
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import talk

FILE = "/etc/haproxy/haproxy.cfg"
PATIENCE = 5  # seconds


@dataclasses.dataclass(frozen=True)
class Request:
    """The servers' unit, which our part is named for, and their addresses as host:port."""

    unit: str
    servers: list


def block(unit):
    try:
        with open(FILE) as stream:
            text = stream.read()
    except OSError:
        return ""
    unit = re.escape(unit)
    found = re.search(f"^# {unit}: by balancer.*^# {unit}: end\n", text, re.M | re.S)
    return found[0] if found else ""


def active():
    words = ["systemctl", "is-active", "--quiet", "haproxy.service"]
    return subprocess.run(words, check=False).returncode == 0


def status(place):
    """Return what a server answers to /usable."""
    connection = http.client.HTTPConnection(place, timeout=PATIENCE)
    try:
        connection.request("GET", "/usable")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


asked = talk.request(Request)
with ThreadPoolExecutor(len(asked.servers)) as pool:
    found = dict(zip(asked.servers, pool.map(status, asked.servers), strict=True))
talk.report({"block": block(asked.unit), "active": active(), "servers": found})
