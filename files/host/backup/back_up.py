"""Make one consistent, checked set of databases and configuration, and send it to the bucket.

Runs on the host. The set lies under <backup prefix>/<environment>/<UTC time>-<server id>/; its
manifest.json is sent last, once all else was read back. Reports {"id": …, "place": uri, "runs": n,
"users": n, "bytes": n, "seconds": n}.
"""

import dataclasses
import datetime
import hashlib
import io
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import tarfile
import tempfile
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import accounts
import databases
import postgres
import shapes
import vouching
from boto3.s3.transfer import TransferConfig
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

# Four parts of 8 MB on their way at once keep the memory below 200 MB.
TRANSFER = TransferConfig(multipart_chunksize=8 << 20, max_concurrency=4)
BLOCK = 1 << 20
ATTEMPTS = 5  # seconds in each of which another host may have begun a set
BEHIND = 15  # the niceness of a backup: those who log runs come first

Part = namedtuple("Part", "path sha256")  # a file of the set


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
    # The copy and its packed form lie beside each other for a moment.
    if free < 2 * need + 100e6:
        fail(
            f"A backup needs {2 * need / 1e9 + 0.1:.1f} GB of room on the host, and "
            f"{free / 1e9:.1f} are free. Free some, then type ./fab backup again."
        )


def packed_and_examined(path):
    """Pack a database while it is checked: neither leaves the host before both are done."""
    name = os.path.basename(path)
    with ThreadPoolExecutor() as pool:
        packing = pool.submit(packed, path)
        seen = databases.examine(path)
        part = packing.result()
    os.remove(path)
    if seen["dangling"]:
        warn(f"{name}: {counted(seen['dangling'], 'row')} with a reference to what is gone")
    return part, seen


def packed(path):
    """Pack a file beside itself; returns the packed one as a part of the set."""
    # Behind the check, which takes longer.
    command = ["nice", "-n", str(databases.LEAST), "zstd", "-1", "-q", "-c", path]
    with (
        open(path + ".zst", "wb") as target,
        subprocess.Popen(command, stdout=subprocess.PIPE) as packing,
    ):
        part = Part(target.name, digest(packing.stdout, target))
    if packing.returncode:
        fail(f"zstd could not pack {path} ({packing.returncode}). Type ./fab backup again.")
    return part


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
        return as_it_is(path)

    return write


def as_it_is(path):
    """Make a file that is packed already a part of the set."""
    with open(path, "rb") as stream:
        return Part(path, digest(stream))


def digest(stream, target=None):
    """Return the SHA-256 of what is read, and write it to the target where there is one."""
    sha = hashlib.sha256()
    for block in iter(lambda: stream.read(BLOCK), b""):
        sha.update(block)
        if target:
            target.write(block)
    return sha.hexdigest()


def send(s3, bucket, part, key):
    """Send one file, encrypted as the bucket does it by default, and read it back whole."""
    with open(part.path, "rb") as stream:
        # Not upload_file, which hides what S3 says in an error of its own.
        s3.upload_fileobj(stream, bucket, key, Config=TRANSFER)
    came_back = s3.get_object(Bucket=bucket, Key=key)
    if digest(came_back["Body"]) != part.sha256:
        fail(f"s3://{bucket}/{key} came back other than it was sent. Type ./fab backup again.")
    return {
        "name": os.path.basename(part.path),
        "bytes": os.path.getsize(part.path),
        "sha256": part.sha256,
        "etag": came_back["ETag"],  # tells later, without a download, that it is still this one
    }


def unused_place(s3, place, server):
    """Name a set of a server that nobody has begun; returns its moment, id and key prefix."""
    taken = set()
    while len(taken) < ATTEMPTS:
        now = datetime.datetime.now(datetime.timezone.utc)
        id = f"{now:%Y%m%dT%H%M%SZ}-{server}"
        key = f"{place.backup_prefix}/{place.environment}/{id}"
        # A host that was rebuilt from a backup has the id of the one that made it.
        if not s3.list_objects_v2(Bucket=place.bucket, Prefix=key + "/", MaxKeys=1).get("KeyCount"):
            return now, id, key
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


def collected(root, uris, folder, seal):
    """Copy, check and pack all parts of a set; returns what each database holds, and the files."""
    seen, parts = {}, []
    names = [name for name, uri in uris.items() if uri.startswith("sqlite:")]
    databases.copy(root, names, folder, BEHIND)
    for name in uris.keys() - names:
        path, seen[name] = postgres.dump(uris[name], name, folder)
        parts.append(as_it_is(path))
    if databases.AUTH in names:
        users = accounts.of_sqlite(os.path.join(folder, databases.AUTH))
    else:
        users = accounts.of_postgres(uris[databases.AUTH])
    for name in names:
        part, seen[name] = packed_and_examined(os.path.join(folder, name))
        parts.append(part)
    return seen, [*parts, configuration(root, users, seal)]


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
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        seen, parts = collected(root, uris, folder, sealed(signer, id, folder))
        sent = [
            send(s3, place.bucket, part, f"{key}/{os.path.basename(part.path)}") for part in parts
        ]
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
    fail(f"The backup could not be sent: {error}. Type ./fab configure, which names why.")
except (databases.Damaged, postgres.Refused) as error:
    fail(f"Nothing was sent, and earlier backups stay: {error}. Type: ./fab doctor")
except sqlite3.Error as error:
    fail(f"A database cannot be read: {error}. Nothing was sent; earlier backups stay.")
except OSError as error:
    fail(f"The backup failed on the host: {error}. Nothing was sent; earlier backups stay.")
