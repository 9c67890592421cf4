"""Choose the backup that a restore would bring back, and say what it would replace.

Runs on the host and changes nothing. Arguments: root, bucket, backup prefix, environment, endpoint
or "", and the set's id or "" for the newest that has runs. Reports {"set": manifest's summary,
"present": {"runs": n, "newest_run": ms or null} or null}.
"""

import json
import sys

import databases
import postgres
import sets

root, bucket, prefix, environment, endpoint, wanted = sys.argv[1:7]
ours = databases.on_postgres(root)


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


def chosen(found):
    if wanted:
        manifest = sets.named(found, wanted)
        sets.refuse_other_kind(manifest, ours)
        return manifest
    if not found:
        sets.fail(
            "There is no complete backup under s3://%s/%s/%s/. Check `bucket:` and "
            "`backup_prefix:`, or make one: ./fab backup" % (bucket, prefix, environment)
        )
    fitting = [each for each in found if sets.on_postgres(each) == ours]
    if not fitting:
        sets.refuse_other_kind(found[0], ours)
    # An empty one was made by a new host, and must not hide those that have runs.
    full = [each for each in fitting if sets.count(each, databases.TRACKING, "runs")]
    return (full or fitting)[0]


def present():
    if ours:
        return postgres.present(databases.addresses(root)[databases.TRACKING])
    return databases.present(root)


with sets.explained():
    found = sets.Sets(bucket, prefix, environment, endpoint).complete()
    print("@report " + json.dumps({"set": summary(chosen(found)), "present": present()}))
