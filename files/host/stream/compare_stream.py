"""Say how the users that a stream would bring differ from those of the newest vouched backup.

Runs on the host and changes nothing but a scratch folder, which goes again. Nobody signs a stream:
whoever may write to the bucket can make one up. Reports {"doubts": [lines], "keys": the ids of
other backup keys that signed sets, the newest first}.
"""

import shutil

import databases
import restore_stream
import sets
import streams
import talk


def main(request):
    place = streams.Streams(request.place)
    candidates = place.candidates(streams.moment(request.at), request.stream, request.root)
    found = next(iter(candidates), None)
    if found is None:
        place.refuse(request.at)
    try:
        restore_stream.bring(request, place, found, [databases.AUTH])
        lines = restore_stream.doubts(request)
    finally:
        shutil.rmtree(request.folder, ignore_errors=True)
    every = (
        sets.Sets(request.place, request.key).complete()
        if restore_stream.UNVOUCHED in lines
        else []
    )
    talk.report({"doubts": lines, "keys": sets.other_keys(every)})


if __name__ == "__main__":
    with restore_stream.explained():
        main(talk.request(restore_stream.Request))
