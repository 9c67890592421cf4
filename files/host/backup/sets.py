"""The backups of one environment, as they lie in the bucket.

Runs on the host, beside the programs that import it. A set is a folder
<prefix>/<environment>/<id>/ with a manifest.json; without one it is not a backup.
"""

import contextlib
import difflib
import hashlib
import json
import os
from collections import namedtuple
from datetime import datetime

import shapes
import vouching
from botocore.exceptions import BotoCoreError, ClientError
from talk import LOOKING, PASSES, backups_client, fail, store_trouble, warn

MANIFEST, VERIFIED = "manifest.json", "verified.json"
READ = {MANIFEST: shapes.manifest, VERIFIED: shapes.note}  # what each of them is read by
# Who vouches for a set: a key that is at hand, one that is not, or nobody.
VOUCHED, OTHER_KEY, NOBODY = "yes", "other key", "nobody"
GONE = ("NoSuchKey", "404")
BLOCK = 1 << 20
DAY = 86400  # seconds
SHOWN = 3  # damaged sets that are named: somebody may have put any number there


class Sets:
    """All sets of one environment, whichever host made them.

    `key` is the text of another one than the server's own, whose sets it vouches for as well; `s3`
    another client than the usual one.
    """

    def __init__(self, place, key="", s3=None):
        self.s3 = s3 or backups_client(place, **LOOKING)
        self.bucket, self.folder = place.bucket, f"{place.backup_prefix}/{place.environment}/"
        self.environment = place.environment
        self.own = vouching.own()
        self.keys = {each.id: each for each in (self.own, vouching.named(key)) if each}

    def folders(self):
        """Map the id of every set, complete or not, to its objects as S3 lists them, by name.

        What is named as no set is, is warned of and left out.
        """
        found, others = {}, set()
        pages = self.s3.get_paginator("list_objects_v2")
        # By their year: the stream beside them is no set, and has many more objects.
        for page in pages.paginate(Bucket=self.bucket, Prefix=self.folder + "2"):
            for entry in page.get("Contents", ()):
                id, slash, name = entry["Key"][len(self.folder) :].partition("/")
                if not shapes.ID.fullmatch(id):
                    others.add(id)
                elif slash and name and "/" not in name:
                    found.setdefault(id, {})[name] = entry
        if others:
            warn(
                f"not backups, though beside them, and left alone: {len(others)}, such as "
                f"{shapes.quoted(min(others))}"
            )
        return found

    def complete(self, folders=None, asked=""):
        """List the manifests of all complete sets, newest first.

        Each has its "id", its "place" (a URI), under "signed" who vouches for it, and under
        "verified" what backup.verify left there, or None. `folders` are those of this place, where
        they were just listed. One that is not as backup makes them is warned of and left out: it
        must not hide the others. Where the one that is `asked` for is there, it is the only one;
        ends with one line where that one is not so.
        """
        found, damaged = [], []
        folders = self.folders() if folders is None else folders
        if MANIFEST in folders.get(asked, ()):
            folders = {asked: folders[asked]}
        for id, parts in folders.items():
            manifest = self._read(id, MANIFEST, damaged) if MANIFEST in parts else None
            if manifest:
                place = f"s3://{self.bucket}/{self.folder}{id}/"
                note = self._read(id, VERIFIED, damaged) if VERIFIED in parts else None
                digest = vouching.digest(manifest)
                seen = {"id": id, "place": place, "signed": self.signed(manifest)}
                seen |= {"verified": note if self._noted(note, id, digest) else None}
                found.append(manifest | seen | {"digest": digest})
        if damaged and list(folders) == [asked] and not found:
            fail(damaged[0])
        for line in damaged[:SHOWN]:
            warn(line)
        if len(damaged) > SHOWN:
            warn(f"damaged and left alone as well: {len(damaged) - SHOWN} more")
        return sorted(found, key=lambda manifest: manifest["made"], reverse=True)

    def _read(self, id, name, damaged):
        """Return one of a set's small JSON files; None where it just went, or is `damaged`."""
        try:
            return self.told(id, name)
        except shapes.Odd as error:
            damaged.append(f"The backup {id} is damaged, and left alone: its {name} {error}.")
        return None

    def told(self, id, name):
        """Return one of a set's small JSON files, or None where it just went; raises Odd."""
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=self.key(id, name))
        except ClientError as error:
            # Whoever only looks takes no lock: a set may be thinned out since it was listed.
            if error.response["Error"]["Code"] not in GONE:
                raise
            return None
        told = READ[name](answer["Body"].read(shapes.LARGEST + 1))
        if name == MANIFEST:
            self._refuse_forged(told, id)
        return told

    def _refuse_forged(self, manifest, id):
        """Raise Odd where a manifest was made for another set, or not by the key that it names."""
        if manifest.get("id", id) != id:
            raise shapes.Odd(f"is that of {manifest['id']}")
        if "signature" not in manifest:
            return
        if manifest.get("environment") != self.environment:
            raise shapes.Odd("is that of another environment")
        if "id" not in manifest:
            raise shapes.Odd("lacks `id`")
        key = self.keys.get(manifest.get("key"))
        if key and not key.vouches(vouching.MANIFEST, manifest):
            raise shapes.Odd("was not signed by the key that it names")

    def signed(self, manifest):
        """Say who vouches for a set with this manifest."""
        if "signature" not in manifest:
            return NOBODY
        return VOUCHED if manifest.get("key") in self.keys else OTHER_KEY

    def _noted(self, note, id, digest):
        """Tell whether a key that is at hand vouches for a note on this set as it lies there."""
        key = self.keys.get(note.get("key")) if note and "signature" in note else None
        return (
            key is not None
            and key.vouches(vouching.NOTE, note)
            and (note.get("id"), note.get("of")) == (id, digest)
        )

    def note(self, id, digest, content):
        """Leave beside a set that it was verified as it was then; signed where there is a key."""
        told = content | {"id": id, "of": digest}
        self.put(id, VERIFIED, self.own.signed(vouching.NOTE, told) if self.own else told)

    def key(self, id, name):
        return f"{self.folder}{id}/{name}"

    def opened(self, id, name):
        """Return S3's answer with one file of a set; ends with one line where it is missing."""
        try:
            return self.s3.get_object(Bucket=self.bucket, Key=self.key(id, name))
        except ClientError as error:
            if error.response["Error"]["Code"] not in GONE:
                raise
            fail(
                f"The backup {id} is damaged: {name} is missing. Choose another: ./fab backup.list"
            )

    def fetch(self, manifest, name, path):
        """Bring one file of a set; ends with one line where it is not what was sent."""
        sha, part, entry = hashlib.sha256(), path + ".part", entry_of(manifest, name)
        body, left = self.opened(manifest["id"], name)["Body"], entry["bytes"]
        with open(part, "wb") as stream:
            # What is longer than was sent is not taken any further.
            while left >= 0 and (block := body.read(min(BLOCK, left + 1))):
                left -= len(block)
                sha.update(block)
                stream.write(block)
        if left or sha.hexdigest() != entry["sha256"]:
            os.remove(part)
            fail(
                f"The backup {manifest['id']} is damaged: {name} is not what was sent (SHA-256). "
                "Choose another: ./fab backup.list"
            )
        os.replace(part, path)

    def put(self, id, name, content):
        """Leave a small JSON beside a set's files."""
        body = json.dumps(content, indent=2).encode()
        self.s3.put_object(Bucket=self.bucket, Key=self.key(id, name), Body=body)

    def delete(self, id, names):
        """Delete a set, its manifest first: what is left of it is no backup any more."""
        for name in sorted(names, key=lambda name: name != MANIFEST):
            self.s3.delete_object(Bucket=self.bucket, Key=self.key(id, name))


