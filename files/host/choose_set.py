"""Choose the backup that a restore would bring back, and say what it would replace.

Runs on the host and changes nothing. Arguments: root, bucket, backup prefix, environment, endpoint
or "", and the set's id or "" for the newest that has runs. Reports {"set": manifest's summary,
"present": {"runs": n, "newest_run": ms or null} or null}.
"""

import json
import os
import sqlite3
import sys
from contextlib import closing

import databases
import sets

root, bucket, prefix, environment, endpoint, wanted = sys.argv[1:7]


def summary(manifest):
    return {
        "id": manifest["id"],
        "made": manifest["made"],
        "host": manifest["host"],
        "version": sets.version(manifest),
        "runs": sets.count(manifest, databases.TRACKING, "runs"),
        "users": sets.count(manifest, databases.AUTH, "users"),
        "newest_run": manifest["databases"][databases.TRACKING].get("newest_run"),
        "bytes": sum(entry["bytes"] for entry in manifest["files"]),
    }


def present():
    """Count what is there now; None where nothing can be counted."""
    try:
        path = os.path.join(root, databases.TRACKING)
        with closing(sqlite3.connect("file:%s?mode=ro" % path, uri=True, timeout=10)) as base:
            runs = base.execute("select count(*) from runs").fetchone()[0]
            return {"runs": runs, "newest_run": databases.newest_run(base)}
    except sqlite3.Error:
        return None


def chosen(found):
    if wanted:
        return sets.named(found, wanted)
    if not found:
        sets.fail(
            "There is no complete backup under s3://%s/%s/%s/. Check `bucket:` and "
            "`backup_prefix:`, or make one: ./fab backup" % (bucket, prefix, environment)
        )
    # An empty one was made by a new host, and must not hide those that have runs.
    full = [each for each in found if sets.count(each, databases.TRACKING, "runs")]
    return (full or found)[0]


with sets.explained():
    found = sets.Sets(bucket, prefix, environment, endpoint).complete()
    print("@report " + json.dumps({"set": summary(chosen(found)), "present": present()}))
