"""Reach the bucket with the server's own credentials, and say what is in the way.

Staged beside the programs that import it.
"""

import email.utils
import time

import boto3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)
from talk import PASSES, s3_client, store_trouble

WRONG_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken")
AGAIN = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and type ./fab configure again."


class Trouble(Exception):
    """What is in the way: its `kind` in a word, `what` is wrong, and the `remedy`."""

    def __init__(self, kind, what, remedy):
        super().__init__(what + " " + remedy)
        self.kind, self.what, self.remedy = kind, what, remedy


class Denied(Exception):
    """A permission, such as s3:PutObject, that the credentials lack."""


class Bucket:
    """One bucket as the host sees it; `skew` is how many seconds the host's clock is ahead.

    Each of `attempts` has `patience` seconds to connect, and twice as many to be answered. `keys`
    are others than the server's own, as boto3 takes them.
    """

    def __init__(self, place, patience=6, attempts=4, keys=None):
        self.name, self.prefix = place.bucket, place.prefix
        self.region, self.endpoint = place.region, place.endpoint
        self.skew = None
        self.s3 = s3_client(
            place,
            attempts,
            keys,
            connect_timeout=patience,
            read_timeout=2 * patience,
            request_checksum_calculation="when_required",
        )
        # What it was made with, where that is the server's own.
        self.credentials = None if keys else boto3.DEFAULT_SESSION.get_credentials()
        self.s3.meta.events.register("response-received.s3", self._compare_clocks)

    def _compare_clocks(self, response_dict=None, **_):
        date = (response_dict or {}).get("headers", {}).get("Date")  # none where nobody answered
        if date:
            self.skew = time.time() - email.utils.parsedate_to_datetime(date).timestamp()

    def attempt(self, permission, action, **options):
        """Do one thing to the bucket; raises Denied or Trouble where it is refused."""
        try:
            return action(Bucket=self.name, **options)
        except ClientError as error:
            refuse_failing(error)
            code = error.response["Error"]["Code"]
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if code == "NoSuchBucket" or (permission == "s3:ListBucket" and status == 404):
                raise Trouble(
                    "bucket-missing",
                    f"The bucket {self.name} does not exist.",
                    "Create it, or fix `bucket:` in fabric.yaml.",
                ) from error
            if code == "ExpiredToken":
                raise Trouble(
                    "credentials-expired",
                    "AWS refuses the credentials on the host (ExpiredToken). Their session token "
                    "is no longer valid.",
                    "Give new ones: " + AGAIN.replace("KEY and", "KEY and AWS_SESSION_TOKEN and"),
                ) from error
            if code in WRONG_KEYS:
                raise Trouble(
                    "credentials-wrong",
                    f"AWS refuses the credentials on the host ({code}).",
                    "Give right ones: " + AGAIN,
                ) from error
            if code == "RequestTimeTooSkewed":
                raise Trouble(
                    "clock",
                    "The host's clock is wrong: S3 refuses it.",
                    "Type on the host: sudo timedatectl set-ntp true",
                ) from error
            if status == 403 or code == "AccessDenied":
                raise Denied(permission) from error
            self.refuse_other_region(error.response)
            raise Trouble(
                "bucket-refuses",
                f"{permission} on s3://{self.name} failed: {error}.",
                "Check `bucket:`, `region:` and `endpoint_url:` in fabric.yaml.",
            ) from error

    def refuse_other_region(self, response):
        """Return the bucket's region; raises Trouble where it is not the one in the settings."""
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        actual = headers.get("x-amz-bucket-region")
        if actual and self.region and actual != self.region:
            raise Trouble(
                "region-wrong",
                f"The bucket {self.name} is in region {actual}, not {self.region}.",
                f"Set `region: {actual}` in fabric.yaml.",
            )
        return actual


def refuse_failing(error):
    """Raise Trouble where a ClientError of botocore's is the store's own failure."""
    if what := store_trouble(error):
        raise Trouble("bucket-failing", what, PASSES) from error


def troubled(action):
    """Run what reaches the bucket; whatever is foreseen to fail becomes a Trouble."""
    try:
        return action()
    except PartialCredentialsError as error:
        raise Trouble(
            "credentials-partial",
            "The host's AWS credentials lack one of their two keys.",
            AGAIN[:1].upper() + AGAIN[1:],
        ) from error
    except NoCredentialsError as error:
        raise Trouble(
            "credentials-missing",
            "The host has no AWS credentials: no ~/.aws/credentials and no instance role.",
            "Attach a role to the instance, or " + AGAIN,
        ) from error
    except ProfileNotFound as error:
        raise Trouble(
            "profile-absent",
            f"{error}.",
            "Fix `profile:` in fabric.yaml or the host's ~/.aws.",
        ) from error
    except (EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError) as error:
        raise Trouble(
            "bucket-unreachable",
            f"The host cannot reach S3 ({error}).",
            "Check its outbound network and `endpoint_url:`.",
        ) from error
    except (BotoCoreError, ConfigParseError) as error:
        raise Trouble(
            "bucket-unusable",
            f"S3 cannot be used from the host: {error}.",
            "Check `region:`, `endpoint_url:` and ~/.aws.",
        ) from error