def abandoned(folders, now):
    """Name the folders without a manifest that nobody has written to for a day, newest first.

    `now` is in seconds since 1970. A backup that is just being made has none yet either.
    """
    return sorted(
        (
            id
            for id, parts in folders.items()
            if MANIFEST not in parts
            and now - max(entry["LastModified"].timestamp() for entry in parts.values()) > DAY
        ),
        reverse=True,
    )


def wanted(found, id):
    """Return the set of this id; without one, the newest that is vouched for, or of all."""
    return named(found, id) if id else newest(vouched(found) or found)


def vouched(found):
    """Return those sets that a key at hand vouches for."""
    return [each for each in found if each["signed"] == VOUCHED]


def other_keys(found):
    """Name the keys that signed sets and are not at hand, the newest first."""
    keys = (each["key"] for each in found if each["signed"] == OTHER_KEY and "key" in each)
    # All of them: whoever may write to the bucket can name any number before the one that counts.
    return list(dict.fromkeys(keys))


def refuse_unvouched(manifest, again):
    """End with one line where nobody here vouches for a set; `again` is what to type."""
    if manifest["signed"] != VOUCHED:
        fail(f"{doubt(manifest)} All the same: ./fab {again} --id {manifest['id']} --unsigned")


def doubt(manifest):
    """Say why a set is not vouched for."""
    if manifest["signed"] == OTHER_KEY:
        return (
            f"The backup {manifest['id']} was signed by the backup key {manifest.get('key')}, "
            "which this host does not have: whoever may write to the bucket may have put it there."
        )
    return (
        f"Nobody vouches for the backup {manifest['id']}: it is from before this server had a "
        "backup key, or somebody who may write to the bucket put it there."
    )


