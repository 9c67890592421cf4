"""Say what lies of the present stream in the bucket, and how far back the streams lead.

Runs on the host and changes nothing. Arguments: root, bucket, backup prefix, environment, endpoint
or "". Reports {"stream": ... or null, "bytes": n, "objects": n, "reaches":
[[first, last], ...]}.
"""

import json
import sys

import sets
import streams

root, bucket, prefix, environment, endpoint = sys.argv[1:6]


with sets.explained():
    place, mine = streams.Streams(bucket, prefix, environment, endpoint), streams.present(root)
    held = {stream: place.changes(stream) for stream in place.all()}
    own = [each for some in held.get(mine, {}).values() for each in some]
    windows = filter(None, map(streams.window, held.values()))
    report = {
        "stream": mine and "/".join(mine),
        "objects": len(own),
        "bytes": sum(each.bytes for each in own),
        "reaches": [[streams.spelt(moment) for moment in window] for window in windows],
    }
    print("@report " + json.dumps(report))
