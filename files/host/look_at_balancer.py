"""Look at a balancer and at the servers behind it, as it sees them.

Runs on the balancer's host. Arguments: unit, its door (host:port, with TLS where the third is yes),
and the servers as host:port. Reports {"block": our part of its configuration, "active": whether it
runs, "door": status of /usable there, "servers": {server: status}}; a status is null where nobody
answers.
"""

import http.client
import json
import re
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

FILE = "/etc/haproxy/haproxy.cfg"
PATIENCE = 5  # seconds


def block(unit):
    try:
        with open(FILE) as stream:
            text = stream.read()
    except OSError:
        return ""
    unit = re.escape(unit)
    found = re.search("^# %s: by balancer.*^# %s: end\n" % (unit, unit), text, re.M | re.S)
    return found[0] if found else ""


def active():
    words = ["systemctl", "is-active", "--quiet", "haproxy.service"]
    return subprocess.run(words, check=False).returncode == 0


def status(place, tls=False):
    """Return what a place answers to /usable."""
    # Whose certificate it is does not matter on the way to oneself.
    options = {"context": ssl._create_unverified_context()} if tls else {}
    kind = http.client.HTTPSConnection if tls else http.client.HTTPConnection
    connection = kind(place, timeout=PATIENCE, **options)
    try:
        connection.request("GET", "/usable")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def main(unit, door, tls, *servers):
    with ThreadPoolExecutor(1 + len(servers)) as pool:
        asked = pool.submit(status, door, tls == "yes")
        found = dict(zip(servers, pool.map(status, servers), strict=True))
    report = {"block": block(unit), "active": active(), "door": asked.result(), "servers": found}
    print("@report " + json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
