"""Look at a balancer and at the servers behind it, as it sees them.

Runs on the balancer's host. Arguments: unit, and the servers as host:port. Reports {"block": our
part of its configuration, "active": whether it runs, "servers": {server: status of /usable}}; a
status is null where nobody answers.
"""

import http.client
import json
import re
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


def main(unit, *servers):
    with ThreadPoolExecutor(len(servers)) as pool:
        found = dict(zip(servers, pool.map(status, servers), strict=True))
    print("@report " + json.dumps({"block": block(unit), "active": active(), "servers": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
