"""An instance's role whose keys end after seconds, and a store that refuses those that have ended.

Before the lab's moto, which takes whatever key it is given: what a host's programs ask is judged by
its key and passed on; only what they ask their instance about a role is answered here.
"""

from __future__ import annotations

import http.client
import json
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from lab import Lab

ROLE = "/latest/meta-data/iam/security-credentials/"  # EC2 User Guide, "Retrieve credentials"
NAME = "short-lived"

UNDER_WAY = 2  # seconds

# Of one connection alone, RFC 9110; what was expected was answered by this server.
OF_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


@dataclass(frozen=True)
class Lease:
    """One set of keys, which the store takes until then."""

    until: float
    key: str = field(default_factory=lambda: "ASIA" + secrets.token_hex(8).upper())
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def left(self) -> float:
        return self.until - time.time()

    def told(self) -> dict[str, str]:
        """Return it as an instance's metadata say it; what is under way then is still taken."""
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.until - UNDER_WAY))
        return {
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": self.key,
            "SecretAccessKey": "secret-of-" + self.key, "Token": self.token, "Expiration": end,
        }  # fmt: skip


@dataclass(frozen=True)
class Use:
    """A request to the store: with which keys, to what, and whether it was refused."""

    lease: Lease
    path: str
    refused: bool


class Lender:
    """Lends keys for `life` seconds, others as soon as less than `least` seconds are left.

    AWS does the same with hours, and with 5 minutes (EC2 User Guide, "Security credentials").
    """

    def __init__(self, life: int, least: int) -> None:
        self.life, self.least = life, least
        self.leases: dict[str, Lease] = {}
        self.uses: list[Use] = []
        self.stuck = False  # whether the same keys are lent for ever
        self._lock = threading.Lock()

    def lend(self) -> Lease:
        with self._lock:
            newest = next(reversed(self.leases.values()), None)
            if newest is None or (newest.left < self.least and not self.stuck):
                newest = Lease(int(time.time()) + self.life)
                self.leases[newest.key] = newest
            return newest

    def judge(self, authorization: str, token: str, path: str) -> str:
        """Return the code of the store's refusal, '' where it takes the keys."""
        found = re.search(r"Credential=([^/]+)/", authorization)
        lease = self.leases.get(found[1]) if found else None
        if lease is None:
            return "InvalidAccessKeyId"
        if token != lease.token:
            return "InvalidToken"
        ended = lease.left <= 0
        self.uses.append(Use(lease, path, ended))
        return "ExpiredToken" if ended else ""

    def used(self, part: str) -> list[Lease]:
        """Return the keys that were used for paths with this part."""
        return list(dict.fromkeys(use.lease for use in list(self.uses) if part in use.path))

    def ended(self, part: str) -> int:
        """Count those of them that have ended since."""
        return len([lease for lease in self.used(part) if lease.left <= 0])

    def refused(self) -> list[Use]:
        return [use for use in list(self.uses) if use.refused]


@contextmanager
def lending(lab: Lab, life: int, least: int) -> Iterator[tuple[Lender, str]]:
    """Lend such a role to the hosts where EC2 does; gives who lends it, and the store's URL."""
    store, lender = urlsplit(lab.endpoint), Lender(life, least)
    assert store.hostname

    class Answering(Passing):
        behind, by = (store.hostname or "", store.port or 80), lender

    with ThreadingHTTPServer((store.hostname, 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"{store.hostname}:{server.server_port}"
        lab.rehearsal.network.lend_role(place)
        try:
            yield lender, f"http://{place}"
        finally:
            lab.rehearsal.network.lend_role(None)
            server.shutdown()


class Passing(BaseHTTPRequestHandler):
    """Answers for the role itself, and passes the rest on to who is behind."""

    protocol_version = "HTTP/1.1"
    behind: tuple[str, int]
    by: Lender

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.rstrip("/") == ROLE.rstrip("/"):
            self.say(200, NAME.encode())
        elif self.path == ROLE + NAME:
            self.say(200, json.dumps(self.by.lend().told()).encode())
        elif self.path.startswith("/latest/"):
            self.pass_on(body)
        elif code := self.by.judge(
            self.headers.get("Authorization") or "",
            self.headers.get("X-Amz-Security-Token") or "",
            self.path,
        ):
            said = f"<Error><Code>{code}</Code><Message>made to be refused</Message></Error>"
            self.say(400 if code == "ExpiredToken" else 403, said.encode())
        else:
            self.pass_on(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def pass_on(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(*self.behind, timeout=60)
        try:
            connection.request(self.command, self.path, body or None, kept(self.headers.items()))
            answer = connection.getresponse()
            self.say(answer.status, answer.read(), kept(answer.getheaders()),
                     answer.getheader("Content-Length"))  # fmt: skip
        finally:
            connection.close()

    def say(
        self, status: int, body: bytes, headers: dict[str, str] | None = None,
        length: str | None = None,
    ) -> None:  # fmt: skip
        """Send an answer; a HEAD's has no body but the length of one."""
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", (length if self.command == "HEAD" else None)
                         or str(len(body)))  # fmt: skip
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def log_message(self, *_: object) -> None:
        pass


def kept(headers: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> dict[str, str]:
    """Return the headers that go on to the other side."""
    return {name: value for name, value in headers if name.lower() not in OF_A_CONNECTION}
