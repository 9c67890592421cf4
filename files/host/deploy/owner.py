"""Say in the bucket whose artifacts lie under a prefix, and see whose they are.

The mark is the object <prefix>/.remote-mlflow-owner.json: {"server": id, "host": name, "since":
time}. Runs on the host. `look` reports the mark of another server, or null. Its functions serve
what is staged beside it as well.
"""

import dataclasses
import datetime
import json
import os
import re
import socket

from botocore.exceptions import ClientError
from bucket import Bucket, Denied, Trouble, refuse_failing, troubled
from databases import AUTH, addresses, write_whole
from postgres import is_apart
from talk import Place, fail, made_server_id, report, request, warn

NAME = ".remote-mlflow-owner.json"
ANYBODY = "anybody"
# What somebody else wrote is shown to the operator: nothing but these.
SHAPES = {"server": r"[0-9a-f]{8}", "host": r"[A-Za-z0-9._-]{1,64}", "since": r"[0-9T:.+Z-]{10,40}"}


@dataclasses.dataclass(frozen=True)
class Request:
    place: Place
    root: str
    action: str  # look, watch or claim
    over: str = ""  # whose mark a claim may replace: a server@host, "anybody", or "" for nobody


def key(bucket):
    return f"{bucket.prefix}/{NAME}"


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
        data = json.loads(body)
    except ValueError:
        data = None
    data = data if isinstance(data, dict) else {}
    return {
        name: data[name] if re.fullmatch(shape, str(data.get(name, ""))) else "unknown"
        for name, shape in SHAPES.items()
    }


def label(seen):
    return f"{seen['server']}@{seen['host']}"


def is_ours(seen, root, bucket):
    """Tell whether this server, on this host, made a mark.

    A restore gives the server another id: what was stamped under the former one stays its own. A
    copy of the host's disk, with id and stamp, is another host. Those that have a database in
    common are one server, on several hosts.
    """
    if in_common(root) and seen["server"] == made_server_id(root):
        return True
    return seen["host"] == socket.gethostname() and label(seen) in (me(root), stamped(root, bucket))


def in_common(root):
    """Tell whether several hosts can be this server: their users' database is at an address."""
    return is_apart(addresses(root)[AUTH])


def me(root):
    return f"{made_server_id(root)}@{socket.gethostname()}"


def stamped(root, bucket):
    """Return as whom this host marked the prefix, or None."""
    try:
        with open(os.path.join(root, ".owned")) as stream:
            who, _, where = stream.read().strip().partition(" ")
    except FileNotFoundError:
        return None
    return who if where == place(bucket) else None


def place(bucket):
    return f"s3://{bucket.name}/{bucket.prefix} at {bucket.endpoint or 'AWS'}"


def look(root, bucket):
    seen = mark(bucket)
    report(None if seen is None or is_ours(seen, root, bucket) else seen)


def watch(root, bucket):
    """Warn where the prefix no longer bears this server's mark; the next deploy asks about it then.

    Raises nothing: what is done beside it does not hang on that.
    """
    try:
        seen = troubled(lambda: mark(bucket))
    except (Denied, Trouble):
        return
    if seen and is_ours(seen, root, bucket):
        return
    write_whole(os.path.join(root, ".owned"), f"lost {place(bucket)}\n")
    where = f"s3://{bucket.name}/{bucket.prefix}/"
    if seen is None:
        warn(f"{where} no longer bears this server's mark. It is put back by: ./fab deploy")
        return
    warn(
        f"{where} was taken over by the server {seen['server']} on {seen['host']} at "
        f"{seen['since']}. Two servers need two prefixes: give one of them another `prefix:`. If "
        "that one is gone, take it back: ./fab deploy"
    )


def claim(root, bucket, over):
    """Mark the prefix as this server's, unless another one has done so and is not to give way.

    Its mark is reported then.
    """
    seen = mark(bucket)
    if seen and not is_ours(seen, root, bucket):
        where, host = f"s3://{bucket.name}/{bucket.prefix}/", seen["host"]
        if over not in (label(seen), ANYBODY):
            report(seen)
            raise Trouble(
                "owner",
                f"{where} was marked meanwhile by the server on {host}.",
                "Type ./fab deploy again.",
            )
        warn(
            f"{where} is taken over from the server on {host}, whose it was since "
            f"{seen['since']}: if that one still runs, give one of the two another `prefix:`"
        )
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    name, _, host = me(root).partition("@")
    if seen is None or (seen["server"] if in_common(root) else label(seen)) not in (name, me(root)):
        first = seen is None and over != ANYBODY
        write(root, bucket, {"server": name, "host": host, "since": now}, new=first)
    write_whole(os.path.join(root, ".owned"), f"{me(root)} {place(bucket)}\n")


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
        refuse_failing(error)
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
            theirs = mark(bucket)
            if theirs and is_ours(theirs, root, bucket):
                return True
            report(theirs)
            raise Trouble(
                "owner",
                f"Another server marked s3://{bucket.name}/{bucket.prefix}/ at this moment.",
                "Type ./fab deploy again.",
            ) from error
        return False


def refuse_other(root, bucket):
    """Raise Trouble unless the prefix bears this server's mark."""
    seen = mark(bucket)
    where = f"s3://{bucket.name}/{bucket.prefix}/"
    if seen is None:
        raise Trouble(
            "owner",
            f"{where} bears no server's mark, so what lies there may be another's.",
            "Type ./fab deploy, which marks it.",
        )
    if not is_ours(seen, root, bucket):
        raise Trouble(
            "owner",
            f"{where} belongs to the server {seen['server']} on {seen['host']} since "
            f"{seen['since']}: what this one does not know may be that one's.",
            "Give each server a `prefix:` of its own; if that one is gone, type ./fab deploy to "
            "take over.",
        )


def main(request):
    place = request.place
    bucket = Bucket(place)
    try:
        if request.action == "watch":
            watch(request.root, bucket)
        elif request.action == "look":
            troubled(lambda: look(request.root, bucket))
        else:
            troubled(lambda: claim(request.root, bucket, request.over))
    except Denied as error:
        fail(
            f"{error} on s3://{bucket.name}/{bucket.prefix}/* is denied to the host's credentials. "
            "Allow it in their policy, then type ./fab deploy again."
        )
    except Trouble as trouble:
        fail(str(trouble))


if __name__ == "__main__":
    main(request(Request))
