"""See, without changing the bucket, what prove_bucket.py would trip over, and the newest backup.

Runs on the host in the server's own environment. Reports `bucket`, `skew`, `owner` (whose
the artifacts' prefix is), and `backup` or `backup_error`.
"""

import contextlib
import dataclasses
import datetime
import json
import re
import time

import owner
import talk
from botocore.exceptions import ClientError
from bucket import Bucket, Denied, Trouble, refuse_failing, troubled
from talk import Place, report

NOTHING = "AAAAAAAAAAAAAAAAAAAAAA=="  # no content has this MD5
SET = re.compile(r"\d{8}T\d{6}Z-.+")
RECENT = 40  # days: sets of these are listed first; hourly sets of years are many pages


@dataclasses.dataclass(frozen=True)
class Request:
    """Where the server's bucket is and that of its backups, and what of each is this server's.

    A connection has so many seconds of `patience`.
    """

    place: Place
    patience: float
    backups: dict  # a Place as well
    root: str


def look(bucket):
    s3, key = bucket.s3, bucket.prefix + "/.remote-mlflow-doctor"
    # An answer to HEAD has no body that says why it is denied; the listing's has.
    with contextlib.suppress(Denied):
        bucket.refuse_other_region(bucket.attempt("s3:ListBucket", s3.head_bucket))
    bucket.attempt("s3:ListBucket", s3.list_objects_v2, Prefix=bucket.prefix + "/", MaxKeys=1)
    permitted(bucket, "s3:GetObject", s3.get_object, Key=key)
    # S3 looks at the permission first, and then at these two conditions, which cannot hold: so
    # nothing is ever written.
    options = {"Key": key, "Body": b"x", "ContentMD5": NOTHING, "IfMatch": '"0"'}
    if permitted(bucket, "s3:PutObject", s3.put_object, **options):
        s3.delete_object(Bucket=bucket.name, Key=key)  # a store that knows neither condition


def permitted(bucket, permission, action, **options):
    """Raise Denied where the permission is missing; return True where the action was done."""
    try:
        action(Bucket=bucket.name, **options)
        return True
    except ClientError as error:
        refuse_failing(error)
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
            raise Denied(permission) from error
        return False


def sets(bucket, place, since=""):
    """List the names of the backup sets under a place, the newest first.

    <UTC time>-<server>: whatever else lies there, such as a stream, is none of them.
    """
    pages = bucket.s3.get_paginator("list_objects_v2").paginate(
        # By their year: the stream beside them is no set, and has many more objects.
        Bucket=bucket.name,
        Prefix=place + "2",
        Delimiter="/",
        StartAfter=place + since,
    )
    found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
    names = (name[len(place) :].rstrip("/") for name in found)
    return sorted((name for name in names if SET.fullmatch(name)), reverse=True)


def names(bucket, place, recent):
    """Go through the sets, the newest first; older ones are listed only where they are needed."""
    yield from sets(bucket, place, recent)
    yield from (name for name in sets(bucket, place) if name < recent)


def newest_backup(bucket, prefix, environment):
    """Tell of the newest set that has a manifest, and whether its files are those that were sent.

    Compared are sizes and entity tags, which S3 gives anew to whatever is written: so nothing needs
    to be downloaded.
    """
    place = f"{prefix}/{environment}/"
    recent = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=RECENT)
    for name in names(bucket, place, recent.strftime("%Y%m%dT")):
        listed = bucket.s3.list_objects_v2(Bucket=bucket.name, Prefix=place + name + "/")
        files = {entry["Key"].split("/")[-1]: entry for entry in listed.get("Contents", [])}
        if "manifest.json" not in files:
            continue
        body = bucket.s3.get_object(Bucket=bucket.name, Key=place + name + "/manifest.json")
        made = datetime.datetime.strptime(name[:16], "%Y%m%dT%H%M%SZ")
        return {
            "id": name,
            "made": made.replace(tzinfo=datetime.timezone.utc).timestamp(),
            "damage": damage(files, body["Body"].read()),
        }
    return None


def damage(files, manifest):
    """Say what is wrong with a set's files, or None."""
    try:
        wanted = json.loads(manifest)["files"]
    except (ValueError, KeyError, TypeError):
        return "its manifest.json cannot be read"
    for entry in wanted:
        found = files.get(entry["name"])
        if found is None:
            return f"{entry['name']} is missing"
        if found["Size"] != entry["bytes"]:
            return f"{entry['name']} has {found['Size']} bytes instead of {entry['bytes']}"
        if entry.get("etag") not in (None, found["ETag"]):
            return f"{entry['name']} is not the file that was sent"
    return None


def passing(action, deadline):
    """Do what a failure of the store's that passes by itself must not stop; again until a moment.

    Botocore would try what nobody answers again as well, and there is no time for that: a network
    that swallows everything is a finding.
    """
    while True:
        try:
            return action()
        except Trouble as trouble:
            if trouble.kind != "bucket-failing" or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def told_backup(bucket, place):
    try:
        return newest_backup(bucket, place.backup_prefix, place.environment)
    except ClientError as error:
        refuse_failing(error)
        raise


def whose(bucket, root):
    """Return the mark of another server on the prefix, None where it is ours, {} without one."""
    seen = owner.mark(bucket)
    if seen is None:
        return {}
    # One that has no id yet marked nothing.
    return None if talk.server_id(root) and owner.is_ours(seen, root, bucket) else seen


def main(place, patience, backups, root):
    bucket, deadline = None, time.monotonic() + 1.5 * patience
    try:
        bucket = troubled(lambda: Bucket(place, patience, 1))
        passing(lambda: troubled(lambda: look(bucket)), deadline)
        report(None, key="bucket")
        report(passing(lambda: troubled(lambda: whose(bucket, root)), deadline), key="owner")
        store = troubled(lambda: Bucket(backups, patience, 1, talk.backup_keys()))
        report(passing(lambda: told_backup(store, backups), deadline), key="backup")
    except Denied as error:
        where = f"s3://{place.bucket}/{place.prefix}/*"
        what = f"{error} on {where} is denied to the host's credentials."
        report_trouble(Trouble("permission", what, "Allow it in their policy."))
    except Trouble as trouble:
        report_trouble(trouble)
    except ClientError as error:  # of the backups: all else is foreseen
        report(error.response["Error"]["Code"], key="backup_error")
    if bucket and bucket.skew is not None:
        report(bucket.skew, key="skew")


def report_trouble(trouble):
    found = {"kind": trouble.kind, "what": trouble.what, "remedy": trouble.remedy}
    report(found, key="bucket")


asked = talk.request(Request)
main(asked.place, asked.patience, Place(**asked.backups), asked.root)
