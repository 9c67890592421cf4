"""Tell of all backups of one environment. Runs on the host and changes nothing.

Reports {"sets": [...] newest first, "incomplete": [ids that were begun more than a day ago and
never finished], "now": ISO time}.
"""

import dataclasses
import datetime

import databases
import sets
import talk


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place


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
        "signed": manifest["signed"],
        "key": manifest.get("key"),
    }


with sets.explained():
    backups = sets.Sets(talk.request(Request).place)
    folders = backups.folders()
    found = [summary(manifest) for manifest in backups.complete(folders)]
    now = datetime.datetime.now(datetime.timezone.utc)
    cut_off = sets.abandoned(folders, now.timestamp())
    talk.report({"sets": found, "incomplete": cut_off, "now": now.isoformat()})
