"""Delete streams of this server that ended longer ago than a stream leads back.

Runs on the host. Arguments: root, bucket, backup prefix, environment, endpoint or "", days. The
present stream stays, and so does every other server's. Says what it deleted, and warns where the
bucket would keep all of it.
"""

import contextlib
import datetime
import sys

import sets
import streams
from botocore.exceptions import ClientError

root, bucket, prefix, environment, endpoint, days = sys.argv[1:7]


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


with sets.explained():
    mine = streams.present(root)
    place = streams.Streams(bucket, prefix, environment, endpoint)
    limit = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=int(days))
    for stream in place.all():
        if mine is None or stream.server != mine.server or stream == mine:
            continue
        newest = streams.newest(place.changes(stream))
        if newest and newest < limit:
            place.delete(stream)
            print("@say deleted the stream of %s, which ended %s" % (stream.stamp, newest.date()))
    if hoards(place.s3):
        print(
            "@warn the bucket keeps every version of what Litestream replaces, for ever: give it "
            "a lifecycle rule for noncurrent versions (docs/stream.md)"
        )
