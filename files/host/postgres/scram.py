"""Say what PostgreSQL must check a password with; nothing where what it has fits already.

Runs on the host; on standard input is what PostgreSQL has now, or nothing. The form is
SCRAM-SHA-256$<rounds>:<salt>$<stored key>:<server key> (RFC 5803, as PostgreSQL's pg_authid keeps
it).
"""

import base64
import dataclasses
import hashlib
import hmac
import re
import secrets
import sys

import talk

ROUNDS = 4096  # PostgreSQL's own


@dataclasses.dataclass(frozen=True)
class Request:
    """The password to check."""

    password: str


def verifier(password, salt, rounds):
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    keyed = lambda text: hmac.digest(salted, text, "sha256")  # noqa: E731
    stored = hashlib.sha256(keyed(b"Client Key")).digest()
    parts = salt, stored, keyed(b"Server Key")
    salt, stored, server = (base64.b64encode(part).decode() for part in parts)
    return f"SCRAM-SHA-256${rounds}:{salt}${stored}:{server}"


password = talk.request(Request).password
present = sys.stdin.read().strip()
found = re.match(r"SCRAM-SHA-256\$(\d+):([^$]+)\$", present)
if not found or present != verifier(password, base64.b64decode(found[2]), int(found[1])):
    print(verifier(password, secrets.token_bytes(16), ROUNDS))
