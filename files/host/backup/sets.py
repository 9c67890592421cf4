"""The backups of one environment, as they lie in the bucket.

Runs on the host, beside the programs that import it. A set is a folder
<prefix>/<environment>/<id>/ with a manifest.json; without one it is not a backup.
"""

import contextlib
import difflib
import hashlib
import json
import os
import re
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

MANIFEST, VERIFIED = "manifest.json", "verified.json"
WORD = {MANIFEST: "made", VERIFIED: "at"}  # what each of them says at least
GONE = ("NoSuchKey", "404")
BLOCK = 1 << 20
DAY = 86400  # seconds
# <UTC time>-<server>. Whatever else lies beside the sets, such as a stream, is none of them.
ID = re.compile(r"\d{8}T\d{6}Z-.+")


def fail(text):
    """End with one line for the operator: what is wrong, and what to type."""
    print("@fail " + text)
    sys.exit(1)


class Sets:
    """All sets of one environment, whichever host made them."""

    def __init__(self, bucket, prefix, environment, endpoint):
        style = {"addressing_style": "path"} if endpoint else {}
        self.s3 = boto3.client("s3", endpoint_url=endpoint or None, config=Config(s3=style))
        self.bucket, self.folder = bucket, "%s/%s/" % (prefix, environment)

    def folders(self):
        """Map the id of every set, complete or not, to its objects as S3 lists them, by name."""
        found = {}
        pages = self.s3.get_paginator("list_objects_v2")
        # By their year: the stream beside them is no set, and has many more objects.
        for page in pages.paginate(Bucket=self.bucket, Prefix=self.folder + "2"):
            for entry in page.get("Contents", ()):
                id, slash, name = entry["Key"][len(self.folder) :].partition("/")
                if ID.fullmatch(id) and slash and name and "/" not in name:
                    found.setdefault(id, {})[name] = entry
        return found

    def complete(self, folders=None):
        """List the manifests of all complete sets, newest first.

        Each has its "id", its "place" (a URI), and under "verified" what backup.verify left there,
        or None. `folders` are those of this place, where they were just listed. One that cannot
        be read is warned of and left out: it must not hide the others.
        """
        found = []
        for id, parts in (folders or self.folders()).items():
            manifest = self._read(id, MANIFEST) if MANIFEST in parts else None
            if manifest:
                place = "s3://%s/%s%s/" % (self.bucket, self.folder, id)
                verified = self._read(id, VERIFIED) if VERIFIED in parts else None
                found.append(manifest | {"id": id, "place": place, "verified": verified})
        return sorted(found, key=lambda manifest: manifest["made"], reverse=True)

    def _read(self, id, name):
        """Return one of a set's small JSON files; None where it is damaged or just went."""
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=self.key(id, name))
        except ClientError as error:
            # Whoever only looks takes no lock: a set may be thinned out since it was listed.
            if error.response["Error"]["Code"] not in GONE:
                raise
            return None
        try:
            seen = json.loads(answer["Body"].read())
        except ValueError:
            seen = None
        if isinstance(seen, dict) and WORD[name] in seen:
            return seen
        print("@warn The backup %s is damaged, and left alone: its %s says nothing." % (id, name))
        return None

    def key(self, id, name):
        return "%s%s/%s" % (self.folder, id, name)

    def fetch(self, manifest, name, path):
        """Bring one file of a set; ends with one line where it is not what was sent."""
        (entry,) = [each for each in manifest["files"] if each["name"] == name]
        sha, part = hashlib.sha256(), path + ".part"
        try:
            body = self.s3.get_object(Bucket=self.bucket, Key=self.key(manifest["id"], name))[
                "Body"
            ]
        except ClientError as error:
            if error.response["Error"]["Code"] not in GONE:
                raise
            fail(
                "The backup %s is damaged: %s is missing. Choose another: ./fab backup.list"
                % (manifest["id"], name)
            )
        with open(part, "wb") as stream:
            for block in iter(lambda: body.read(BLOCK), b""):
                sha.update(block)
                stream.write(block)
        if sha.hexdigest() != entry["sha256"]:
            os.remove(part)
            fail(
                "The backup %s is damaged: %s is not what was sent (SHA-256). Choose another: "
                "./fab backup.list" % (manifest["id"], name)
            )
        os.replace(part, path)

    def put(self, id, name, content):
        """Leave a small JSON beside a set's files."""
        body = json.dumps(content, indent=2).encode()
        self.s3.put_object(
            Bucket=self.bucket, Key=self.key(id, name), Body=body, ServerSideEncryption="AES256"
        )

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


def named(found, id):
    """Return the set of this id; ends with one line that names the nearest where there is none."""
    for manifest in found:
        if manifest["id"] == id:
            return manifest
    close = difflib.get_close_matches(id, [each["id"] for each in found], n=1, cutoff=0.3)
    hint = " Did you mean %s?" % close[0] if close else ""
    fail("There is no complete backup %s.%s See them all: ./fab backup.list" % (id, hint))


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
            "The backup %s is of SQLite databases, and this server is on PostgreSQL. Choose "
            "another (./fab backup.list), or restore it where no `backend_store_uri:` is set, then "
            "move that one: ./fab postgres.migrate" % manifest["id"]
        )
    fail(
        "The backup %s is of PostgreSQL databases, and this server is on SQLite. Choose another "
        "(./fab backup.list), or restore it on a server whose `backend_store_uri:` names "
        "PostgreSQL." % manifest["id"]
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
        code = error.response["Error"]["Code"]
        if code == "NoSuchBucket":
            fail("The bucket does not exist. Create it, or mend `bucket:` in fabric.yaml.")
        fail(
            "The bucket refuses the host to %s (%s). Allow s3:ListBucket, s3:GetObject and "
            "s3:PutObject on the backups, then type the same again." % (error.operation_name, code)
        )
    except BotoCoreError as error:
        fail("The host cannot reach the bucket: %s. Type: ./fab doctor" % error)
    except OSError as error:
        fail("It failed on the host: %s. Nothing was changed." % error)
