"""Delete streams of this server that ended longer ago than a stream leads back.

Runs on the host. Arguments: root, bucket, backup prefix, environment, endpoint or "", days, and
"timer" where nobody watches. The present stream stays, and so does every other server's; where this
host streams nothing, all do. Says what it deleted, and warns where it may not, or where the bucket
would keep all of it.
"""

import contextlib
import datetime
import sys

import sets
import streams
from botocore.exceptions import ClientError

root, bucket, prefix, environment, endpoint, days, *timer = sys.argv[1:]


def hoards(s3):
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


def prune(place, mine):
    limit = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=int(days))
    for stream in place.all():
        if stream.server != mine.server or stream == mine:
            continue
        newest = streams.newest(place.changes(stream))
        if newest and newest < limit:
            if not place.delete(stream):
                print("@warn the bucket denies s3:DeleteObject: streams that are over stay there")
                return
            print("@say deleted the stream of %s, which ended %s" % (stream.stamp, newest.date()))


with sets.explained():
    mine = streams.present(root)
    if mine:
        place = streams.Streams(bucket, prefix, environment, endpoint)
        prune(place, mine)
        if not timer and hoards(place.s3):
            print(
                "@warn the bucket keeps every version of what Litestream replaces, for ever: give "
                "it a lifecycle rule for noncurrent versions (docs/stream.md)"
            )
