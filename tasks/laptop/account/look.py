"""Look at what of a server lies in the account: nothing is changed, and no right is required.

What is seen are AWS's own answers, by the name of the part; what may not be seen has a reason.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import socket
from dataclasses import field
from typing import TYPE_CHECKING, Any

from tasks.engine.records import dataclass
from tasks.laptop.account import refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tasks.laptop.account.session import Account

# What S3 answers where something was never set.
UNSET = {
    "NoSuchBucketPolicy",
    "NoSuchLifecycleConfiguration",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchTagSet",
    "ServerSideEncryptionConfigurationNotFoundError",
}


@dataclass
class Look:
    """The parts that were seen, and why others were not."""

    action: Callable[[str], str | None]
    parts: dict[str, Any] = field(default_factory=dict)
    blind: dict[str, str] = field(default_factory=dict)

    def at(self, part: str, ask: Callable[[], Any]) -> Any:
        """Note a part, and return it; None where AWS does not let the operator see it.

        Raises botocore's exceptions for anything but a right that is missing.
        """
        from botocore.exceptions import ClientError

        try:
            self.parts[part] = ask()
        except ClientError as error:
            if refusals.code_of(error) in UNSET:
                self.parts[part] = {}
            elif refusals.denied(error):
                self.blind[part] = f"{self._right(error)} is not allowed"
            elif refusals.code_of(error) in ("404", "NoSuchBucket", "NoSuchEntity"):
                self.blind[part] = "it is not there"
            else:
                raise
        return self.parts.get(part)

    def _right(self, error: Any) -> str:
        return self.action(error.operation_name) or error.operation_name

    def cannot(self, why: str, *parts: str) -> None:
        """Say of parts why they were not looked at, where nothing is known yet."""
        for part in parts:
            if part not in self.parts:
                self.blind.setdefault(part, why)


# -- the instance ------------------------------------------------------------------------------

INSTANCE = ("instance", "protection", "user data", "rules", "volumes", "type", "role")


def find(account: Account, host: str) -> dict[str, Any] | None:
    """Return the instance with this id, name or address, as EC2 describes it; None without one."""
    ec2 = account.client("ec2")
    if host.startswith("i-"):
        return _first(ec2.describe_instances(InstanceIds=[host]))
    for address in _addresses(host):
        for name in ("ip-address", "private-ip-address"):
            if found := _first(
                ec2.describe_instances(Filters=[{"Name": name, "Values": [address]}])
            ):
                return found
    return None


def tagged(account: Account, tag: str, value: str) -> dict[str, Any] | None:
    """Return the instance that bears a tag, and is not terminated."""
    filters = [{"Name": f"tag:{tag}", "Values": [value]}]
    return _first(account.client("ec2").describe_instances(Filters=filters))


def _first(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    found = [one for each in answer["Reservations"] for one in each["Instances"]]
    return next((one for one in found if one["State"]["Name"] != "terminated"), None)


def _addresses(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(where[4][0]) for where in found})


def at_instance(account: Account, look: Look, instance: Mapping[str, Any]) -> None:
    """Note all that belongs to one instance."""
    ec2, id = account.client("ec2"), instance["InstanceId"]

    def attribute(name: str) -> Any:
        found = ec2.describe_instance_attribute(InstanceId=id, Attribute=name)
        return found[f"{name[:1].upper()}{name[1:]}"].get("Value")

    look.at("instance", lambda: instance)
    look.at("protection", lambda: bool(attribute("disableApiTermination")))
    look.at("user data", lambda: _decoded(attribute("userData")))
    look.at("rules", lambda: rules(account, _groups(instance)))
    volumes = [disk["Ebs"]["VolumeId"] for disk in instance.get("BlockDeviceMappings", [])]
    look.at("volumes", lambda: ec2.describe_volumes(VolumeIds=volumes)["Volumes"])
    kind = [instance["InstanceType"]]
    look.at("type", lambda: ec2.describe_instance_types(InstanceTypes=kind)["InstanceTypes"][0])
    look.at("role", lambda: role(account, instance.get("IamInstanceProfile", {}).get("Arn", "")))


def _groups(instance: Mapping[str, Any]) -> list[str]:
    """Return the security groups of all interfaces; the instance's own are the first one's."""
    cards = [card["Groups"] for card in instance.get("NetworkInterfaces", [])]
    found = itertools.chain(instance.get("SecurityGroups", []), *cards)
    return list(dict.fromkeys(group["GroupId"] for group in found))


def _decoded(text: str | None) -> str:
    try:
        return base64.b64decode(text or "").decode(errors="replace")
    except binascii.Error:
        return ""


def rules(account: Account, groups: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rules of security groups, one an address range."""
    pages = account.client("ec2").get_paginator("describe_security_group_rules")
    asked = pages.paginate(Filters=[{"Name": "group-id", "Values": list(groups)}])
    return [rule for page in asked for rule in page["SecurityGroupRules"]] if groups else []


