"""Look at both SQLite databases without changing them: owner, lock, integrity, schema, users.

Runs on the host with whatever Python it has. Reports a `database` each, `admins` and `direct`, and
`unanswered` where one of these cannot be asked.
"""

import dataclasses
import hashlib
import os
import pwd
import sqlite3
import sys
import time

import databases
import talk
from talk import report


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's folder, and how many seconds may be spent."""

    root: str
    patience: float


asked = talk.request(Request)
root = asked.root
deadline = time.monotonic() + asked.patience
# What guides and former MLflow releases use; MLflow's own default was "password", then
# "password1234".
WELL_KNOWN = ("password1234", "password", "your-password")
# The bytes that SQLite locks (its "File Locking" and "WAL-mode File Format" documents).
PENDING, WAL_WRITE = 0x40000000, 120


def owner(path):
    uid = os.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def strangers(path):
    """List the database's files, and who owns them, where that is not the login user."""
    files = [path + end for end in ("", "-wal", "-shm", "-journal") if os.path.exists(path + end)]
    return {file: owner(file) for file in files if os.stat(file).st_uid != os.getuid()}


def opened(path):
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)
    database.set_progress_handler(lambda: time.monotonic() > deadline, 10000)
    return database


def damage(path):
    """Say what is wrong with a database, None if nothing is, or "unknown" if there is no time."""
    try:
        verdict = opened(path).execute("pragma quick_check(1)").fetchone()[0]
        return None if verdict == "ok" else verdict.replace("\n", " ")
    except sqlite3.OperationalError as error:
        # Locked, or out of time: neither is damage.
        return "unknown" if "interrupted" in str(error) or "locked" in str(error) else str(error)
    except sqlite3.DatabaseError as error:
        return str(error)


def revision(path):
    """Compare the schema's revision with those that the installed MLflow knows."""
    name = os.path.basename(path)
    try:
        found = databases.revision(opened(path), name)
    except (sqlite3.Error, databases.Damaged):
        return None
    known, newest = databases.revisions(os.path.join(root, "venv"), name)
    return {"found": found, "known": found in known, "newest": found == newest} if known else None


def writers(path):
    """Find the processes that hold a database's write lock: process id to state and name."""
    inodes = {
        str(os.stat(file).st_ino): byte
        for file, byte in ((path, None), (path + "-shm", WAL_WRITE))
        if os.path.exists(file)
    }
    found = {}
    with open("/proc/locks") as stream:
        for line in stream:
            words = line.split()
            if "->" in words or words[1] != "POSIX" or words[3] != "WRITE":
                continue
            inode = words[5].split(":")[-1]
            if inode not in inodes:
                continue
            start, byte = int(words[6]), inodes[inode]
            end = sys.maxsize if words[7] == "EOF" else int(words[7])
            if start >= PENDING if byte is None else start <= byte <= end:
                found[int(words[4])] = program(int(words[4]))
    return found


def program(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            name, rest = stream.read().rsplit(")", 1)
        with open(f"/proc/{pid}/cgroup") as stream:
            unit = stream.read().strip().split("/")[-1]
    except OSError:
        return None
    return {"name": name.split("(", 1)[1], "state": rest.split()[0], "unit": unit}


def lasting_writers(paths):
    """Find who holds a write lock in three looks within a second: a transaction is shorter."""
    looks = []
    for pause in (0, 0.4, 0.4):
        time.sleep(pause)
        looks.append({path: writers(path) for path in paths})
    return {
        path: {
            pid: who
            for pid, who in looks[0][path].items()
            if all(pid in look[path] for look in looks)
        }
        for path in paths
    }


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


def users():
    """Count the admins, and name those whose password everybody knows."""
    query = "select username, password_hash from users where is_admin order by id"
    admins = opened(os.path.join(root, "basic_auth.db")).execute(query).fetchall()
    weak = [
        name
        for name, stored in admins
        if time.monotonic() < deadline
        and any(has_password(stored, word) for word in (*WELL_KNOWN, name))
    ]
    report({"count": len(admins), "weak": weak}, key="admins")


def direct_experiments():
    """Tell of experiments whose artifacts clients fetch from S3 themselves."""
    rows = opened(os.path.join(root, "mlflow.db")).execute(
        "select name, artifact_location from experiments where lifecycle_stage = 'active' "
        "and artifact_location like 's3://%' order by experiment_id"
    )
    found = rows.fetchall()
    places = sorted({place.split("/")[2] for _, place in found})
    names = [name for name, _ in found[:3]]
    report({"count": len(found), "names": names, "places": places}, key="direct")


there = [name for name in databases.NAMES if os.path.exists(os.path.join(root, name))]
paths = [os.path.join(root, name) for name in there]
held = lasting_writers(paths)
for path in paths:
    seen = {
        "name": os.path.basename(path),
        "strangers": strangers(path),
        "damage": damage(path),
        "revision": revision(path),
        "writers": held[path],
    }
    report(seen, key="database")
for question in (direct_experiments, users):
    try:
        question()
    except (sqlite3.Error, ValueError) as error:
        report(f"{question.__name__}: {error}", key="unanswered")
