"""Tell of all backups of one environment. Runs on the host and changes nothing.

Arguments: root, bucket, backup prefix, environment, endpoint or "". Reports {"sets": [...] newest
first, "incomplete": [ids that were begun more than a day ago and never finished], "now": ISO time}.
"""

import datetime
import json
import sys

import databases
import sets

_, bucket, prefix, environment, endpoint = sys.argv[1:6]


def summary(manifest):
    verified = manifest["verified"] or {}
    return {
        "id": manifest["id"],
        "place": manifest["place"],
        "made": manifest["made"],
        "made_on": manifest["host"],
        "version": sets.version(manifest),
        "bytes": sum(entry["bytes"] for entry in manifest["files"]),
        "runs": sets.count(manifest, databases.TRACKING, "runs"),
        "users": sets.count(manifest, databases.AUTH, "users"),
        "verified": verified.get("at"),
    }


with sets.explained():
    place = sets.Sets(bucket, prefix, environment, endpoint)
    folders = place.folders()
    found = [summary(manifest) for manifest in place.complete(folders)]
    now = datetime.datetime.now(datetime.timezone.utc)
    cut_off = sets.abandoned(folders, now.timestamp())
    report = {"sets": found, "incomplete": cut_off, "now": now.isoformat()}
    print("@report " + json.dumps(report))
