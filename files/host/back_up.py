"""Make one consistent, checked set of databases and configuration, and send it to the bucket.

Runs on the host. Arguments: root, bucket, backup prefix, environment, endpoint or "". The set lies
under <prefix>/<environment>/<UTC time>-<server id>/; its manifest.json is sent last, once all else
was read back. Reports {"place": uri, "runs": n, "users": n, "bytes": n}.
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import sqlite3
import sys
import tarfile
import tempfile

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

root, bucket, prefix, environment, endpoint = sys.argv[1:6]
CONFIGURATION = ("server.env", ".mlflow_auth_config", "start_mlflow_server.sh")
DATABASES = {"mlflow.db": "runs", "basic_auth.db": "users"}


def fail(text):
    print("@fail " + text)
    sys.exit(1)


def refuse_unfit():
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    if not uri.startswith("sqlite:"):
        fail("The backend store is not SQLite. Back it up with its own dump, such as pg_dump -Fc")
    size = sum(os.path.getsize(os.path.join(root, name)) for name in DATABASES)
    free = shutil.disk_usage(root).free
    # The copy and its compressed form lie beside each other for a moment.
    if free < 2 * size + 100e6:
        fail(
            "A backup needs %.1f GB of room on the host, and %.1f are free. Free some, then type "
            "backup again." % (2 * size / 1e9 + 0.1, free / 1e9)
        )


def copy_database(name, folder):
    """Copy by the online backup API, which a writer cannot tear; check the copy."""
    source = sqlite3.connect("file:%s?mode=ro" % os.path.join(root, name), uri=True, timeout=60)
    path = os.path.join(folder, name)
    target = sqlite3.connect(path)
    source.backup(target)
    # One file without a log beside it, whatever mode the server uses.
    target.execute("pragma journal_mode=delete")
    verdict = target.execute("pragma integrity_check").fetchone()[0]
    if verdict != "ok":
        fail(
            "The database %s is damaged: %s. Nothing was sent; earlier backups stay."
            % (name, verdict)
        )
    broken = target.execute("pragma foreign_key_check").fetchall()
    if broken:
        print("@warn %s has %d rows that refer to nothing" % (name, len(broken)))
    revisions = [
        row[0]
        for table in ("alembic_version", "alembic_version_auth")
        if target.execute("select 1 from sqlite_master where name = ?", (table,)).fetchone()
        for row in target.execute("select version_num from %s" % table)
    ]
    count = target.execute("select count(*) from %s" % DATABASES[name]).fetchone()[0]
    target.close()
    source.close()
    return path, {"revisions": revisions, "count": count}


def compressed(path):
    packed = path + ".gz"
    with open(path, "rb") as source, gzip.open(packed, "wb", compresslevel=3) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    os.remove(path)
    return packed


def configuration(folder):
    path = os.path.join(folder, "configuration.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for name in CONFIGURATION:
            if os.path.exists(os.path.join(root, name)):
                archive.add(os.path.join(root, name), arcname=name)
    return path


def digest(stream):
    sha = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        sha.update(block)
    return sha.hexdigest()


def send(s3, path, key):
    """Send one file, encrypted at rest, and read it back whole."""
    with open(path, "rb") as stream:
        wanted = digest(stream)
    with open(path, "rb") as stream:
        # Not upload_file, which hides what S3 says in an error of its own.
        s3.upload_fileobj(stream, bucket, key, ExtraArgs={"ServerSideEncryption": "AES256"})
    came_back = s3.get_object(Bucket=bucket, Key=key)
    if digest(came_back["Body"]) != wanted:
        fail("s3://%s/%s came back other than it was sent. Type backup again." % (bucket, key))
    return {
        "name": os.path.basename(path),
        "bytes": os.path.getsize(path),
        "sha256": wanted,
        "etag": came_back["ETag"],  # tells later, without a download, that it is still this one
    }


def leave_stamp(started, name):
    """Note on this host when its last backup was made, and which it is."""
    part = os.path.join(root, ".backup.part")
    with open(part, "w") as stream:
        stream.write("%d %s\n" % (started.timestamp(), name))
    os.replace(part, os.path.join(root, ".backup"))


def main():
    refuse_unfit()
    started = datetime.datetime.now(datetime.timezone.utc)
    name = "%s-%s" % (started.strftime("%Y%m%dT%H%M%SZ"), socket.gethostname())
    place = "%s/%s/%s" % (prefix, environment, name)
    style = {"addressing_style": "path"} if endpoint else {}
    s3 = boto3.client("s3", endpoint_url=endpoint or None, config=Config(s3=style))
    scratch = os.path.join(root, "backups")
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        seen, parts = {}, []
        for database in DATABASES:
            path, seen[database] = copy_database(database, folder)
            parts.append(compressed(path))
        parts.append(configuration(folder))
        sent = [send(s3, path, place + "/" + os.path.basename(path)) for path in parts]
    manifest = {
        "made": started.isoformat(),
        "host": socket.gethostname(),
        "release": os.path.basename(os.path.realpath(os.path.join(root, "venv"))),
        "databases": seen,
        "files": sent,
        "seconds": (datetime.datetime.now(datetime.timezone.utc) - started).total_seconds(),
    }
    body = json.dumps(manifest, indent=2).encode()
    s3.put_object(
        Bucket=bucket,
        Key=place + "/manifest.json",
        Body=io.BytesIO(body),
        ServerSideEncryption="AES256",
    )
    leave_stamp(started, name)
    print(
        "@report "
        + json.dumps(
            {
                "place": "s3://%s/%s/" % (bucket, place),
                "runs": seen["mlflow.db"]["count"],
                "users": seen["basic_auth.db"]["count"],
                "bytes": sum(entry["bytes"] for entry in sent),
            }
        )
    )


try:
    main()
except ClientError as error:
    if error.response["Error"]["Code"] == "NoSuchBucket":
        fail("The bucket %s does not exist. Create it, or mend `bucket:` in fabric.yaml." % bucket)
    fail(
        "The bucket %s refuses the backup under %s/ (%s). Allow s3:PutObject and s3:GetObject "
        "there, then type backup again." % (bucket, prefix, error.response["Error"]["Code"])
    )
except BotoCoreError as error:
    fail("The backup could not be sent: %s. Type ./fab configure, which names why." % error)
except sqlite3.Error as error:
    fail("A database cannot be read: %s. Nothing was sent; earlier backups stay." % error)
