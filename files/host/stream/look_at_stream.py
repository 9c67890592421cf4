"""Say what lies of the present stream in the bucket, and how far back the streams lead.

Runs on the host and changes nothing. Reports {"stream": ... or null, "bytes": n, "objects": n,
"reaches": [[first, last], ...]}.
"""

import dataclasses

import sets
import streams
import talk


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    root: str


with sets.explained():
    request = talk.request(Request)
    place, mine = streams.Streams(request.place), streams.present(request.root)
    held = {stream: place.changes(stream) for stream in place.all()}
    own = [each for some in held.get(mine, {}).values() for each in some]
    windows = filter(None, map(streams.window, held.values()))
    talk.report(
        {
            "stream": mine and "/".join(mine),
            "objects": len(own),
            "bytes": sum(each.bytes for each in own),
            "reaches": [[streams.spelt(moment) for moment in window] for window in windows],
        }
    )
