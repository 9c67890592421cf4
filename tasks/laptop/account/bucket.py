"""The bucket of a server: made, set up, and taken away with all its versions."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.engine.account_parts import Bucket, canonical
from tasks.engine.tables import counted
from tasks.laptop.account import mend
from tasks.laptop.account.look import UNSET
from tasks.laptop.account.patience import patiently
from tasks.laptop.account.refusals import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tasks.engine.account_parts import Names
    from tasks.laptop.account.session import Account

MOST = 1000  # objects that S3 deletes at once

TAKEN = (
    "The bucket {name} is another account's, or you lack s3:ListBucket on it. Set another "
    "`bucket:`, or ask for that right: ./fab aws.policy --operator prints all that is needed."
)

UNTAGGED = (
    "There is a bucket {name} in this account that is none of ours: it lacks the tag "
    "remote-mlflow. Set another `bucket:`, or that very one to have it used as it is."
)


def rules(label: str, artifacts: str, backups: str) -> list[dict[str, Any]]:
    """Return the lifecycle rules of a server's prefixes; none touches what is current.

    What is deleted or overwritten can be had back for 30 days; of the stream, which writes all day,
    for one.
    """
    kept = [
        _forgetting(f"versions-{artifacts}", f"{artifacts}/", 30),
        _forgetting(f"versions-{backups}", f"{backups}/", 30),
        _forgetting(f"stream-{backups}-{label}", f"{backups}/{label}/stream/", 1),
    ]
    # S3 takes this only in a rule of its own.
    markers = {
        "ID": "remote-mlflow-markers",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }
    return [mend.UNFINISHED, *kept, markers]


def _forgetting(name: str, prefix: str, days: int) -> dict[str, Any]:
    return {
        "ID": f"remote-mlflow-{name}",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "NoncurrentVersionExpiration": {"NoncurrentDays": days},
    }


def wanted(name: str, rules: Sequence[dict[str, Any]]) -> Bucket:
    """Return a bucket as it should be."""
    return Bucket(name, True, True, True, True, frozenset(map(canonical, rules)))


# -- looking -----------------------------------------------------------------------------------


def look(account: Account, name: str) -> Bucket | None:
    """Return how a bucket is set up; None where there is none.

    Raises Exit where it is another account's, and botocore's exceptions.
    """
    s3 = account.client("s3")
    if not exists(account, name):
        return None

    def ask(operation: str) -> dict[str, Any]:
        return _unless_unset(lambda: getattr(s3, operation)(Bucket=name))

    blocks = ask("get_public_access_block").get("PublicAccessBlockConfiguration", {})
    policy = json.loads(ask("get_bucket_policy").get("Policy", "{}"))
    lifecycle = ask("get_bucket_lifecycle_configuration").get("Rules", [])
    return Bucket(
        name,
        versioned=ask("get_bucket_versioning").get("Status") == "Enabled",
        encrypted="ServerSideEncryptionConfiguration" in ask("get_bucket_encryption"),
        closed=bool(blocks) and all(blocks.values()),
        tls_only=mend.tls_only(name) in policy.get("Statement", []),
        rules=frozenset(
            canonical(rule) for rule in lifecycle if rule.get("ID", "").startswith("remote-mlflow-")
        ),
    )


def exists(account: Account, name: str) -> bool:
    """Tell whether there is such a bucket; raises Exit where another account has it."""
    from botocore.exceptions import ClientError

    try:
        account.client("s3").head_bucket(Bucket=name, ExpectedBucketOwner=account.caller.account)
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchBucket"):
            return False
        if code_of(error) in ("403", "AccessDenied"):
            raise Exit(TAKEN.format(name=name)) from None
        if code_of(error) in ("301", "PermanentRedirect"):
            raise Exit(
                f"The bucket {name} is not in {account.region}. Set its `region:`, or another "
                "`bucket:`."
            ) from None
        raise
    return True


def is_ours(account: Account, names: Names, name: str) -> bool:
    """Tell whether a bucket bears our tag.

    One with our own name, without any tag and empty, is ours as well: its making was interrupted
    before it got one, and nobody else can have made it.
    """
    s3 = account.client("s3")
    tags = _unless_unset(lambda: s3.get_bucket_tagging(Bucket=name)).get("TagSet", [])
    if tags or name != names.bucket:
        return names.owns(tags)
    return not s3.list_object_versions(Bucket=name, MaxKeys=1).keys() & {
        "Versions",
        "DeleteMarkers",
    }


def _unless_unset(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError as error:
        if code_of(error) not in UNSET:
            raise
        return {}


# -- making ------------------------------------------------------------------------------------


def make(account: Account, names: Names, name: str) -> None:
    """Make a bucket of this server, and tag it; one that is there is as good.

    Raises Exit where another account has the name.
    """
    from botocore.exceptions import ClientError

    s3 = account.client("s3")
    more: dict[str, Any] = {}
    # us-east-1 wants no word about where.
    if account.region != "us-east-1":
        more["CreateBucketConfiguration"] = {"LocationConstraint": account.region}
    if name == names.bucket:
        more["BucketNamespace"] = "account-regional"
    try:
        s3.create_bucket(Bucket=name, **more)
    except ClientError as error:
        if code_of(error) == "BucketAlreadyExists":
            raise Exit(TAKEN.format(name=name)) from None
        if code_of(error) != "BucketAlreadyOwnedByYou":
            raise
    patiently(lambda: s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": names.tags}))


def set_up(account: Account, name: str, rules: Sequence[dict[str, Any]]) -> None:
    """Have a bucket be as it should; rules and statements of others stay."""
    for repair in (mend.keep_versions, mend.encrypt, mend.block_public, mend.require_tls):
        repair(account, name)
    mend.merge_rules(account, name, rules)


# -- taking away -------------------------------------------------------------------------------


def remove(account: Account, name: str) -> int:
    """Remove a bucket with every version of every object; return how many versions there were."""
    s3, count = account.client("s3"), 0
    for uploads in s3.get_paginator("list_multipart_uploads").paginate(Bucket=name):
        for one in uploads.get("Uploads", []):
            _unless_gone(
                lambda one=one: s3.abort_multipart_upload(  # type: ignore[misc]
                    Bucket=name, Key=one["Key"], UploadId=one["UploadId"]
                )
            )
    for versions in in_parts(account, name):
        answer = s3.delete_objects(Bucket=name, Delete={"Objects": versions, "Quiet": True})
        if refused := answer.get("Errors"):
            first = refused[0]
            raise Exit(
                f"{counted(len(refused), 'object')} of {name} cannot be deleted, "
                f"{first['Key']} first: {first['Message']} ({first['Code']}). The bucket stays."
            )
        count += len(versions)
    _unless_gone(lambda: s3.delete_bucket(Bucket=name))
    return count


def _unless_gone(remove: Callable[[], Any]) -> None:
    """Remove something; that it is gone already, such as after an answer that was lost, is fine."""
    from botocore.exceptions import ClientError

    try:
        remove()
    except ClientError as error:
        if code_of(error) not in ("NoSuchUpload", "NoSuchBucket"):
            raise


def in_parts(account: Account, name: str) -> Iterator[list[dict[str, str]]]:
    """Yield all versions and delete markers of a bucket, as many at a time as can be deleted."""
    for page in account.client("s3").get_paginator("list_object_versions").paginate(Bucket=name):
        found = itertools.chain(page.get("Versions", []), page.get("DeleteMarkers", []))
        all_of_it = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
        for start in range(0, len(all_of_it), MOST):
            yield all_of_it[start : start + MOST]
