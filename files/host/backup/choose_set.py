"""Choose the backup that a restore would bring back, and say what it would replace.

Runs on the host and changes nothing. Reports {"set": manifest's summary, "present": {"runs": n,
"newest_run": ms or null} or null}.
"""

import dataclasses

import databases
import postgres
import sets
import talk


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    root: str
    id: str = ""  # of the set; the newest that has runs where there is none


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


def chosen(place, id, ours):
    """Return the set of this id, or the newest that fits; `ours` is whether PostgreSQL serves."""
    found = sets.Sets(place).complete(asked=id)
    if id:
        manifest = sets.named(found, id)
        sets.refuse_other_kind(manifest, ours)
        return manifest
    if not found:
        talk.fail(
            f"There is no complete backup under s3://{place.bucket}/{place.backup_prefix}/"
            f"{place.environment}/. Check `bucket:` and `backup_prefix:`, or make one: ./fab backup"
        )
    fitting = [each for each in found if sets.on_postgres(each) == ours]
    if not fitting:
        sets.refuse_other_kind(found[0], ours)
    # An empty one was made by a new host, and must not hide those that have runs.
    full = [each for each in fitting if sets.count(each, databases.TRACKING, "runs")]
    return (full or fitting)[0]


def main(request):
    ours = databases.on_postgres(request.root)
    if ours:
        present = postgres.present(databases.addresses(request.root)[databases.TRACKING])
    else:
        present = databases.present(request.root)
    manifest = chosen(request.place, request.id, ours)
    talk.report({"set": summary(manifest), "present": present})


with sets.explained():
    main(talk.request(Request))
