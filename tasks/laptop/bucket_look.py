"""A look at a bucket from this machine: whether it is there, where, and who may look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from typing import Any

PATIENCE = 10  # seconds for one answer; a store on the other side of the world needs one or two

# What S3 calls keys that it does not take, in its API reference, "Error responses".
OF_KEYS = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "TokenRefreshRequired",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where keys come from: a profile of this machine, its variables, or the instance's role.

    Of a role this machine has no keys: then it looks as nobody, which tells whether a bucket is
    there and where, and not what the role may.
    """

    kind: str
    profile: str | None = None


@dataclass(frozen=True)
class Seen:
    """What was found: the bucket's region, or what is wrong with which answer."""

    region: str | None = None
    about: str = ""  # bucket, keys or endpoint_url
    trouble: str | None = None


def look(bucket: str, source: Source, endpoint_url: str | None = None) -> Seen:
    """Look at a bucket; what is wrong is a sentence that says what to give."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        EndpointConnectionError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
    )

    try:
        client = _client(source, endpoint_url)
        try:
            return Seen(region=_region(client.head_bucket(Bucket=bucket), endpoint_url))
        except ClientError as error:
            return _refused(error, client, bucket, source)
    except ProfileNotFound:
        return Seen(
            about="keys",
            trouble=f"There is no profile {source.profile!r} in ~/.aws. Give one of those there.",
        )
    except (NoCredentialsError, PartialCredentialsError):
        return Seen(about="keys", trouble=no_keys(source))
    except EndpointConnectionError as error:
        where = endpoint_url or "AWS"
        return Seen(
            about="endpoint_url" if endpoint_url else "keys",
            trouble=f"{where} cannot be reached. Give an address that answers, or check the "
            f"network. ({type(error).__name__})",
        )
    except (BotoCoreError, ValueError) as error:
        said = str(error).splitlines()[0]
        return Seen(about="endpoint_url" if endpoint_url else "keys", trouble=f"It failed: {said}")


def _client(source: Source, endpoint_url: str | None) -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    options: dict[str, Any] = {"signature_version": UNSIGNED} if source.kind == "role" else {}
    config = Config(
        connect_timeout=PATIENCE,
        read_timeout=PATIENCE,
        retries={"mode": "standard", "total_max_attempts": 3},
        **options,
    )
    session = boto3.Session(profile_name=source.profile)
    # A bucket's own region comes with the answer; any will do to ask.
    return session.client("s3", config=config, endpoint_url=endpoint_url, region_name="us-east-1")


def _region(answer: Any, endpoint_url: str | None) -> str | None:
    """Read a bucket's region; a store that is not AWS's need not have one."""
    metadata = answer.get("ResponseMetadata", {})
    named = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region")
    return named or (None if endpoint_url else "us-east-1")


def _refused(error: Any, client: Any, bucket: str, source: Source) -> Seen:
    """Say what a refusal means; HEAD has no body, so that only a second question tells."""
    status = error.response["ResponseMetadata"].get("HTTPStatusCode")
    region = error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region")
    if status == 404:
        return Seen(
            about="bucket",
            trouble=f"There is no bucket {bucket} (404). Create it, or give another one's name.",
        )
    if status in (301, 403) and source.kind == "role":
        return Seen(region=region)  # it is there; only the role may know more
    code = _code(client, bucket)
    if code in OF_KEYS:
        return Seen(about="keys", trouble=f"These keys are not taken ({code}). Give others.")
    if status == 403:
        return Seen(
            about="bucket",
            trouble=f"These keys may not look at {bucket} (403): it is somebody else's, or their "
            "policy lacks s3:ListBucket. Give another bucket, or allow it.",
        )
    return Seen(about="bucket", trouble=f"{bucket}: the store answers {code or status}.")


def _code(client: Any, bucket: str) -> str:
    from botocore.exceptions import ClientError

    try:
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as error:
        return str(error.response["Error"].get("Code", ""))
    return ""


def no_keys(source: Source) -> str:
    """Say that there are no keys, and how to give some."""
    if source.profile:
        return f"The profile {source.profile!r} holds no keys. Give another one."
    return (
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set. Choose a profile or the "
        "role; or end this, export both, and type ./fab init again."
    )
