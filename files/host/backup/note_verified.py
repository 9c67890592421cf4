"""Note beside a backup that it was restored and served. Runs on the host.

Arguments: root, bucket, backup prefix, environment, endpoint or "", id, seconds that it took.
"""

import datetime
import json
import socket
import sys

import sets

bucket, prefix, environment, endpoint, id, seconds = sys.argv[2:8]
with sets.explained():
    note = {
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "seconds": int(seconds),
        "by": socket.gethostname(),
    }
    sets.Sets(bucket, prefix, environment, endpoint).put(id, sets.VERIFIED, note)
print("@report " + json.dumps(note | {"id": id}))
