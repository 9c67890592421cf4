"""Choose the stream that brings a moment back, and say what a restore would replace.

Runs on the host and changes nothing. Reports {"stream": ..., "at": ISO time of the last change that
it would bring, "present": {"runs": n, "newest_run": ms or null, "younger": runs that began after
that} or null}.
"""

import dataclasses

import databases
import sets
import streams
import talk


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    root: str
    at: str  # a moment: latest, or ISO 8601 with its offset
    on: bool  # whether this host streams now


def chosen(request):
    """Return the stream that was whole by that moment and began last, and its last changes."""
    when, mine = streams.moment(request.at), streams.present(request.root)
    place = streams.Streams(request.place)
    found = list(place.candidates(when, "", request.root))
    # How long nothing was written is known of the stream that still runs alone.
    running = request.on and any(stream == mine for stream, _, _ in found)
    if not found or (when and not running and place.ended_before(when)):
        place.refuse(request.at)
    now = databases.present(request.root)
    if when is None and not (now and now["runs"]):
        # What a new host sends of its empty databases must not hide what another had.
        found = [each for each in found if each[0] != mine] or found
    stream, changes, points = found[0]
    return stream, max(streams.end(changes[name], last).sent for name, last in points.items())


with sets.explained():
    request = talk.request(Request)
    stream, last = chosen(request)
    present = databases.present(request.root, (last + streams.SECOND).timestamp() * 1000)
    talk.report({"stream": "/".join(stream), "at": streams.spelt(last), "present": present})
