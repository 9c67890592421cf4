"""A bucket's settings as they were, to be put back where the server does not get on with ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.engine.records import dataclass
from tasks.laptop.account.look import UNSET
from tasks.laptop.account.refusals import code_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.laptop.account.session import Account


@dataclass(frozen=True)
class Setting:
    """How boto3 reads, sets and takes away one of a bucket's settings; `part` is where it lies."""

    get: str
    put: str
    delete: str
    part: str
    argument: str


# By the finding that aws.audit has of it.
SETTINGS = {
    "encryption-off": Setting(
        "get_bucket_encryption", "put_bucket_encryption", "delete_bucket_encryption",
        "ServerSideEncryptionConfiguration", "ServerSideEncryptionConfiguration",
    ),
    "public-access": Setting(
        "get_public_access_block", "put_public_access_block", "delete_public_access_block",
        "PublicAccessBlockConfiguration", "PublicAccessBlockConfiguration",
    ),
    "tls-not-required": Setting(
        "get_bucket_policy", "put_bucket_policy", "delete_bucket_policy", "Policy", "Policy",
    ),
    "lifecycle-parts": Setting(
        "get_bucket_lifecycle_configuration", "put_bucket_lifecycle_configuration",
        "delete_bucket_lifecycle", "Rules", "LifecycleConfiguration",
    ),
}  # fmt: skip


def kept(account: Account, bucket: str) -> dict[str, Any]:
    """Return the settings of a bucket, None for those that it lacks; raises botocore's exceptions.

    Under "versioning-off" whether versions are kept now.
    """
    s3 = account.client("s3")
    found: dict[str, Any] = {
        "versioning-off": s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"
    }
    return found | {name: _read(s3, bucket, one) for name, one in SETTINGS.items()}


def _read(s3: Any, bucket: str, setting: Setting) -> Any:
    from botocore.exceptions import ClientError

    try:
        return getattr(s3, setting.get)(Bucket=bucket)[setting.part]
    except ClientError as error:
        if code_of(error) not in UNSET:
            raise
        return None


def put_back(account: Account, bucket: str, before: Mapping[str, Any], name: str) -> None:
    """Have one setting be as it was; versions that S3 keeps by now, it goes on keeping."""
    s3, was = account.client("s3"), before[name]
    if name == "versioning-off":
        if not was:
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
        return
    setting = SETTINGS[name]
    if was is None:
        getattr(s3, setting.delete)(Bucket=bucket)
        return
    value = {"Rules": was} if setting.argument == "LifecycleConfiguration" else was
    getattr(s3, setting.put)(Bucket=bucket, **{setting.argument: value})
