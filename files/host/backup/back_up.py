"""Make one consistent, checked set of databases and configuration, and send it to the bucket.

Runs on the host. A database is checked while it is on its way; what was sent is removed again where
one is not sound. The set lies under <backup prefix>/<environment>/<id>/; its manifest.json is sent
last, once all else was checked and read back: without it, the rest is no backup. Reports
{"id": …, "place": uri, "runs": n, "users": n, "bytes": n, "seconds": n}.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import sqlite3
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import accounts
import databases
import packed
import postgres
import shapes
import vouching
from botocore.exceptions import BotoCoreError, ClientError
from talk import (
    PASSES,
    Place,
    backups_client,
    counted,
    fail,
    made_server_id,
    report,
    request,
    store_trouble,
    warn,
)

BLOCK = 1 << 20
ATTEMPTS = 5  # seconds in each of which another host may have begun a set
BEHIND = 10  # the niceness of a backup: those who log runs come first


@dataclasses.dataclass(frozen=True)
class Request:
    place: Place
    root: str


def refuse_unfit(root, uris):
    if shutil.which("zstd") is None:
        fail("The host lacks the program zstd, which backups are packed with. Type: ./fab install")
    need = sum(
        databases.size(root, name) if uri.startswith("sqlite:") else postgres.size(uri)
        for name, uri in uris.items()
    )
    free = shutil.disk_usage(root).free
    if free < need + 100e6:
        fail(
            f"A backup needs {need / 1e9 + 0.1:.1f} GB of room on the host, and "
            f"{free / 1e9:.1f} are free. Free some, then type ./fab backup again."
        )


@contextlib.contextmanager
def removed_unless_whole(s3, bucket, key):
    """Remove what was sent of a set where the block fails, but for a fault of the store itself.

    Where that is denied it stays without a manifest, as of a backup that was killed, for `prune`.
    """
    try:
        yield
    except (ClientError, BotoCoreError):
        raise
    except BaseException:
        with contextlib.suppress(ClientError, BotoCoreError):
            there = s3.list_objects_v2(Bucket=bucket, Prefix=key + "/")
            for entry in there.get("Contents", ()):
                with contextlib.suppress(ClientError):
                    s3.delete_object(Bucket=bucket, Key=entry["Key"])
        raise


def examined_and_sent(s3, bucket, key, paths):
    """Send databases while they are checked; returns what each holds, and what was sent.

    Raises Damaged where one is not sound, once nothing is on its way any more.
    """
    seen = {}
    with contextlib.ExitStack() as opened, ThreadPoolExecutor() as pool:
        streams = [opened.enter_context(contextlib.closing(packed.Packed(path))) for path in paths]
        places = [f"{key}/{os.path.basename(path)}.zst" for path in paths]
        try:
            sending = [
                pool.submit(send_packed, s3, bucket, *each)
                for each in zip(places, streams, strict=True)
            ]
            for path in paths:
                seen[os.path.basename(path)] = examined(path)
        except BaseException:
            for stream in streams:
                stream.give_up()
            raise
        return seen, [each.result() for each in sending]


def examined(path):
    seen = databases.examine(path)
    if seen["dangling"]:
        name = os.path.basename(path)
        warn(f"{name}: {counted(seen['dangling'], 'row')} with a reference to what is gone")
    return seen


def configuration(root, users, seal):
    """Pack the configuration and who may log in, and write what `seal` makes of it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in shapes.CONFIGURED:
            if os.path.exists(os.path.join(root, name)):
                archive.add(os.path.join(root, name), arcname=name)
        body = json.dumps(users).encode()
        entry = tarfile.TarInfo(shapes.USERS)
        entry.size, entry.mode = len(body), 0o600
        archive.addfile(entry, io.BytesIO(body))
    return seal(packed.getvalue())


def sealed(key, id, folder):
    """Return what writes a part of a set that only this key opens, in this set alone."""

    def write(body):
        path = os.path.join(folder, shapes.SEALED)
        with open(path, "wb") as stream:
            stream.write(key.sealed(body, id))
        return path

    return write


def digest(stream):
    """Return the SHA-256 of what is read."""
    sha = hashlib.sha256()
    for block in iter(lambda: stream.read(BLOCK), b""):
        sha.update(block)
    return sha.hexdigest()


def send_packed(s3, bucket, key, stream):
    databases.stand_back()
    return send(s3, bucket, key, stream)


def send_file(s3, bucket, key, path):
    with open(path, "rb") as file:
        stream = packed.Counted(file, os.path.getsize(path))
        return send(s3, bucket, f"{key}/{os.path.basename(path)}", stream)


def send(s3, bucket, key, stream):
    """Send what a stream holds, encrypted as the bucket does it by default, and read it back."""
    # Not upload_file, which hides what S3 says in an error of its own.
    s3.upload_fileobj(stream, bucket, key, Config=packed.transfer(stream.most))
    came_back = s3.get_object(Bucket=bucket, Key=key)
    if digest(came_back["Body"]) != stream.sha.hexdigest():
        fail(f"s3://{bucket}/{key} came back other than it was sent. Type ./fab backup again.")
    return {
        "name": os.path.basename(key),
        "bytes": stream.bytes,
        "sha256": stream.sha.hexdigest(),
        "etag": came_back["ETag"],  # tells later, without a download, that it is still this one
    }


