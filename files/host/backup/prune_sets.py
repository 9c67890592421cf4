"""Delete the backups that need not stay, and what cut-off ones left. Runs on the host.

Reports {"kept": n, "pruned": [ids], "bytes": n, "incomplete": [ids], "damaged": [ids],
"unsigned": n}. What this server's key does not vouch for is left alone: whoever may write to the
bucket could have newer ones wear away the others. It is thinned out, for itself, only where a
person asks for that.
"""

import dataclasses
import datetime

import databases
import sets
import talk
from botocore.exceptions import ClientError
from retention import kept


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    keep: dict  # how many stay of each age, as retention.kept takes it
    how: str  # look deletes nothing, delete does, timer does where it may
    unsigned: bool = False  # whether those go too that nobody here vouches for


def whole(manifest, parts):
    """Tell whether all files of a set are in the bucket as they were sent."""
    return all(
        (part := parts.get(entry["name"]))
        and part["Size"] == entry["bytes"]
        and entry.get("etag") in (None, part["ETag"])
        for entry in manifest["files"]
    )


def staying(found, keep, now):
    """Return the ids of the sets that stay, of those that are whole.

    Several hosts of one environment share a place: each keeps its own, or the one that is always
    the last of the hour would wear away all others'. So do those that nobody vouches for.
    """
    servers = {}
    for each in found:
        servers.setdefault((each["signed"], each.get("server") or each["host"]), []).append(each)
    return {id for own in servers.values() for id in staying_of_one(own, keep, now)}


def staying_of_one(found, keep, now):
    made = {each["id"]: datetime.datetime.fromisoformat(each["made"]) for each in found}
    moments = kept(list(made.values()), keep, now)
    stay = {id for id, moment in made.items() if moment in moments}
    # A server that lost its runs must not wear away the backups that have them.
    full = [each for each in found if sets.count(each, databases.TRACKING, "runs")]
    verified = [each for each in found if each["verified"]]
    return stay | {each["id"] for each in (*full[:1], *verified[:1])}


def main(request):
    backups = sets.Sets(request.place)
    folders = backups.folders()
    every = backups.complete(folders)
    ours = every if request.unsigned else sets.vouched(every)
    found = [each for each in ours if whole(each, folders[each["id"]])]
    now = datetime.datetime.now(datetime.timezone.utc)
    stay = staying(found, request.keep, now)
    pruned = [each for each in found if each["id"] not in stay]
    report = {
        "kept": len(stay),
        "pruned": [each["id"] for each in pruned],
        "bytes": sum(entry["bytes"] for each in pruned for entry in each["files"]),
        "incomplete": sets.abandoned(folders, now.timestamp()),
        "damaged": [each["id"] for each in ours if each not in found],
        "unsigned": len(every) - len(ours),
    }
    if request.how != "look":
        for id in (*report["pruned"], *report["incomplete"]):
            backups.delete(id, folders[id])
    talk.report(report)


with sets.explained():
    request = talk.request(Request)
    try:
        main(request)
    except ClientError as error:
        if error.operation_name != "DeleteObject" or talk.store_trouble(error):
            raise
        reason = (
            "Old backups stay: the bucket denies s3:DeleteObject to the host "
            f"({error.response['Error']['Code']}). Allow it on the backups, or have a rule of the "
            "bucket's expire them"
        )
        if request.how != "timer":
            talk.fail(reason + ", then run the same command again.")
        # The backup was made: that it cannot be thinned out is no reason to call it failed.
        talk.warn(reason + ".")
