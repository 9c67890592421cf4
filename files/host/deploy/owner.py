"""Say in the bucket whose artifacts lie under a prefix, and see whose they are.

The mark is the object <prefix>/.remote-mlflow-owner.json: {"server": id, "host": name, "since":
time}. Runs on the host. Arguments: `look` or `claim`, root, bucket, prefix, region or "", endpoint
or "", and for `claim` whose mark may be replaced: a server@host, "anybody", or "" for nobody.
`look` reports the mark of another server, or null. Its functions serve what is staged beside it as
well.
"""

import datetime
import json
import os
import re
import secrets
import socket
import sys

from botocore.exceptions import ClientError
from bucket import Bucket, Denied, Trouble, troubled
from databases import AUTH, addresses, write_whole
from postgres import is_apart

NAME = ".remote-mlflow-owner.json"
ANYBODY = "anybody"
# What somebody else wrote is shown to the operator: nothing but these.
SHAPES = {"server": r"[0-9a-f]{8}", "host": r"[A-Za-z0-9._-]{1,64}", "since": r"[0-9T:.+Z-]{10,40}"}


def key(bucket):
    return "%s/%s" % (bucket.prefix, NAME)


def mark(bucket):
    """Return the prefix's mark, or None where nobody marked it."""

    def read(**options):
        try:
            return bucket.s3.get_object(**options)["Body"].read(4096)
        except bucket.s3.exceptions.NoSuchKey:
            return None

    body = bucket.attempt("s3:GetObject", read, Key=key(bucket))
    return None if body is None else readable(body)


def readable(body):
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    told = told if isinstance(told, dict) else {}
    return {
        name: told[name] if re.fullmatch(shape, str(told.get(name, ""))) else "unknown"
        for name, shape in SHAPES.items()
    }


def label(seen):
    return "%(server)s@%(host)s" % seen


def is_ours(seen, root, bucket):
    """Tell whether this server, on this host, made a mark.

    A restore gives the server another id: what was stamped under the former one stays its own. A
    copy of the host's disk, with id and stamp, is another host. Those that have a database in
    common are one server, on several hosts.
    """
    if in_common(root) and seen["server"] == server_id(root):
        return True
    return seen["host"] == socket.gethostname() and label(seen) in (me(root), stamped(root, bucket))


def in_common(root):
    """Tell whether several hosts can be this server: their users' database is at an address."""
    return is_apart(addresses(root)[AUTH])


def server_id(root):
    """Return this server's id, made at the first need."""
    path = os.path.join(root, ".server-id")
    if not os.path.exists(path):
        write_whole(path, secrets.token_hex(4) + "\n")
    with open(path) as stream:
        return stream.read().strip()


def me(root):
    return "%s@%s" % (server_id(root), socket.gethostname())


def stamped(root, bucket):
    """Return as whom this host marked the prefix, or None."""
    try:
        with open(os.path.join(root, ".owned")) as stream:
            who, _, where = stream.read().strip().partition(" ")
    except FileNotFoundError:
        return None
    return who if where == place(bucket) else None


def place(bucket):
    return "s3://%s/%s at %s" % (bucket.name, bucket.prefix, bucket.endpoint or "AWS")


def look(root, bucket):
    seen = mark(bucket)
    print("@report " + json.dumps(None if seen is None or is_ours(seen, root, bucket) else seen))


def claim(root, bucket, over):
    """Mark the prefix as this server's, unless another one has done so and is not to give way."""
    seen = mark(bucket)
    if seen and not is_ours(seen, root, bucket):
        where, host = "s3://%s/%s/" % (bucket.name, bucket.prefix), seen["host"]
        if over not in (label(seen), ANYBODY):
            raise Trouble(
                "owner",
                "%s was marked meanwhile by the server on %s." % (where, host),
                "Type deploy again.",
            )
        print("@warn %s is taken over from the server on %s" % (where, host))
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    name, _, host = me(root).partition("@")
    if seen is None or (seen["server"] if in_common(root) else label(seen)) not in (name, me(root)):
        first = seen is None and over != ANYBODY
        write(root, bucket, {"server": name, "host": host, "since": now}, new=first)
    write_whole(os.path.join(root, ".owned"), "%s %s\n" % (me(root), place(bucket)))


def write(root, bucket, content, new):
    options = {"Key": key(bucket), "Body": json.dumps(content).encode()}
    if new and written_first(root, bucket, options):
        return
    bucket.attempt("s3:PutObject", bucket.s3.put_object, **options)


def written_first(root, bucket, options):
    """Write unless another host did at this very moment; False where the store cannot tell."""
    try:
        bucket.s3.put_object(Bucket=bucket.name, IfNoneMatch="*", **options)
        return True
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
            theirs = mark(bucket)
            if theirs and is_ours(theirs, root, bucket):
                return True
            raise Trouble(
                "owner",
                "Another server marked s3://%s/%s/ at this moment." % (bucket.name, bucket.prefix),
                "Type deploy again.",
            ) from error
        return False


def refuse_other(root, bucket):
    """Raise Trouble unless the prefix bears this server's mark."""
    seen = mark(bucket)
    where = "s3://%s/%s/" % (bucket.name, bucket.prefix)
    if seen is None:
        raise Trouble(
            "owner",
            "%s bears no server's mark, so what lies there may be another's." % where,
            "Type deploy, which marks it.",
        )
    if not is_ours(seen, root, bucket):
        raise Trouble(
            "owner",
            "%s belongs to the server %s on %s since %s: what this one does not know may be that "
            "one's." % (where, seen["server"], seen["host"], seen["since"]),
            "Give each server a `prefix:` of its own; if that one is gone, type deploy to take "
            "over.",
        )


def main(action, root, name, prefix, region, endpoint, *rest):
    bucket = Bucket(name, prefix, region, endpoint)
    try:
        troubled(lambda: {"look": look, "claim": claim}[action](root, bucket, *rest))
    except Denied as error:
        print(
            "@fail %s on s3://%s/%s/* is denied to the host's credentials. Allow it in their "
            "policy, then type deploy again." % (error, name, prefix)
        )
        sys.exit(1)
    except Trouble as trouble:
        print("@fail %s" % trouble)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
