"""Choose the stream that brings a moment back, and say what a restore would replace.

Runs on the host and changes nothing. Arguments: root, bucket, backup prefix, environment, endpoint
or "", a moment ("latest", or ISO 8601 with its offset), and "on" where this host streams now.
Reports {"stream": ..., "at": ISO time of the last change that it would bring, "present": {"runs":
n, "newest_run": ms or null, "younger": runs that began after that} or null}.
"""

import json
import sys

import databases
import sets
import streams

root, bucket, prefix, environment, endpoint, at, *on = sys.argv[1:]


def chosen(place):
    """Return the stream that was whole by that moment and began last, and its last changes."""
    when, mine = streams.moment(at), streams.present(root)
    found = list(place.candidates(when, "", root))
    # How long nothing was written is known of the stream that still runs alone.
    running = on and any(stream == mine for stream, _, _ in found)
    if not found or (when and not running and place.ended_before(when)):
        place.refuse(at)
    now = databases.present(root)
    if when is None and not (now and now["runs"]):
        # What a new host sends of its empty databases must not hide what another had.
        found = [each for each in found if each[0] != mine] or found
    stream, changes, points = found[0]
    return stream, max(streams.end(changes[name], last).sent for name, last in points.items())


with sets.explained():
    stream, last = chosen(streams.Streams(bucket, prefix, environment, endpoint))
    present = databases.present(root, (last + streams.SECOND).timestamp() * 1000)
    print(
        "@report "
        + json.dumps({"stream": "/".join(stream), "at": streams.spelt(last), "present": present})
    )
