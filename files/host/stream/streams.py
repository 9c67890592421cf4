"""The streams of one environment's databases, as Litestream lays them in the bucket.

Runs on the host, beside the programs that import it. A stream is what one host sent of one pair of
database files: <prefix>/<environment>/stream/<server id>/<UTC time of its begin>/<database>/, and
there <level>/<first>-<last>.ltx, the changes from one transaction to another. Level 0 has them one
by one, the others what a longer time brought, 9 all of the database.
"""

import datetime
import os
import re
import struct
from collections import namedtuple

import databases
import shapes
from botocore.exceptions import ClientError
from talk import LOOKING, backups_client, fail, warn

CHANGES = re.compile(r"/([0-9a-f]{4})/([0-9a-f]{16})-([0-9a-f]{16})\.ltx")
MAGIC, PAGES = b"LTX1", [1 << power for power in range(9, 17)]  # a page's bytes, as SQLite has it
SECOND = datetime.timedelta(seconds=1)  # what S3 rounds its times down to

Stream = namedtuple("Stream", "server stamp")
Changes = namedtuple("Changes", "level first last sent bytes")


def present(root):
    """Return the stream that this host sends now, or None."""
    try:
        with open(os.path.join(root, ".stream")) as file:
            return Stream(*file.readline().strip().split("/"))
    except FileNotFoundError:
        return None


