"""Look at both SQLite databases without changing them: owner, lock, integrity, schema.

Runs on the host with whatever Python it has. Reports a `database` each, and `direct`; fails where
one of them could not be looked at wholly, with why as the last line of its errors.
"""

import dataclasses
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
# The bytes that SQLite locks (its "File Locking" and "WAL-mode File Format" documents).
PENDING, WAL_WRITE = 0x40000000, 120


def user(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def strangers(path):
    """List the database's files, and who owns them, where that is not the login user."""
    files = databases.existing(path, databases.COMPANIONS)
    return {file: user(state.st_uid) for file, state in files if state.st_uid != os.getuid()}


def opened(path):
    database = databases.opened(path, timeout=1)
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
    files = databases.existing(path, ("", "-shm"))
    inodes = {str(state.st_ino): None if file == path else WAL_WRITE for file, state in files}
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


def direct_experiments():
    """Tell of experiments whose artifacts clients fetch from S3 themselves."""
    rows = opened(databases.path(root, databases.TRACKING)).execute(
        "select name, artifact_location from experiments where lifecycle_stage = 'active' "
        "and artifact_location like 's3://%' order by experiment_id"
    )
    found = rows.fetchall()
    places = sorted({place.split("/")[2] for _, place in found})
    names = [name for name, _ in found[:3]]
    report({"count": len(found), "names": names, "places": places}, key="direct")


files = [databases.path(root, name) for name in databases.NAMES]
paths = [file for file in files if os.path.exists(file)]
held = lasting_writers(paths)
unseen = []
for path in paths:
    seen = {
        "name": os.path.basename(path),
        "strangers": strangers(path),
        "damage": damage(path),
        "revision": revision(path),
        "writers": held[path],
    }
    report(seen, key="database")
    # Who holds its lock is a finding; that it is held is no damage.
    if seen["damage"] == "unknown" and not held[path]:
        unseen.append(f"{seen['name']} could not be read to its end within {asked.patience:g} s")
if os.path.exists(databases.path(root, databases.TRACKING)):
    try:
        direct_experiments()
    except sqlite3.Error as error:
        unseen.append(f"{databases.TRACKING}: {error}")
if unseen:
    sys.exit("; ".join(unseen))