def unused_place(s3, place, server):
    """Name a set of a server, the first of its second; returns its moment, id and key prefix.

    A host that was rebuilt from a backup has the id of the one that made it: where both begin at
    one moment, the last letters of the id part their sets.
    """
    taken = set()
    while len(taken) < ATTEMPTS:
        now = datetime.datetime.now(datetime.timezone.utc)
        id = f"{now:%Y%m%dT%H%M%SZ}-{server}"
        key = f"{place.backup_prefix}/{place.environment}/{id}"
        if not s3.list_objects_v2(Bucket=place.bucket, Prefix=key, MaxKeys=1).get("KeyCount"):
            letters = secrets.token_hex(3)
            return now, f"{id}-{letters}", f"{key}-{letters}"
        taken.add(id)
        time.sleep(1)
    # For as long as somebody lays them there, no other task could begin.
    fail(
        f"Somebody writes where this server's backups go, such as s3://{place.bucket}/{key}/. See "
        "who may write to the bucket, then type ./fab backup again."
    )


def leave_stamp(root, started, id, key):
    """Note on this host when its last backup was made, which it is, and by which key."""
    part = os.path.join(root, ".backup.part")
    with open(part, "w") as stream:
        stream.write(f"{int(started.timestamp())} {id} {key.id}\n")
    os.replace(part, os.path.join(root, ".backup"))


def made_and_sent(s3, bucket, key, root, uris, folder, seal):
    """Make all parts of a set in a folder, and send them; returns what each database holds, too."""
    names = [name for name, uri in uris.items() if uri.startswith("sqlite:")]
    databases.copy(root, names, folder, BEHIND)
    dumps = {name: postgres.dump(uris[name], name, folder) for name in uris.keys() - names}
    if databases.AUTH in names:
        users = accounts.of_sqlite(os.path.join(folder, databases.AUTH))
    else:
        users = accounts.of_postgres(uris[databases.AUTH])
    others = [*(path for path, _ in dumps.values()), configuration(root, users, seal)]
    copies = [os.path.join(folder, name) for name in names]
    seen, sent = examined_and_sent(s3, bucket, key, copies)
    seen |= {name: found for name, (_, found) in dumps.items()}
    return seen, [*sent, *(send_file(s3, bucket, key, path) for path in others)]


def main(root, place):
    uris, signer = databases.addresses(root), vouching.own()
    if signer is None:
        fail("This server has no backup key yet, which vouches for its backups. Type: ./fab deploy")
    refuse_unfit(root, uris)
    s3, server = backups_client(place), made_server_id(root)
    started, id, key = unused_place(s3, place, server)
    scratch = os.path.join(root, "backups")
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    clear(scratch)
    with (
        removed_unless_whole(s3, place.bucket, key),
        tempfile.TemporaryDirectory(dir=scratch) as folder,
    ):
        seal = sealed(signer, id, folder)
        seen, sent = made_and_sent(s3, place.bucket, key, root, uris, folder, seal)
    release = databases.release(root)
    seconds = (datetime.datetime.now(datetime.timezone.utc) - started).total_seconds()
    manifest = {
        "id": id,
        "made": started.isoformat(),
        "host": socket.gethostname(),
        "server": server,
        "environment": place.environment,
        "release": release,
        "version": release.rpartition("-")[0],
        "databases": seen,
        "files": sent,
        "seconds": round(seconds, 3),
    }
    body = json.dumps(signer.signed(vouching.MANIFEST, manifest), indent=2).encode()
    s3.put_object(Bucket=place.bucket, Key=f"{key}/manifest.json", Body=body)
    leave_stamp(root, started, id, signer)
    report(
        {
            "id": id,
            "place": f"s3://{place.bucket}/{key}/",
            "runs": seen[databases.TRACKING]["counts"].get("runs", 0),
            "users": seen[databases.AUTH]["counts"].get("users", 0),
            "bytes": sum(entry["bytes"] for entry in sent),
            "seconds": manifest["seconds"],
        }
    )


def clear(scratch):
    """Take away what a backup that was killed left: under the lock, nobody else is at work."""
    for entry in os.listdir(scratch):
        path = os.path.join(scratch, entry)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


asked = request(Request)
try:
    main(asked.root, asked.place)
except ClientError as error:
    if failing := store_trouble(error):
        fail(f"{failing} Earlier backups stay. {PASSES}")
    code, bucket = error.response["Error"]["Code"], asked.place.bucket
    if code == "NoSuchBucket":
        fail(f"The bucket {bucket} does not exist. Create it, or fix `bucket:` in fabric.yaml.")
    fail(
        f"The bucket {bucket} refuses the backup under {asked.place.backup_prefix}/ ({code}). "
        "Allow s3:PutObject, s3:GetObject and s3:ListBucket there, then type ./fab backup again."
    )
except BotoCoreError as error:
    why = str(error).rstrip(".")
    fail(f"The backup could not be sent, and earlier ones stay: {why}. See why: ./fab doctor")
except (databases.Damaged, postgres.Refused) as error:
    fail(f"No backup was made, and earlier ones stay: {error}. Type: ./fab doctor")
except packed.NotPacked as error:
    fail(f"{error}. Type ./fab backup again.")
except sqlite3.Error as error:
    fail(
        f"A database cannot be read: {error}. No backup was made; earlier ones stay. "
        "See why: ./fab doctor"
    )
except OSError as error:
    fail(f"The backup failed on the host: {error}. No backup was made; earlier ones stay.")
