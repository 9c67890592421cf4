"""What AWS must allow: the calls that are made, and the least policy that allows them.

S3 has no action for every operation: HEAD of an object is s3:GetObject, HEAD of a bucket is
s3:ListBucket, and each step of a multipart upload but its abortion is s3:PutObject (S3 API
reference, "Permissions" of each operation).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.engine.settings import Settings

Role = Literal["artifacts", "backups", "both"]

ROLES: tuple[Role, ...] = ("artifacts", "backups", "both")

PLACEHOLDER = "YOUR-BUCKET"

ACTIONS = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CopyObject": "s3:PutObject",  # and s3:GetObject at the place that it copies from
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketVersioning": "s3:GetBucketVersioning",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
}


@dataclass(frozen=True)
class Call:
    """An S3 operation that the host makes, on what, and who fails first without it."""

    by: str
    operation: str
    on: Literal["bucket", "objects"]

    @property
    def action(self) -> str:
        """Name what a policy must allow for it."""
        return ACTIONS[self.operation]


def _calls(by: str, on: Literal["bucket", "objects"], *operations: str) -> list[Call]:
    return [Call(by, operation, on) for operation in operations]


# s3:ListBucket stays without a condition on s3:prefix: HeadBucket bears no prefix and would be
# denied, and without it a missing object is "denied" instead of "not there".
ARTIFACTS = (
    *_calls("configure", "bucket", "HeadBucket", "ListObjectsV2"),
    *_calls("configure", "objects", "PutObject", "GetObject", "DeleteObject"),
    *_calls("deploy", "objects", "GetObject", "PutObject", "CopyObject"),
    *_calls("the server", "objects", "HeadObject", "GetObject", "PutObject", "DeleteObjects"),
    *_calls("the server", "objects", "CreateMultipartUpload", "UploadPart"),
    *_calls("the server", "objects", "CompleteMultipartUpload", "AbortMultipartUpload"),
    *_calls("gc", "bucket", "ListObjectsV2"),
    *_calls("gc", "objects", "DeleteObjects"),
)

BACKUPS = (
    *_calls("backup", "bucket", "ListObjectsV2"),
    *_calls("backup", "objects", "PutObject", "CreateMultipartUpload", "UploadPart"),
    *_calls("backup", "objects", "CompleteMultipartUpload", "AbortMultipartUpload", "DeleteObject"),
    *_calls("backup.verify", "objects", "PutObject"),
    *_calls("restore", "objects", "GetObject"),
    *_calls("backup.prune", "objects", "DeleteObject"),
    *_calls("backup.stream", "bucket", "HeadBucket", "ListObjectsV2"),
    *_calls("backup.stream", "objects", "GetObject", "PutObject", "DeleteObjects"),
    *_calls("backup.stream", "bucket", "GetBucketVersioning", "GetBucketLifecycleConfiguration"),
)


# What the agent of Session Manager needs; each only with the resource `*` (AWS's managed policy
# AWSCloud9SSMInstanceProfile is exactly these).
SESSIONS = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)


@dataclass(frozen=True)
class Place:
    """A prefix of a bucket, and the calls that the host makes there."""

    name: str
    bucket: str
    prefix: str
    calls: Sequence[Call]


def places(settings: Settings, role: Role = "both") -> list[Place]:
    """Return what the host's credentials are for; a bucket that is not named is a placeholder."""
    bucket = settings.bucket or PLACEHOLDER
    # Backups may lie in a bucket of their own, where the settings know of one.
    theirs = settings.backup_bucket or bucket
    found = {
        "artifacts": Place("Artifacts", bucket, settings.artifact_prefix, ARTIFACTS),
        "backups": Place("Backups", theirs, settings.backup_prefix, BACKUPS),
    }
    return [place for name, place in found.items() if role in (name, "both")]


def document(settings: Settings, role: Role = "both") -> dict[str, Any]:
    """Return the least policy for the credentials of a host, as IAM takes it."""
    wanted = places(settings, role)
    buckets: dict[str, set[str]] = {}
    for place in wanted:
        buckets.setdefault(place.bucket, set()).update(_actions(place, "bucket"))
    statements = [
        _statement(f"Bucket{number or ''}", actions, [f"arn:aws:s3:::{bucket}"])
        for number, (bucket, actions) in enumerate(buckets.items())
    ]
    statements += [
        _statement(
            place.name,
            _actions(place, "objects"),
            [f"arn:aws:s3:::{place.bucket}/{place.prefix}/*"],
        )
        for place in wanted
    ]
    if settings.access == "ssm" and role != "backups":
        statements.append(_statement("Sessions", SESSIONS, ["*"]))
    return {"Version": "2012-10-17", "Statement": statements}


def _actions(place: Place, on: str) -> set[str]:
    return {call.action for call in place.calls if call.on == on}


def _statement(sid: str, actions: Iterable[str], resources: Sequence[str]) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": sorted(actions), "Resource": list(resources)}


def text(policy: dict[str, Any]) -> str:
    """Spell a policy as people read it."""
    return json.dumps(policy, indent=2)
