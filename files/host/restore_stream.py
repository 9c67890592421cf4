"""Bring both databases as they were at a moment from the stream into a folder, and check them.

Runs on the host and changes nothing but that folder. Arguments: root, bucket, backup prefix,
environment, endpoint or "", a moment ("latest", or ISO 8601 with its offset), the stream to take
("present", or "" for the last that was whole by then and has runs), folder. Reports {"stream": ...,
"at": ISO time of the last change that is in it, "runs": n, "users": n, "newest_run": ms or null,
"databases": {name: what databases.examine says}, "seconds": n}.
"""

import datetime
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import databases
import sets
import streams

root, bucket, prefix, environment, endpoint, at, wanted, folder = sys.argv[1:9]
LITESTREAM = os.path.join(root, "stream/bin/litestream")
OTHER = "Choose another moment, or the newest backup: ./fab restore"
QUIET = datetime.timedelta(hours=1)


def moment():
    if at == "latest":
        return None
    return datetime.datetime.fromisoformat(at.replace("Z", "+00:00"))


def candidates(place, when):
    """Give the streams that were whole at that moment, the one that began last first.

    Each with what lies of it, and the last transaction of each database by then.
    """
    for stream in place.all():
        if wanted == "" or stream == streams.present(root):
            changes = place.changes(stream)
            points = {name: streams.point(some, when) for name, some in changes.items()}
            if None not in points.values():
                yield stream, changes, points


def nothing(place):
    windows = [streams.window(place.changes(stream)) for stream in place.all()]
    spans = ["%s to %s" % tuple(map(streams.spelt, window)) for window in windows if window]
    if not spans:
        sets.fail(
            "There is no stream under s3://%s/%s. Begin one: ./fab backup.stream on; a backup is "
            "restored by: ./fab restore" % (bucket, place.folder)
        )
    sets.fail("The stream does not reach back to %s. It holds: %s" % (at, "; ".join(spans[:4])))


def end(changes, last):
    """Return the changes that a transaction was sent with first."""
    return min((each for each in changes if each.last == last), key=lambda each: each.sent)


def refuse_unfit(place, stream, ends):
    if not os.access(LITESTREAM, os.X_OK):
        sets.fail("Litestream is not on the host. Type: ./fab backup.stream on")
    need = sum(place.size(stream, name, each) for name, each in ends.items()) + 100e6
    free = shutil.disk_usage(root).free
    if free < need:
        sets.fail(
            "Restoring the stream needs %.1f GB of room on the host, and %.1f are free. Free some, "
            "then type the same again." % (need / 1e9, free / 1e9)
        )


def bring(place, stream, changes, points):
    """Restore both databases; return what the operator is told of them."""
    ends = {name: end(changes[name], last) for name, last in points.items()}
    refuse_unfit(place, stream, ends)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, mode=0o700)
    region = place.region()
    seen = {name: database(place, stream, name, last, region) for name, last in points.items()}
    return {
        "stream": "/".join(stream),
        "at": streams.spelt(max(each.sent for each in ends.values())),
        "runs": seen[databases.TRACKING]["counts"].get("runs", 0),
        "users": seen[databases.AUTH]["counts"].get("users", 0),
        "newest_run": seen[databases.TRACKING]["newest_run"],
        "databases": seen,
    }


def database(place, stream, name, last, region):
    """Have Litestream restore one, and lay it down as one file without Litestream's own tables."""
    path = os.path.join(folder, name)
    surroundings = dict(os.environ)
    # With this variable it does not start (0.5.17); Go's own name for the same is the other one.
    bundle = surroundings.pop("AWS_CA_BUNDLE", None)
    if bundle:
        surroundings["SSL_CERT_FILE"] = bundle
    words = ["restore", "-txid", "%016x" % last, "-o", path, place.url(stream, name, region)]
    done = subprocess.run([LITESTREAM, *words], env=surroundings, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        sets.fail("Litestream cannot restore %s: %s. %s" % (name, said[-1], OTHER))
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as base:
            base.execute("pragma journal_mode=delete")
            for table in ("_litestream_seq", "_litestream_lock"):
                base.execute("drop table if exists " + table)
    except sqlite3.Error as error:
        raise databases.Damaged("the database %s cannot be read: %s" % (name, error)) from error
    databases.sync(path)
    return databases.examine(path)


def main():
    began = time.monotonic()
    when = moment()
    place = streams.Streams(bucket, prefix, environment, endpoint)
    first = report = None
    for candidate in candidates(place, when):
        first = first or candidate
        report = bring(place, *candidate)
        if report["runs"]:
            break
    else:
        # One without a run was begun by a new host, and must not hide those that have some.
        if first is None:
            nothing(place)
        report = bring(place, *first)
    for name, found in report["databases"].items():
        if found["dangling"]:
            print("@warn %s has %d rows that refer to nothing" % (name, found["dangling"]))
    if when and (when - datetime.datetime.fromisoformat(report["at"][:-1] + "+00:00")) > QUIET:
        print(
            "@warn the last change before %s that the stream holds is of %s: nothing was written "
            "in between, or nothing was streamed" % (at, report["at"])
        )
    print("@report " + json.dumps(report | {"seconds": round(time.monotonic() - began, 1)}))


with sets.explained():
    try:
        main()
    except databases.Damaged as error:
        shutil.rmtree(folder, ignore_errors=True)
        sets.fail("What the stream gives back is of no use: %s. %s" % (error, OTHER))
