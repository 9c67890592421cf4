"""Bring both databases as they were at a moment from the stream into a folder, and check them.

Runs on the host and changes nothing but that folder. Arguments: root, bucket, backup prefix,
environment, endpoint or "", a moment ("latest", or ISO 8601 with its offset), the stream to take
(<server id>/<begin>, "present", or "" for the last that was whole by then and has runs), folder,
and "own" where the server's key and id shall lie beside the databases. Reports {"stream": ...,
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

import configuration
import databases
import sets
import streams

root, bucket, prefix, environment, endpoint, at, wanted, folder, *own = sys.argv[1:]
LITESTREAM = os.path.join(root, "stream/bin/litestream")
OTHER = "Choose another moment, or the newest backup: ./fab restore"
QUIET = datetime.timedelta(hours=1)


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
    ends = {name: streams.end(changes[name], last) for name, last in points.items()}
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


def lay_own(server):
    """Lay the key and id of the stream's server beside its databases, where it is another one."""
    if server == streams.server_id(root):
        return
    configuration.write(folder, ".server-id", server + "\n")
    place = sets.Sets(bucket, prefix, environment, endpoint)
    theirs = {id: parts for id, parts in place.folders().items() if id.endswith("-" + server)}
    for manifest in place.complete(theirs)[:1] if theirs else ():
        path = os.path.join(folder, configuration.NAME)
        place.fetch(manifest, configuration.NAME, path)
        configuration.lay(path, root, folder)
        return
    print(
        "@warn no backup of that server holds its key, so this host keeps its own: whoever is "
        "logged in in a browser logs in again"
    )


def main():
    began = time.monotonic()
    when = streams.moment(at)
    place = streams.Streams(bucket, prefix, environment, endpoint)
    first = report = None
    for candidate in place.candidates(when, wanted, root):
        first = first or candidate
        report = bring(place, *candidate)
        if report["runs"]:
            break
    else:
        # One without a run was begun by a new host, and must not hide those that have some.
        if first is None:
            place.refuse(at)
        report = bring(place, *first)
    if own:
        lay_own(report["stream"].partition("/")[0])
    for name, found in report["databases"].items():
        if found["dangling"]:
            print("@warn %s has %d rows that refer to nothing" % (name, found["dangling"]))
    if when and when - streams.moment(report["at"]) > QUIET:
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
