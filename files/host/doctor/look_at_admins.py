"""Count the admins, and find those whose password everybody knows, without changing anything.

Runs on the host, for PostgreSQL in MLflow's environment, else with whatever Python it has. Reports
`admins`: {"count": n, "weak": [names]}; fails where not all were tried in time.
"""

import dataclasses
import hashlib
import os
import sys
import time

import all_users
import databases
import talk

# What guides and former MLflow releases use; MLflow's own default was "password", then
# "password1234".
WELL_KNOWN = ("password1234", "password", "your-password")


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's folder, and how many seconds may be spent."""

    root: str
    patience: float


def has_password(stored, password):
    """Tell whether a hash of Werkzeug's (MLflow keeps no other) is this password's."""
    method, salt, value = stored.split("$", 2)
    kind, *rest = method.split(":")
    if kind == "scrypt":
        n, r, p = (int(part) for part in rest)
        found = hashlib.scrypt(
            password.encode(), salt=salt.encode(), n=n, r=r, p=p, maxmem=132 * n * r * p
        )
    elif kind == "pbkdf2":
        found = hashlib.pbkdf2_hmac(rest[0], password.encode(), salt.encode(), int(rest[1]))
    else:
        return False
    return found.hex() == value


def look(root, patience):
    deadline = time.monotonic() + patience
    rows = all_users.rows(root, "username, password_hash, is_admin")
    admins = [(name, stored) for name, stored, admin in rows if admin]
    weak, tried = [], 0
    for name, stored in admins:
        if time.monotonic() > deadline:
            break
        if any(has_password(stored, word) for word in (*WELL_KNOWN, name)):
            weak.append(name)
        tried += 1
    talk.report({"count": len(admins), "weak": weak}, key="admins")
    if tried < len(admins):
        some = f"the passwords of {tried} of {talk.counted(len(admins), 'admin')}"
        sys.exit(f"only {some} were tried within {patience:g} s")


if __name__ == "__main__":
    asked = talk.request(Request)
    auth = databases.addresses(asked.root)[databases.AUTH]
    if not auth.startswith("postgres") and not os.path.exists(auth[len("sqlite:///") :]):
        sys.exit(f"there is no {databases.AUTH}")
    look(asked.root, asked.patience)
