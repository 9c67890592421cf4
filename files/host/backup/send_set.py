"""Send one backup set to the operator's machine, as a tar on file descriptor 3.

Runs on the host and changes nothing. Arguments: root, bucket, backup prefix, environment, endpoint
or "", and the set's id or "" for the newest. Its manifest comes first; nothing is kept on the host.
"""

import os
import sys
import tarfile

import sets
from botocore.exceptions import ClientError

_, bucket, prefix, environment, endpoint, wanted = sys.argv[1:7]


def send(archive, name, size, body):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    archive.addfile(entry, body)


with sets.explained():
    place = sets.Sets(bucket, prefix, environment, endpoint)
    found = place.complete()
    manifest = sets.named(found, wanted) if wanted else sets.newest(found)
    id = manifest["id"]
    with os.fdopen(3, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for name in (sets.MANIFEST, *(entry["name"] for entry in manifest["files"])):
            try:
                answer = place.s3.get_object(Bucket=bucket, Key=place.key(id, name))
            except ClientError as error:
                if error.response["Error"]["Code"] not in sets.GONE:
                    raise
                sets.fail(
                    "The backup %s is damaged: %s is missing. Choose another: ./fab backup.list"
                    % (id, name)
                )
            send(archive, "%s/%s" % (id, name), answer["ContentLength"], answer["Body"])
