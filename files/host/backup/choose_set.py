"""Choose the backup that a restore would bring back, and say what it would replace.

Runs on the host and changes nothing. Reports {"set": manifest's summary, "present": {"runs": n,
"newest_run": ms or null} or null, "doubt": why nobody here vouches for it, or "", "keys": the ids
of other backup keys that signed sets, the newest first}.
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
    key: str = ""  # another backup key than the server's own, which vouches for sets as well


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


def chosen(request, found, ours):
    """Return the set that is asked for, or the newest that fits; `ours`: whether PostgreSQL serves.

    One that nobody vouches for is chosen only where there is no other.
    """
    place, id = request.place, request.id
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
    sets.warn_of_loss(found, request.root)
    signed = sets.vouched(fitting)
    # An empty one was made by a new host, and must not hide those that have runs.
    full = [each for each in signed or fitting if sets.count(each, databases.TRACKING, "runs")]
    best = (full or signed or fitting)[0]
    if signed and sets.vouched(fitting[:1]) == []:
        talk.warn(f"a newer one is left alone. {sets.doubt(fitting[0])}")
    return best


def main(request):
    ours = databases.on_postgres(request.root)
    if ours:
        present = postgres.present(databases.addresses(request.root)[databases.TRACKING])
    else:
        present = databases.present(request.root)
    found = sets.Sets(request.place, request.key).complete(asked=request.id)
    manifest = chosen(request, found, ours)
    doubt = "" if manifest["signed"] == sets.VOUCHED else sets.doubt(manifest)
    seen = {"set": summary(manifest), "present": present}
    talk.report(seen | {"doubt": doubt, "keys": sets.other_keys(found)})


with sets.explained():
    main(talk.request(Request))