class Streams:
    """All streams of one environment, whichever host made them."""

    def __init__(self, place):
        self.s3 = backups_client(place, **LOOKING)
        self.bucket, self.endpoint = place.bucket, place.endpoint
        self.folder = f"{place.backup_prefix}/{place.environment}/stream/"
        self.warned = False

    def all(self):
        """List the streams, the one that began last first."""
        found = [
            Stream(server, stamp)
            for server in self._folders(self.folder, shapes.SERVER)
            for stamp in self._folders(self.folder + server + "/", shapes.STAMP)
        ]
        return sorted(found, key=lambda stream: stream.stamp, reverse=True)

    def _folders(self, place, shape):
        """List the folders in a place that are named so; of others it warns once."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=place, Delimiter="/"
        )
        entries = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())]
        names = [entry[len(place) :].removesuffix("/") for entry in entries]
        others = [name for name in names if not shape.fullmatch(name)]
        if others and not self.warned:
            self.warned = True
            warn(
                "some of what lies beside the streams is no stream and left alone, such as "
                f"{shapes.quoted(others[0])}"
            )
        return [name for name in names if name not in others]

    def place(self, stream, database=""):
        return f"{self.folder}{stream.server}/{stream.stamp}/{database}"

    def _objects(self, place):
        pages = self.s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=place):
            yield from page.get("Contents", ())

    def changes(self, stream):
        """Map each database to what lies in the bucket of it."""
        return {
            name: [
                Changes(
                    int(match[1], 16), int(match[2], 16), int(match[3], 16),
                    entry["LastModified"], entry["Size"],
                )
                for place in [self.place(stream, name)]
                for entry in self._objects(place + "/")
                for match in [CHANGES.fullmatch(entry["Key"][len(place) :])]
                if match and match[2] <= match[3]
            ]
            for name in databases.NAMES
        }  # fmt: skip

    def candidates(self, when, wanted, root):
        """Give the streams that were whole at a moment (None: now), the one that began last first.

        Each with what lies of it, and the last transaction of each database by then. `wanted` is
        <server id>/<begin>, "present" for the one that this host sends now, or "" for any.
        """
        for stream in self.all():
            if wanted in ("", "/".join(stream)) or (
                wanted == "present" and stream == present(root)
            ):
                changes = self.changes(stream)
                points = {name: point(some, when) for name, some in changes.items()}
                if None not in points.values():
                    yield stream, changes, points

    def windows(self):
        """List the first and last moment that each stream leads back to, the newest first."""
        found = (window(self.changes(stream)) for stream in self.all())
        return [each for each in found if each]

    def ended_before(self, when):
        """Tell whether all that was ever sent was sent before a moment."""
        return all(last < when for _, last in self.windows())

    def refuse(self, at):
        """End with one line that says which moments there are instead of the one wanted."""
        spans = [f"{spelt(first)} to {spelt(last)}" for first, last in self.windows()]
        if not spans:
            fail(
                f"There is no stream under s3://{self.bucket}/{self.folder}. Begin one: ./fab "
                "backup.stream on; a backup is restored by: ./fab restore"
            )
        fail(
            f"No stream reaches to {at}. There is: {'; '.join(spans[:4])}. Choose a moment of "
            "these, or: ./fab restore --at latest"
        )

    def size(self, stream, database, each):
        """Return the bytes that a database has after some changes: their header says it.

        Ends with one line where it has no such header.
        """
        key = f"{self.place(stream, database)}/{each.level:04x}/"
        key += f"{each.first:016x}-{each.last:016x}.ltx"
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=key, Range="bytes=0-99")
            header = answer["Body"].read(16)
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidRange":
                raise
            header = b""  # an empty one
        # Litestream's LTX_FORMAT.md: magic, flags, bytes of a page, pages of the database.
        magic, _, page, pages = struct.unpack(">4sIII", header.ljust(16, b"\0"))
        if magic != MAGIC or page not in PAGES:
            fail(
                f"The stream {'/'.join(stream)} is damaged: s3://{self.bucket}/{key} is none of "
                "Litestream's files. Choose another moment, or the newest backup: ./fab restore"
            )
        return page * pages

    def url(self, stream, database, region):
        """Spell a database's place for Litestream, and how to reach it."""
        query = ["region=" + region] if region else []
        if self.endpoint:
            query += ["endpoint=" + self.endpoint, "force-path-style=true"]
        place = f"s3://{self.bucket}/{self.place(stream, database)}"
        return place + ("?" + "&".join(query) if query else "")

    def region(self):
        """Return the region of a bucket at AWS; what another store calls it does not matter."""
        if self.endpoint:
            return ""
        answer = self.s3.head_bucket(Bucket=self.bucket)
        return answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", "us-east-1")

    def delete(self, stream):
        """Delete what lies of a stream; tells whether all of it could be."""
        keys = [{"Key": entry["Key"]} for entry in self._objects(self.place(stream))]
        for begin in range(0, len(keys), 1000):
            wanted = {"Objects": keys[begin : begin + 1000], "Quiet": True}
            try:
                answer = self.s3.delete_objects(Bucket=self.bucket, Delete=wanted)
            except ClientError as error:
                if error.response["Error"]["Code"] != "AccessDenied":
                    raise
                return False
            if answer.get("Errors"):
                return False
        return True


def point(changes, moment):
    """Return the last transaction that was in the bucket at a moment (None: now), or None.

    The times are S3's own: whatever Litestream makes of its files, nothing younger is in them.
    """
    past = [each for each in changes if moment is None or each.sent + SECOND <= moment]
    whole = any(each.first == 1 for each in past)  # what all else builds upon
    return max(each.last for each in past) if whole else None


def window(changes):
    """Return the first and the last moment that a stream leads back to, or None."""
    whole = [min((each.sent for each in some if each.first == 1), default=None)
             for some in changes.values()]  # fmt: skip
    if None in whole:
        return None
    return max(whole) + SECOND, newest(changes) + SECOND


def end(changes, last):
    """Return the changes that a transaction was sent with first."""
    return min((each for each in changes if each.last == last), key=lambda each: each.sent)


def moment(at):
    """Read what `spelt` spells; "latest" is None."""
    return None if at == "latest" else datetime.datetime.fromisoformat(at.replace("Z", "+00:00"))


def spelt(moment):
    """Spell a moment as `--at` takes it."""
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def newest(changes):
    """Return when the last change of either database was sent; None where none ever was."""
    return max((each.sent for some in changes.values() for each in some), default=None)
