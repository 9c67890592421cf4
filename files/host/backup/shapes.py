"""What backup writes into the bucket, by its shape: whatever else comes out of it is refused.

Runs on the host, beside the programs that import it. Who may write to the bucket is not who may
log in to the host: nothing of a set becomes a path, a key, a word of a script or a line for people
before it is known to be spelled as backup spells it.
"""

import datetime
import json
import re

# Plain in sets that nobody vouches for; encrypted since there is a key.
CONFIGURATION = "configuration.tar.gz"
SEALED = CONFIGURATION + ".enc"
USERS = "users.json"  # who may log in
# What that archive may hold.
CONFIGURED = (
    "server.env", ".pgpass", ".mlflow_auth_config", "start_mlflow_server.sh", ".server-id", USERS,
)  # fmt: skip
DATABASES = ("mlflow.db", "basic_auth.db")
# What a file of a set may be called, by the kind of its database.
PACKED = {"sqlite": ("{0}.db.zst", "{0}.db.gz"), "postgresql": ("{0}.dump",)}
LARGEST = 64 << 10  # bytes of a manifest; one with 140 tables has 7 KB
ROOM = 8 << 20  # bytes of an archive of configuration, packed or not; 30 000 users have 4 MB
MOST = (1 << 63) - 1  # the largest number that a database holds

# <UTC time>-<server>-<letters>; sets of before have no letters, and the first ones a host's name. A
# stream beside them is none.
ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SERVER = re.compile(r"[0-9a-f]{8}")
STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,99}")
REVISION = re.compile(r"[A-Za-z0-9_]{1,64}")
SHA256 = re.compile(r"[0-9a-f]{64}")
KEY_ID = re.compile(r"[0-9a-f]{8}")
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?\+00:00")


class Odd(Exception):
    """What is not as backup writes it: goes on a sentence that begins with the file's name."""


def server_of(id):
    """Return the id of the server that made a set, or the beginning of a host's name."""
    return id.split("-")[1]


def manifest(body):
    """Return what a manifest says; raises Odd."""
    told = _object(body)
    for name, (fits, needed) in {
        "made": (is_moment, True),
        "host": (spelled(HOST), True),
        "release": (spelled(RELEASE), True),
        "version": (spelled(RELEASE), False),
        "server": (spelled(SERVER), False),
        "id": (spelled(ID), False),
        "environment": (spelled(HOST), False),
        "key": (spelled(KEY_ID), False),
        "signature": (spelled(SHA256), False),
        "databases": (is_object, True),
        "files": (is_list, True),
    }.items():
        _want(told, name, fits, needed)
    if set(told["databases"]) != set(DATABASES):
        raise Odd("names other databases than " + " and ".join(DATABASES))
    for name in DATABASES:
        _database(told["databases"][name])
    for entry in told["files"]:
        _file(entry)
    if len({entry["name"] for entry in told["files"]}) != len(told["files"]):
        raise Odd("names a file twice")
    if len(told["files"]) > len({entry["name"].removesuffix(".enc") for entry in told["files"]}):
        raise Odd("names two archives of configuration")
    return told


def note(body):
    """Return what the note of a verification says; raises Odd."""
    told = _object(body)
    _want(told, "at", is_moment)
    for name, shape in {"id": ID, "of": SHA256, "key": KEY_ID, "signature": SHA256}.items():
        _want(told, name, spelled(shape), needed=False)
    return told


def missing(told):
    """Return what a set of a manifest lacks to be restored, or None."""
    present = {entry["name"] for entry in told["files"]}
    for name in DATABASES:
        kind = told["databases"][name].get("kind", "sqlite")
        if not present & {form.format(name[: -len(".db")]) for form in PACKED[kind]}:
            return name
    return None if present & {CONFIGURATION, SEALED} else CONFIGURATION


def _database(seen):
    if not isinstance(seen, dict):
        raise Odd("says nothing of a database")
    for name, fits in {
        "kind": lambda value: isinstance(value, str) and value in PACKED,
        "revision": spelled(REVISION),
        "revisions": lambda value: is_list(value) and all(map(spelled(REVISION), value)),
        "count": is_number,
        "counts": _are_counts,
        "newest_run": lambda value: value is None or (type(value) is int and abs(value) <= MOST),
        "bytes": is_number,
    }.items():
        _want(seen, name, fits, needed=False)


def _are_counts(value):
    return is_object(value) and all(
        len(table) <= 128 and table.isprintable() and is_number(rows)
        for table, rows in value.items()
    )


def _file(entry):
    if not isinstance(entry, dict):
        raise Odd("says nothing of a file")
    name = entry.get("name")
    if not isinstance(name, str) or name not in NAMES:
        raise Odd(f"names the file {quoted(name)}, which is none of a backup's")
    _want(entry, "bytes", is_number)
    _want(entry, "sha256", spelled(SHA256))
    _want(entry, "etag", lambda value: isinstance(value, str) and len(value) <= 200, False)
    if name in (CONFIGURATION, SEALED) and entry["bytes"] > ROOM:
        raise Odd(f"says {entry['bytes']} bytes of {name}")


NAMES = {CONFIGURATION, SEALED} | {
    form.format(name[: -len(".db")])
    for forms in PACKED.values()
    for form in forms
    for name in DATABASES
}


def _object(body):
    """Read a small JSON object; raises Odd."""
    if len(body) > LARGEST:
        raise Odd(f"has more than {LARGEST >> 10} KB")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not told:
        raise Odd("says nothing")
    return told


def _want(told, name, fits, needed=True):
    if name not in told:
        if needed:
            raise Odd(f"lacks `{name}`")
    elif not fits(told[name]):
        raise Odd(f"says {quoted(told[name])} as `{name}`")


def spelled(shape):
    """Return what tells whether a value is a text of this shape."""
    return lambda value: isinstance(value, str) and bool(shape.fullmatch(value))


def is_moment(value):
    if not spelled(MOMENT)(value):
        return False
    try:
        return bool(datetime.datetime.fromisoformat(value))
    except ValueError:
        return False


def is_number(value):
    return type(value) is int and 0 <= value <= MOST


def is_object(value):
    return isinstance(value, dict)


def is_list(value):
    return isinstance(value, list)


def quoted(value):
    """Spell a value of somebody else's for a line of ours."""
    if isinstance(value, str):
        return ascii(value[:40])
    if value is None or (isinstance(value, (int, float)) and abs(value) <= MOST):
        return str(value)
    return "a huge number" if isinstance(value, (int, float)) else f"a {type(value).__name__}"
