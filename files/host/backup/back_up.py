"""Make one consistent, checked set of databases and configuration, and send it to the bucket.

Runs on the host. Arguments: root, bucket, backup prefix, environment, endpoint or "". The set lies
under <prefix>/<environment>/<UTC time>-<server id>/; its manifest.json is sent last, once all else
was read back. Reports {"id": …, "place": uri, "runs": n, "users": n, "bytes": n, "seconds": n}.
"""

import datetime
import hashlib
import json
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import boto3
import databases
import postgres
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

root, bucket, prefix, environment, endpoint = sys.argv[1:6]
CONFIGURATION = (
    "server.env", ".pgpass", ".mlflow_auth_config", "start_mlflow_server.sh", ".server-id",
)  # fmt: skip
ENCRYPTED = {"ServerSideEncryption": "AES256"}
# Four parts of 8 MB on their way at once keep the memory below 200 MB.
TRANSFER = TransferConfig(multipart_chunksize=8 << 20, max_concurrency=4)
BLOCK = 1 << 20
BEHIND = 15  # the niceness of a backup: those who log runs come first

Part = namedtuple("Part", "path sha256")  # a file of the set


def fail(text):
    print("@fail " + text)
    sys.exit(1)


def refuse_unfit(uris):
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
            "A backup needs %.1f GB of room on the host, and %.1f are free. Free some, then type "
            "backup again." % (2 * need / 1e9 + 0.1, free / 1e9)
        )


def server_id():
    """Return this server's id, made at the first need."""
    path = os.path.join(root, ".server-id")
    if not os.path.exists(path):
        with open(path + ".part", "w") as stream:
            stream.write(secrets.token_hex(4) + "\n")
        os.replace(path + ".part", path)
    with open(path) as stream:
        return stream.read().strip()


def packed_and_examined(path):
    """Pack a database while it is checked: neither leaves the host before both are done."""
    name = os.path.basename(path)
    with ThreadPoolExecutor() as pool:
        packing = pool.submit(packed, path)
        seen = databases.examine(path)
        part = packing.result()
    os.remove(path)
    if seen["dangling"]:
        print("@warn %s has %d rows that refer to nothing" % (name, seen["dangling"]))
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
        fail("zstd could not pack %s (%d). Type backup again." % (path, packing.returncode))
    return part


def configuration(folder):
    path = os.path.join(folder, "configuration.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for name in CONFIGURATION:
            if os.path.exists(os.path.join(root, name)):
                archive.add(os.path.join(root, name), arcname=name)
    return as_it_is(path)


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


def send(s3, part, key):
    """Send one file, encrypted at rest, and read it back whole."""
    with open(part.path, "rb") as stream:
        # Not upload_file, which hides what S3 says in an error of its own.
        s3.upload_fileobj(stream, bucket, key, ExtraArgs=ENCRYPTED, Config=TRANSFER)
    came_back = s3.get_object(Bucket=bucket, Key=key)
    if digest(came_back["Body"]) != part.sha256:
        fail("s3://%s/%s came back other than it was sent. Type backup again." % (bucket, key))
    return {
        "name": os.path.basename(part.path),
        "bytes": os.path.getsize(part.path),
        "sha256": part.sha256,
        "etag": came_back["ETag"],  # tells later, without a download, that it is still this one
    }


def unused_place(s3):
    """Name a set that nobody has begun; returns its moment, id and key prefix."""
    while True:
        now = datetime.datetime.now(datetime.timezone.utc)
        name = "%s-%s" % (now.strftime("%Y%m%dT%H%M%SZ"), server_id())
        place = "%s/%s/%s" % (prefix, environment, name)
        # A host that was rebuilt from a backup has the id of the one that made it.
        if not s3.list_objects_v2(Bucket=bucket, Prefix=place + "/", MaxKeys=1).get("KeyCount"):
            return now, name, place
        time.sleep(1)


def leave_stamp(started, name):
    """Note on this host when its last backup was made, and which it is."""
    part = os.path.join(root, ".backup.part")
    with open(part, "w") as stream:
        stream.write("%d %s\n" % (started.timestamp(), name))
    os.replace(part, os.path.join(root, ".backup"))


def client():
    style = {"addressing_style": "path"} if endpoint else {}
    return boto3.client("s3", endpoint_url=endpoint or None, config=Config(s3=style))


def collected(uris, folder):
    """Copy, check and pack all parts of a set; returns what each database holds, and the files."""
    seen, parts = {}, []
    names = [name for name, uri in uris.items() if uri.startswith("sqlite:")]
    databases.copy(root, names, folder, BEHIND)
    for name in uris.keys() - names:
        path, seen[name] = postgres.dump(uris[name], name, folder)
        parts.append(as_it_is(path))
    for name in names:
        part, seen[name] = packed_and_examined(os.path.join(folder, name))
        parts.append(part)
    return seen, [*parts, configuration(folder)]


def main():
    uris = databases.addresses(root)
    refuse_unfit(uris)
    s3 = client()
    started, name, place = unused_place(s3)
    scratch = os.path.join(root, "backups")
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    clear(scratch)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        seen, parts = collected(uris, folder)
        sent = [send(s3, part, place + "/" + os.path.basename(part.path)) for part in parts]
    release = databases.release(root)
    seconds = (datetime.datetime.now(datetime.timezone.utc) - started).total_seconds()
    manifest = {
        "made": started.isoformat(),
        "host": socket.gethostname(),
        "server": server_id(),
        "environment": environment,
        "release": release,
        "version": release.rpartition("-")[0],
        "databases": seen,
        "files": sent,
        "seconds": round(seconds, 3),
    }
    body = json.dumps(manifest, indent=2).encode()
    s3.put_object(Bucket=bucket, Key=place + "/manifest.json", Body=body, **ENCRYPTED)
    leave_stamp(started, name)
    report = {
        "id": name,
        "place": "s3://%s/%s/" % (bucket, place),
        "runs": seen[databases.TRACKING]["counts"].get("runs", 0),
        "users": seen[databases.AUTH]["counts"].get("users", 0),
        "bytes": sum(entry["bytes"] for entry in sent),
        "seconds": manifest["seconds"],
    }
    print("@report " + json.dumps(report))


def clear(scratch):
    """Take away what a backup that was killed left: under the lock, nobody else is at work."""
    for entry in os.listdir(scratch):
        path = os.path.join(scratch, entry)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


try:
    main()
except ClientError as error:
    if error.response["Error"]["Code"] == "NoSuchBucket":
        fail("The bucket %s does not exist. Create it, or mend `bucket:` in fabric.yaml." % bucket)
    fail(
        "The bucket %s refuses the backup under %s/ (%s). Allow s3:PutObject, s3:GetObject and "
        "s3:ListBucket there, then type backup again."
        % (bucket, prefix, error.response["Error"]["Code"])
    )
except BotoCoreError as error:
    fail("The backup could not be sent: %s. Type ./fab configure, which names why." % error)
except (databases.Damaged, postgres.Refused) as error:
    fail("Nothing was sent, and earlier backups stay: %s. Type: ./fab doctor" % error)
except sqlite3.Error as error:
    fail("A database cannot be read: %s. Nothing was sent; earlier backups stay." % error)
except OSError as error:
    fail("The backup failed on the host: %s. Nothing was sent; earlier backups stay." % error)
