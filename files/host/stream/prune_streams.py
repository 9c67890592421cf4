"""Delete streams of this server that ended longer ago than a stream leads back.

Runs on the host. The present stream stays, and so does every other server's; where this host
streams nothing, all do. Says what it deleted, and warns where it may not, or where the bucket would
keep all of it.
"""

import contextlib
import dataclasses
import datetime

import sets
import streams
import talk
from botocore.exceptions import ClientError


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    root: str
    days: int
    timer: bool = False  # whether nobody watches


def hoards(s3, bucket):
    """Tell whether the bucket keeps deleted things for ever; False where that may not be asked."""
    with contextlib.suppress(ClientError):
        if s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
            return False
        try:
            rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        except ClientError as error:
            return error.response["Error"]["Code"] == "NoSuchLifecycleConfiguration"
        return not any("NoncurrentVersionExpiration" in rule for rule in rules)
    return False


def prune(place, mine, days):
    limit = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=days)
    for stream in place.all():
        if stream.server != mine.server or stream == mine:
            continue
        newest = streams.newest(place.changes(stream))
        if newest and newest < limit:
            if not place.delete(stream):
                talk.warn("the bucket denies s3:DeleteObject: streams that are over stay there")
                return
            talk.say(f"deleted the stream of {stream.stamp}, which ended {newest.date()}")


def main(request):
    mine = streams.present(request.root)
    if mine is None:
        return
    place = streams.Streams(request.place)
    prune(place, mine, request.days)
    if not request.timer and hoards(place.s3, request.place.bucket):
        talk.warn(
            "the bucket keeps every version of what Litestream replaces, for ever: give it a "
            "lifecycle rule for noncurrent versions (docs/stream.md)"
        )


with sets.explained():
    main(talk.request(Request))