Mark = namedtuple("Mark", "made id key")


def last(root):
    """Return what this host noted of its last backup, or None; its key is None before there was."""
    try:
        with open(os.path.join(root, ".backup")) as stream:
            made, id, *key = stream.read().split()
        return Mark(int(made), id, key[0] if key else None)
    except (FileNotFoundError, ValueError):
        return None


def loss(found, root):
    """Say that the last backup that this host made is gone from all sets; None where it is not."""
    mark = last(root)
    if not mark:
        return None
    there = vouched(found) if mark.key else found
    made = (datetime.fromisoformat(each["made"]).timestamp() for each in there)
    if mark.id in [each["id"] for each in there] or max(made, default=0) > mark.made:
        return None
    return (
        f"the last backup that this host made, {mark.id}, is not in the bucket any more as it was "
        "sent: all that are there are older, or nobody vouches for them"
    )


def warn_of_loss(found, root):
    """Tell whether the last backup that this host made is gone from all sets, and warn of it."""
    lost = loss(found, root)
    if lost:
        warn(lost)
    return bool(lost)


def entry_of(manifest, name):
    """Return what a manifest says of a file; ends with one line where it names none such."""
    for entry in manifest["files"]:
        if entry["name"] == name:
            return entry
    id = manifest["id"]
    fail(f"The backup {id} is damaged: {name} is missing. Choose another: ./fab backup.list")


def named(found, id):
    """Return the set of this id; ends with one line that names the nearest where there is none."""
    for manifest in found:
        if manifest["id"] == id:
            return manifest
    close = difflib.get_close_matches(id, [each["id"] for each in found], n=1, cutoff=0.3)
    hint = f" Did you mean {close[0]}?" if close else ""
    fail(f"There is no complete backup {id}.{hint} See them all: ./fab backup.list")


def newest(found):
    """Return the newest set; ends with one line where there is none."""
    if not found:
        fail("There is no complete backup yet. Make one: ./fab backup")
    return found[0]


def count(manifest, database, table):
    """Return how many rows a set's manifest says a table has."""
    seen = manifest["databases"].get(database, {})
    # The first sets counted one table of each database.
    return seen["counts"].get(table, 0) if "counts" in seen else seen.get("count", 0)


def on_postgres(manifest):
    """Tell whether a set's databases are PostgreSQL's."""
    return any(seen.get("kind") == "postgresql" for seen in manifest["databases"].values())


def refuse_other_kind(manifest, served_by_postgres):
    """End with one line where a set is of another kind of database than the server's."""
    if on_postgres(manifest) == served_by_postgres:
        return
    if served_by_postgres:
        fail(
            f"The backup {manifest['id']} is of SQLite databases, and this server is on "
            "PostgreSQL. Choose another (./fab backup.list), or restore it where no "
            "`backend_store_uri:` is set, then move that one: ./fab postgres.migrate"
        )
    fail(
        f"The backup {manifest['id']} is of PostgreSQL databases, and this server is on SQLite. "
        "Choose another (./fab backup.list), or restore it on a server whose `backend_store_uri:` "
        "names PostgreSQL."
    )


def version(manifest):
    """Return the MLflow version that made a set."""
    return manifest.get("version") or manifest["release"].rpartition("-")[0]


@contextlib.contextmanager
def explained():
    """Turn what S3 and the host's disk refuse into one line."""
    try:
        yield
    except ClientError as error:
        if failing := store_trouble(error):
            fail(f"{failing} {PASSES}")
        code = error.response["Error"]["Code"]
        if code == "NoSuchBucket":
            fail("The bucket does not exist. Create it, or fix `bucket:` in fabric.yaml.")
        fail(
            f"The bucket refuses the host to {error.operation_name} ({code}). Allow "
            "s3:ListBucket, s3:GetObject and s3:PutObject on the backups, then run the same "
            "command again."
        )
    except BotoCoreError as error:
        fail(f"The host cannot reach the bucket: {error}. Type: ./fab doctor")
    except OSError as error:
        fail(f"It failed on the host: {error}. Nothing was changed.")
