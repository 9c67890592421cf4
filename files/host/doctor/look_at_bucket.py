"""See, without changing the bucket, what prove_bucket.py would trip over, and the newest backup.

Runs on the host in the server's own environment. Reports `bucket`, `skew`, `owner` (whose
the artifacts' prefix is), and `backup` or `backup_error`.
"""

import contextlib
import dataclasses
import datetime
import itertools
import time

import owner
import sets
import shapes
import talk
from botocore.exceptions import ClientError
from bucket import Bucket, Denied, Trouble, refuse_failing, troubled
from talk import Place, report

NOTHING = "AAAAAAAAAAAAAAAAAAAAAA=="  # no content has this MD5
MOST = 20  # sets that are looked into: somebody may have put any number there
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


def listed(backups, since=""):
    """List the ids of the backup sets, the newest first.

    <UTC time>-<server>: whatever else lies there, such as a stream, is none of them.
    """
    place = backups.folder
    pages = backups.s3.get_paginator("list_objects_v2").paginate(
        # By their year: the stream beside them is no set, and has many more objects.
        Bucket=backups.bucket,
        Prefix=place + "2",
        Delimiter="/",
        StartAfter=place + since,
    )
    found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
    names = (name[len(place) :].rstrip("/") for name in found)
    return sorted((name for name in names if shapes.ID.fullmatch(name)), reverse=True)


def ids(backups, recent, last):
    """Go through the sets, the newest first; older ones are listed only where they are needed.

    After the first ones that is this host's own `last` alone.
    """
    yield from itertools.islice(
        itertools.chain(listed(backups, recent), older(backups, recent)), MOST
    )
    if last:
        yield last.id


def older(backups, than):
    yield from (id for id in listed(backups) if id < than)


def newest_backup(backups, root):
    """Tell of the newest set that the server's key vouches for, and whether its files are whole.

    Of the newest of all, and why it is doubtful, where there is none such. Under "newer" stands
    what is newer than it and was changed, or put there: whoever may write to the bucket must not
    have an old backup pass for a fresh one.
    """
    recent = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=RECENT)
    first = newer = None
    for id in ids(backups, recent.strftime("%Y%m%dT"), sets.last(root)):
        try:
            manifest = backups.told(id, sets.MANIFEST)
        except shapes.Odd as odd:
            first = first or seen(id, f"its manifest.json {odd}")
            newer = newer or {"id": id, "why": f"its manifest.json {odd}"}
            continue
        if manifest is None:
            continue
        signed = backups.signed(manifest)
        if signed == sets.VOUCHED or backups.own is None:
            return seen(id, damage(backups, id, manifest), newer=newer)
        first = first or seen(
            id, damage(backups, id, manifest), sets.doubt(manifest | {"id": id, "signed": signed})
        )
        # Another key is that of another server, which shares the place.
        if signed == sets.NOBODY:
            newer = newer or {"id": id, "why": "nobody signed it"}
    return first


def seen(id, damage, doubt="", newer=None):
    """Return what is reported of a set; one that says to be of no time was made long ago."""
    try:
        made = datetime.datetime.strptime(id[:16], "%Y%m%dT%H%M%SZ")
        made = made.replace(tzinfo=datetime.timezone.utc).timestamp()
    except ValueError:
        made = 0
    return {"id": id, "made": made, "damage": damage, "doubt": doubt, "newer": newer}


def damage(backups, id, manifest):
    """Say what is wrong with a set's files, or None.

    Compared are sizes and entity tags, which S3 gives anew to whatever is written: so nothing needs
    to be downloaded.
    """
    there = backups.s3.list_objects_v2(Bucket=backups.bucket, Prefix=backups.key(id, ""))
    files = {entry["Key"].split("/")[-1]: entry for entry in there.get("Contents", [])}
    for entry in manifest["files"]:
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


def told_backup(backups, root):
    try:
        return newest_backup(backups, root)
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
        found = sets.Sets(backups, s3=store.s3)
        report(passing(lambda: told_backup(found, root), deadline), key="backup")
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