# -- rights ------------------------------------------------------------------------------------


def role(account: Account, profile: str) -> dict[str, Any]:
    """Return the role of an instance profile with its policies; {} where there is none."""
    if not profile:
        return {}
    iam = account.client("iam")
    found = iam.get_instance_profile(InstanceProfileName=profile.rpartition("/")[2])
    for one in found["InstanceProfile"]["Roles"]:
        name = one["RoleName"]
        return {"name": name, "policies": _policies(iam, "role", RoleName=name)}
    return {}


def key(account: Account, id: str) -> dict[str, Any]:
    """Return whose key this is, when it was made, and what that user may do."""
    iam = account.client("iam")
    user = iam.get_access_key_last_used(AccessKeyId=id).get("UserName")
    if not user:  # the account's root, or another account's
        return {"id": id, "user": "nobody in this account", "made": None, "policies": []}
    made = {
        one["AccessKeyId"]: one["CreateDate"].timestamp()
        for one in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
    }
    policies = _policies(iam, "user", UserName=user)
    for group in iam.list_groups_for_user(UserName=user)["Groups"]:
        policies += _policies(iam, "group", GroupName=group["GroupName"])
    return {"id": id, "user": user, "made": made.get(id), "policies": policies}


def _policies(iam: Any, kind: str, **whose: str) -> list[dict[str, Any]]:
    """Return the policies of a role, user or group, those of its own and attached ones."""

    def ask(operation: str, **more: str) -> Any:
        return getattr(iam, operation)(**whose, **more)

    own = ask(f"list_{kind}_policies")["PolicyNames"]
    found = [
        {"name": name, "document": ask(f"get_{kind}_policy", PolicyName=name)["PolicyDocument"]}
        for name in own
    ]
    for one in ask(f"list_attached_{kind}_policies")["AttachedPolicies"]:
        arn = one["PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        kept = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]
        found.append({"name": one["PolicyName"], "document": kept["Document"]})
    return found


def at_keys(account: Account, look: Look, ids: Iterable[str]) -> None:
    """Note the keys that lie on the host, by their ids."""
    look.at("keys", lambda: [key(account, id) for id in ids])


# -- the bucket --------------------------------------------------------------------------------

BUCKET = ("bucket", "versioning", "encryption", "public access", "policy", "lifecycle")


def at_bucket(account: Account, look: Look, bucket: str) -> None:
    """Note how a bucket is set up."""
    s3 = account.client("s3")

    def ask(operation: str) -> Any:
        return getattr(s3, operation)(Bucket=bucket)

    look.at("bucket", lambda: {"region": _region(ask("head_bucket"))})
    if "bucket" in look.blind and look.blind["bucket"] == "it is not there":
        look.cannot("the bucket is not there", *BUCKET)
        return
    look.at("versioning", lambda: ask("get_bucket_versioning").get("Status", ""))
    look.at(
        "encryption",
        lambda: ask("get_bucket_encryption")["ServerSideEncryptionConfiguration"]["Rules"],
    )
    look.at(
        "public access", lambda: ask("get_public_access_block")["PublicAccessBlockConfiguration"]
    )
    look.at("policy", lambda: json.loads(ask("get_bucket_policy")["Policy"]))
    look.at("lifecycle", lambda: ask("get_bucket_lifecycle_configuration")["Rules"])


def _region(answer: Mapping[str, Any]) -> str:
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return str(headers.get("x-amz-bucket-region") or answer.get("BucketRegion") or "us-east-1")
