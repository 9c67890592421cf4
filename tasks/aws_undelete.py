"""Bring back what was deleted in the bucket, while S3 keeps it."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import operator_policy
from tasks.changes.gc import age
from tasks.changes.stream import place as place_of_stream
from tasks.engine.console import confirm, console, printable
from tasks.engine.tables import counted, size_text
from tasks.engine.task import local
from tasks.laptop.account.deleted import Place, Wanted, brought_back, tallied
from tasks.laptop.account.refusals import in_our_words
from tasks.laptop.account.session import PROFILE, sign_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.engine.settings import Settings
    from tasks.engine.task import Local
    from tasks.laptop.account.deleted import Tally
    from tasks.laptop.account.session import Account

NAMESPACE = "aws"

# How long the rules of docs/aws.md keep what was deleted.
SINCE = "30d"

MISSING = (
    "Runs that MLflow does not know any more come back by ./fab restore; ./fab gc --orphans shows "
    "files without one."
)


@local(
    help={
        "prefix": "only what is below this, such as mlflow-artifacts/3/ (default: all of ours)",
        "match": "only names of this pattern, such as '*/model.pkl'",
        "since": f"only what was deleted within this: 12h, 7d, 4w (default: {SINCE})",
        "profile": PROFILE,
        "yes": "do not ask",
    }
)
def undelete(
    c: Local,
    prefix: str = "",
    match: str = "*",
    since: str = SINCE,
    profile: str | None = None,
    yes: bool = False,
) -> None:
    """Undo deletions in the bucket.

    Artifacts and backups of this server, as long as S3 keeps their versions; shows which, and asks.
    What is there stays as it is, also what was overwritten. Segments of a stream come back only
    where --prefix names their place.

    Example: fab aws.undelete --match '*/model.pkl'
    """
    settings, _ = c.place()
    refuse_elsewhere(settings)
    where = places(settings, prefix)
    wanted = Wanted(time.time() - age(since, "--since"), pattern=match)
    with in_our_words(operator_policy.action):
        account = sign_in(settings, profile)
        console.say(f"looking at {account.described()}")
        refuse_without_versions(account, where)
        with console.waiting("looking for what was deleted"):
            found = tallied(account, where, wanted)
        show(found, where, since)
        if not found.count:
            return
        if not confirm(f"Bring back {amount(found)}?", yes):
            raise Exit("Nothing was changed.")
        # What is deleted from now on was not asked about.
        bring_back(account, where, Wanted(wanted.since, found.last, match))


def places(settings: Settings, below: str = "") -> list[Place]:
    """Return the server's own places, those below a prefix alone where one is given.

    The stream deletes its segments all the time: it is left out unless the prefix is in it. Raises
    Exit where nothing of the server's is below the prefix.
    """
    stream = f"{place_of_stream(settings)}/"
    ours = {
        f"{settings.artifact_prefix}/": settings.require_bucket(),
        f"{settings.backup_prefix}/{settings.label}/": settings.require_backup_bucket(),
    }
    found = []
    for prefix, bucket in ours.items():
        if below.startswith(prefix) or prefix.startswith(below):
            narrow = max(prefix, below, key=len)
            found.append(Place(bucket, narrow, "" if narrow.startswith(stream) else stream))
    if not found:
        raise Exit(f"--prefix is {below!r}. Give one that begins with {' or '.join(ours)}")
    return found


def refuse_elsewhere(settings: Settings) -> None:
    """Raise Exit where the bucket is none of the account's."""
    settings.require_bucket()
    if settings.endpoint_url:
        raise Exit(f"The bucket is at {settings.endpoint_url}, not at AWS: use that store's tools.")


def refuse_without_versions(account: Account, where: Sequence[Place]) -> None:
    """Raise Exit where a bucket has never kept what is deleted; raises botocore's exceptions."""
    for bucket in dict.fromkeys(place.bucket for place in where):
        status = account.client("s3").get_bucket_versioning(Bucket=bucket).get("Status")
        if not status:
            raise Exit(
                f"{bucket} has no versioning: what is deleted there is gone. ./fab aws.audit --fix "
                "turns it on for what comes."
            )
        if status != "Enabled":
            console.warn(
                f"versioning of {bucket} is suspended: what was deleted since then is gone"
            )


def show(found: Tally, where: Sequence[Place], since: str) -> None:
    """Say what could come back, and what could not."""
    place = " and ".join(f"s3://{place.bucket}/{place.prefix}" for place in where)
    if found.count:
        console.say(f"deleted within {since} below {place}: {amount(found)}")
    else:
        console.say(f"nothing to bring back that was deleted within {since} below {place}")
    for key in found.first:
        when = datetime.fromtimestamp(key.deleted or 0, timezone.utc)
        name, size = printable(key.name), size_text(key.size or 0)
        console.say(f"  {name}  deleted {when:%Y-%m-%d %H:%M} UTC, {size}")
    if found.count > len(found.first):
        more = found.count - len(found.first)
        console.say(f"  and {more} more (--prefix and --match show fewer)")
    if found.gone:
        console.say(f"gone for good, no version is left: {counted(found.gone, 'object')}")
    if found.overwritten:
        console.say(
            f"overwritten, left as it is: {counted(found.overwritten, 'object')}; S3 keeps the "
            "versions before, which `aws s3api list-object-versions` lists"
        )


def amount(found: Tally) -> str:
    """Spell how much it is: 12 objects, 3.4 MB."""
    return f"{counted(found.count, 'object')}, {size_text(found.bytes)}"


def bring_back(account: Account, where: Sequence[Place], wanted: Wanted) -> None:
    """Bring it back, and say how far that is; raises Exit and botocore's exceptions."""
    back = 0
    with console.waiting("bringing it back"):
        for place in where:
            for more in brought_back(account, place, wanted):
                back += more
    console.say(f"✓ brought back {counted(back, 'object')}", style="green")
    console.say(MISSING)
