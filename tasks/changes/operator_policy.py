"""What AWS must allow the operator who types `aws.*`: the calls of these tasks, by how narrow.

A change is allowed on what bears the tag alone, and none of these may give it: who is to look after
an instance is handed it by somebody else's tagging it.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from tasks.engine.account_parts import PATH, TAG
from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.engine.settings import Settings

TAGGED = {"StringLike": {f"aws:ResourceTag/{TAG}": "*"}}

# What is made has to get the tag in the same call.
TAGGING = {"StringLike": {f"aws:RequestTag/{TAG}": "*"}}

BIRTHS = ("AllocateAddress", "CreateSecurityGroup", "ImportKeyPair", "RunInstances")

# A new rule has the tag as well, and the group that it goes into must have had it before.
RULE_BIRTH = "AuthorizeSecurityGroupIngress"


def ec2(*kinds: str) -> tuple[str, ...]:
    """Name all resources of these kinds, in any region and account."""
    return tuple(f"arn:aws:ec2:*:*:{kind}/*" for kind in kinds)


@dataclass(frozen=True)
class Right:
    """A statement: the calls of boto3 with the action that each needs, on which resources.

    `BUCKET` in a resource stands for each of the buckets of the settings.
    """

    name: str
    calls: Mapping[str, str]
    resources: tuple[str, ...]
    condition: Mapping[str, Any] = field(default_factory=dict)

    def statement(self, buckets: Sequence[str]) -> dict[str, Any]:
        """Spell it as IAM takes it."""
        resources = [one.replace("BUCKET", name) for one in self.resources for name in buckets]
        found = {
            "Sid": self.name,
            "Effect": "Allow",
            "Action": sorted(set(self.calls.values())),
            "Resource": list(dict.fromkeys(resources)),
        }
        return {**found, "Condition": dict(self.condition)} if self.condition else found


def _named(service: str, *operations: str) -> dict[str, str]:
    """Return the calls whose action is called as they are."""
    return {operation: f"{service}:{operation}" for operation in operations}


RIGHTS = (
    # No action of these can be narrowed to a resource.
    Right(
        "Look",
        _named(
            "ec2",
            "DescribeAddresses", "DescribeImages", "DescribeInstances",
            "DescribeInstanceTypeOfferings", "DescribeInstanceTypes", "DescribeKeyPairs",
            "DescribeIamInstanceProfileAssociations", "DescribeRouteTables",
            "DescribeSecurityGroupRules", "DescribeSecurityGroups", "DescribeSubnets",
            "DescribeVolumes", "DescribeVpcs",
        ),
        ("*",),
    ),
    Right("LookAtPrices", _named("pricing", "GetProducts"), ("*",)),
    Right(
        "LookAtImages",
        _named("ssm", "GetParameter"),
        ("arn:aws:ssm:*::parameter/aws/service/canonical/*",),
    ),
    # User data and console may hold secrets.
    Right(
        "LookAtInstances",
        _named("ec2", "DescribeInstanceAttribute", "GetConsoleOutput"),
        ec2("instance"),
        TAGGED,
    ),
    Right(
        "LookAtRights",
        _named(
            "iam",
            "GetInstanceProfile", "GetRole", "ListRolePolicies", "GetRolePolicy",
            "ListAttachedRolePolicies", "GetPolicy", "GetPolicyVersion", "ListAccessKeys",
            "GetAccessKeyLastUsed", "ListGroupsForUser", "ListUserPolicies", "GetUserPolicy",
            "ListAttachedUserPolicies", "ListGroupPolicies", "GetGroupPolicy",
            "ListAttachedGroupPolicies",
        ),
        ("arn:aws:iam::*:instance-profile/*", "arn:aws:iam::*:role/*", "arn:aws:iam::*:policy/*",
         "arn:aws:iam::*:user/*", "arn:aws:iam::*:group/*"),
    ),
    Right(
        "LookAtBucket",
        {
            "HeadBucket": "s3:ListBucket",
            "GetBucketVersioning": "s3:GetBucketVersioning",
            "GetBucketEncryption": "s3:GetEncryptionConfiguration",
            "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
            "GetBucketPolicy": "s3:GetBucketPolicy",
            "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
            "GetBucketTagging": "s3:GetBucketTagging",
            "ListMultipartUploads": "s3:ListBucketMultipartUploads",
            "ListObjectVersions": "s3:ListBucketVersions",
        },
        ("arn:aws:s3:::BUCKET",),
    ),
    # A delete marker is a version: there is no right for these alone. A bucket that is to go has
    # to be empty.
    Right(
        "BringBack",
        {
            "DeleteObjects": "s3:DeleteObjectVersion",
            "AbortMultipartUpload": "s3:AbortMultipartUpload",
        },
        ("arn:aws:s3:::BUCKET/*",),
    ),
    Right(
        "MakeBucket",
        {
            **_named("s3", "CreateBucket", "PutBucketTagging", "DeleteBucket"),
            "PutBucketVersioning": "s3:PutBucketVersioning",
            "PutBucketEncryption": "s3:PutEncryptionConfiguration",
            "PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
            "PutBucketPolicy": "s3:PutBucketPolicy",
            "PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
            # What was there before may have been nothing.
            "DeleteBucketEncryption": "s3:PutEncryptionConfiguration",
            "DeletePublicAccessBlock": "s3:PutBucketPublicAccessBlock",
            "DeleteBucketPolicy": "s3:DeleteBucketPolicy",
            "DeleteBucketLifecycle": "s3:PutLifecycleConfiguration",
        },
        ("arn:aws:s3:::BUCKET",),
    ),
    Right(
        "MakeRole",
        _named(
            "iam",
            "CreateRole", "TagRole", "DeleteRole", "PutRolePolicy", "DeleteRolePolicy",
            "DetachRolePolicy", "CreateInstanceProfile", "TagInstanceProfile",
            "DeleteInstanceProfile", "AddRoleToInstanceProfile", "RemoveRoleFromInstanceProfile",
        ),
        (f"arn:aws:iam::*:role{PATH}*", f"arn:aws:iam::*:instance-profile{PATH}*"),
    ),
    Right(
        "PassRole",
        _named("iam", "PassRole"),
        (f"arn:aws:iam::*:role{PATH}*",),
        {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    ),
    # For the ProxyCommand of `access: ssm`, which the AWS CLI runs: of an instance, by a document.
    Right("StartSession", _named("ssm", "StartSession"), ec2("instance"),
          {"StringLike": {f"ssm:resourceTag/{TAG}": "*"}}),
    Right("StartSessionBySsh", _named("ssm", "StartSession"),
          ("arn:aws:ssm:*:*:document/AWS-StartSSHSession",)),
    Right("EndSession", _named("ssm", "TerminateSession", "ResumeSession"),
          ("arn:aws:ssm:*:*:session/${aws:username}-*",
           "arn:aws:ssm:*:*:session/${aws:userid}-*")),
    Right(
        "MendInstance",
        _named(
            "ec2",
            "AssociateIamInstanceProfile", "DisassociateIamInstanceProfile",
            "ModifyInstanceAttribute", "ModifyInstanceMetadataOptions",
        ),
        ec2("instance"),
        TAGGED,
    ),
    Right(
        "MendGroup",
        _named(
            "ec2",
            RULE_BIRTH, "DeleteSecurityGroup", "ModifySecurityGroupRules",
            "RevokeSecurityGroupIngress",
        ),
        ec2("security-group", "security-group-rule"),
        TAGGED,
    ),
    Right(
        "Make",
        _named("ec2", *BIRTHS),
        ec2("elastic-ip", "instance", "key-pair", "security-group", "volume"),
        TAGGING,
    ),
    Right("MakeRule", _named("ec2", RULE_BIRTH), ec2("security-group-rule"), TAGGING),
    # What these use, and do not change.
    Right(
        "MakeFrom",
        _named("ec2", "RunInstances"),
        (*ec2("key-pair", "network-interface", "security-group", "subnet"),
         "arn:aws:ec2:*::image/*"),
    ),
    Right("MakeGroupIn", _named("ec2", "CreateSecurityGroup"), ec2("vpc")),
    Right(
        "TagWhatIsMade",
        _named("ec2", "CreateTags"),
        ec2("*"),
        {"StringEquals": {"ec2:CreateAction": [*BIRTHS, RULE_BIRTH]}, **TAGGING},
    ),
    Right(
        "RunAndRemove",
        _named(
            "ec2",
            "AssociateAddress", "DeleteKeyPair", "DeleteVolume", "DisassociateAddress",
            "ReleaseAddress", "StartInstances", "StopInstances", "TerminateInstances",
        ),
        ec2("elastic-ip", "instance", "key-pair", "network-interface", "volume"),
        TAGGED,
    ),
)  # fmt: skip


def document(settings: Settings) -> dict[str, Any]:
    """Return the policy of whoever types `aws.*`; without a bucket it is for one of our names."""
    bucket = settings.bucket or f"{settings.unit[:32]}*-an"
    buckets = list(dict.fromkeys((bucket, settings.backup_bucket or bucket)))
    return {
        "Version": "2012-10-17",
        "Statement": [right.statement(buckets) for right in RIGHTS],
    }


def action(operation: str) -> str | None:
    """Name what a policy must allow for a call of boto3; None for one that we never make."""
    found = {call: name for right in RIGHTS for call, name in right.calls.items()}
    return found.get(operation)
