"""A short flood, from the host itself: it ends by itself, whatever the server does.

    python flood.py < JOB

JOB: {"address", "port", "tls": bool, "login": "name:password" or "", "kind", "path", "count",
"seconds"}. Kinds: `body` (900 MB at once), `idle` (connections that say nothing), `heads` and
`bodies` (a byte a second). Prints how many of its connections were answered, with which status.
"""

import base64
import json
import re
import select
import socket
import ssl
import sys
import time
from collections import Counter
from contextlib import suppress

LARGE, PART = 900_000_000, bytes(1_000_000)

# Made once: to read the machine's authorities takes longer than a handshake.
ANYBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANYBODY.check_hostname, ANYBODY.verify_mode = False, ssl.CERT_NONE

WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def opened(job):
    connection = socket.create_connection((job["address"], job["port"]), 10)
    if job["tls"]:
        connection = ANYBODY.wrap_socket(connection, server_hostname=job.get("name"))
    return connection


def head(job, size):
    lines = [f"POST {job['path']} HTTP/1.1", f"Host: {job.get('name') or 'localhost'}"]
    if job["login"]:
        lines.append("Authorization: Basic " + base64.b64encode(job["login"].encode()).decode())
    kind = "Content-Type: application/json"
    return "\r\n".join([*lines, kind, f"Content-Length: {size}", "", ""]).encode()


def status(text):
    found = re.match(rb"HTTP/1\.1 (\d+)", text)
    return found[1].decode() if found else "closed"


def large(job):
    """Send one body as fast as it goes, until it is sent or nobody takes it."""
    with opened(job) as connection:
        sent, text = 0, b""
        with suppress(OSError):
            connection.sendall(head(job, LARGE))
            while sent < LARGE:
                connection.sendall(PART)
                sent += len(PART)
        with suppress(OSError):
            text = connection.recv(1000)
    return Counter({status(text): 1})


def slow(job):
    """Hold connections, each with a byte a second or none, for the given time."""
    start = {"idle": b"", "heads": b"", "bodies": head(job, 1000)}[job["kind"]]
    drip = {"idle": b"", "heads": head(job, 1000), "bodies": b"x" * 1000}[job["kind"]]
    answers, held = Counter(), []
    for _ in range(job["count"]):
        try:
            connection = opened(job)
            connection.sendall(start)
            # Over TLS what can be read may be none of the answer, and would be waited for.
            connection.setblocking(False)
            held.append(connection)
        except OSError:
            answers["refused"] += 1
    ends = time.monotonic() + job["seconds"]
    number = 0
    while held and time.monotonic() < ends:
        ready, _, _ = select.select(held, [], [], 0)
        for connection in ready:
            try:
                answers[status(connection.recv(1000))] += 1
            except WAITS:
                continue
            except OSError:
                answers["closed"] += 1
            connection.close()
            held.remove(connection)
        for connection in list(held):
            try:
                connection.sendall(drip[number : number + 1])
            except WAITS:
                continue
            except OSError:
                answers["closed"] += 1
                held.remove(connection)
        number += 1
        time.sleep(1)
    answers["held"] = len(held)
    return answers


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps(large(asked) if asked["kind"] == "body" else slow(asked)))
