"""What a policy of ours says to a call of boto3's, as AWS would judge it; moto ignores conditions.

Only what our policies use: Allow, wildcards, StringEquals and StringLike. A call is allowed where
each action that it needs is allowed on each of the resources that it touches. Which ones these are
is the Service Authorization Reference's; their tags and owners are moto's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends

REGION = "eu-central-1"
PASSED = {"iam:PassedToService": "ec2.amazonaws.com"}

# By its operator: whether a value meets what a condition asks for.
CONDITIONS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringLike": lambda value, wanted: like(value, wanted),
}


def like(value: str, pattern: str) -> bool:
    """Tell whether a value is of a pattern of IAM's, where * and ? alone are special."""
    special = {r"\*": ".*", r"\?": "."}
    text = re.sub(r"\\[*?]", lambda found: special[found[0]], re.escape(pattern))
    return re.fullmatch(text, value, re.DOTALL) is not None


@dataclass(frozen=True)
class Need:
    """An action that a call needs on one resource, and what is known of both."""

    action: str
    resource: str
    known: Mapping[str, str] = field(default_factory=dict)

    def is_allowed(self, document: Mapping[str, Any]) -> bool:
        return any(self._is_met(statement) for statement in document["Statement"])

    def _is_met(self, statement: Mapping[str, Any]) -> bool:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        return (
            any(like(self.action.lower(), one.lower()) for one in statement["Action"])
            and any(like(self.resource, one) for one in statement["Resource"])
            and all(
                self._has(CONDITIONS[operator], key, wanted)
                for operator, keys in statement.get("Condition", {}).items()
                for key, wanted in keys.items()
            )
        )

    def _has(self, holds: Callable[[str, str], bool], key: str, wanted: str | list[str]) -> bool:
        """Judge one condition; what is not known of a request never meets one."""
        values = [wanted] if isinstance(wanted, str) else wanted
        return key in self.known and any(holds(self.known[key], one) for one in values)


# -- EC2 -----------------------------------------------------------------------------------------


def ec2() -> Any:
    return ec2_backends[DEFAULT_ACCOUNT_ID][REGION]


def arn(kind: str, id: str) -> str:
    owner = "" if kind == "image" else DEFAULT_ACCOUNT_ID
    return f"arn:aws:ec2:{REGION}:{owner}:{kind}/{id}"


def borne(id: str) -> dict[str, str]:
    """Return the tags that a resource has, as conditions name them.

    An interface is given those of its instance at its birth, which moto forgets.
    """
    tags = dict(ec2().tags.get(id, {}))
    if id.startswith("eni-") and (holder := ec2().enis[id].instance):
        tags |= ec2().tags.get(holder.id, {})
    return {f"aws:ResourceTag/{key}": value for key, value in tags.items()}


def given(params: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the tags that a request gives, by the kind of what it makes."""
    return {
        one["ResourceType"]: {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in one["Tags"]}
        for one in params.get("TagSpecifications", [])
    }


def key_pair(params: Mapping[str, Any]) -> tuple[str, str]:
    """Return a key pair's kind and id, by which its tags are known; its name where it is new."""
    there = ec2().key_pairs.get(params["KeyName"])
    return "key-pair", there.id if there else params["KeyName"]


def address(params: Mapping[str, Any]) -> Any:
    """Find the address that a call is about."""
    (found,) = [
        one
        for one in ec2().addresses
        if params.get("AllocationId") == one.allocation_id
        or params.get("AssociationId", "none") == one.association_id
    ]
    return found


def rented(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return an address, and the interface and instance that it is or gets associated with."""
    found = address(params)
    touched = [("elastic-ip", found.allocation_id)]
    # An interface that went with its instance is not asked about any more.
    if found.eni and found.eni.id in ec2().enis and "AssociationId" in params:
        touched.append(("network-interface", found.eni.id))
    if id := params.get("InstanceId"):
        nics = ec2().get_instance(id).nics.values()
        touched += [("instance", id), *(("network-interface", nic.id) for nic in nics)]
    return touched


def rules(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    changed = params.get("SecurityGroupRules", [])
    ids = [one["SecurityGroupRuleId"] for one in changed]
    return [("security-group", params["GroupId"]), *(("security-group-rule", id) for id in ids)]


def instances(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    ids = params.get("InstanceIds") or [params["InstanceId"]]
    return [("instance", id) for id in ids]


def lent(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the instance that a profile is taken from."""
    every = ec2().iam_instance_profile_associations.values()
    wanted = params["AssociationId"]
    return [("instance", one.instance.id) for one in every if one.association_id == wanted]


def used_to_run(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a new instance is made from; a dry run leaves most of it out."""
    used = [("image", params["ImageId"])]
    if "KeyName" in params:
        used.append(key_pair(params))
    cards = params.get("NetworkInterfaces") or [params]
    for card in cards:
        if "SubnetId" in card:
            used.append(("subnet", card["SubnetId"]))
        used += [("security-group", id) for id in card.get("Groups", [])]
    return used


# What exists already, and is changed or looked at, by the call.
TOUCHED: dict[str, Callable[[Mapping[str, Any]], list[tuple[str, str]]]] = {
    **dict.fromkeys(
        ("DescribeInstanceAttribute", "GetConsoleOutput", "ModifyInstanceAttribute",
         "ModifyInstanceMetadataOptions", "StartInstances", "StopInstances", "TerminateInstances",
         "AssociateIamInstanceProfile"),
        instances,
    ),
    "DisassociateIamInstanceProfile": lent,
    **dict.fromkeys(("AssociateAddress", "DisassociateAddress", "ReleaseAddress"), rented),
    **dict.fromkeys(
        ("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress", "DeleteSecurityGroup",
         "ModifySecurityGroupRules"),
        rules,
    ),
    "DeleteKeyPair": lambda params: [key_pair(params)],
    "DeleteVolume": lambda params: [("volume", params["VolumeId"])],
    "CreateSecurityGroup": lambda params: [("vpc", params["VpcId"])],
    "ImportKeyPair": lambda _: [],
    "AllocateAddress": lambda _: [],
    "RunInstances": used_to_run,
}  # fmt: skip

# What is made by a call beside what it names in its tags, whether tagged or not.
MADE = {
    "CreateSecurityGroup": ("security-group",),
    "ImportKeyPair": ("key-pair",),
    "AllocateAddress": ("elastic-ip",),
    "RunInstances": ("instance", "volume", "network-interface"),
}


def of_ec2(operation: str, params: Mapping[str, Any]) -> Iterator[Need]:
    action = f"ec2:{operation}"
    if operation == "CreateTags":
        for id in params["Resources"]:
            kind = {"i": "instance", "sg": "security-group"}[id.partition("-")[0]]
            tags = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in params["Tags"]}
            yield Need(action, arn(kind, id), {**borne(id), **tags})
        return
    if operation not in TOUCHED:
        assert operation.startswith("Describe"), operation
        yield Need(action, "*")
        return
    tags = given(params)
    requested = {key: value for each in tags.values() for key, value in each.items()}
    for kind, id in TOUCHED[operation](params):
        yield Need(action, arn(kind, id), {**borne(id), **requested})
    for kind in dict.fromkeys((*MADE.get(operation, ()), *tags)):
        # What is tagged in the request alone has the request's tags.
        yield Need(action, arn(kind, "new"), tags.get(kind, {}))
    for kind, its in tags.items():
        yield Need("ec2:CreateTags", arn(kind, "new"), {**its, "ec2:CreateAction": operation})
    if profile := params.get("IamInstanceProfile"):
        for role in iam().get_instance_profile(profile["Name"]).roles:
            yield Need("iam:PassRole", role.arn, PASSED)


# -- IAM, S3, SSM --------------------------------------------------------------------------------


def iam() -> Any:
    return iam_backends[DEFAULT_ACCOUNT_ID]["aws"]


def of_iam(operation: str, params: Mapping[str, Any]) -> Iterator[Need]:
    action, home = f"iam:{operation}", f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}"
    if operation in ("CreateRole", "CreateInstanceProfile"):
        kind = "role" if operation == "CreateRole" else "instance-profile"
        name = params.get("RoleName") or params["InstanceProfileName"]
        made = f"{home}:{kind}{params.get('Path', '/')}{name}"
        yield Need(action, made)
        if params.get("Tags"):
            yield Need("iam:TagRole" if kind == "role" else "iam:TagInstanceProfile", made)
        return
    if name := params.get("InstanceProfileName"):
        yield Need(action, there("instance-profile", name))
    elif name := params.get("RoleName"):
        yield Need(action, there("role", name))
    elif policy := params.get("PolicyArn"):
        yield Need(action, policy)
    elif name := params.get("GroupName"):
        yield Need(action, f"{home}:group/{name}")
    else:
        yield Need(action, f"{home}:user/{params.get('UserName', 'any')}")
    if operation == "AddRoleToInstanceProfile":
        yield Need("iam:PassRole", there("role", params["RoleName"]), PASSED)


def there(kind: str, name: str) -> str:
    """Return the ARN of what is there, whose path its name does not tell."""
    every = iam().roles if kind == "role" else iam().instance_profiles
    found = [one.arn for one in every.values() if one.name == name]
    return str(found[0] if found else f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:{kind}/{name}")


def of_s3(operation: str, params: Mapping[str, Any], actions: Mapping[str, str]) -> Iterator[Need]:
    bucket = f"arn:aws:s3:::{params['Bucket']}"
    if operation == "DeleteObjects":
        for one in params["Delete"]["Objects"]:
            action = "s3:DeleteObjectVersion" if "VersionId" in one else "s3:DeleteObject"
            yield Need(action, f"{bucket}/{one['Key']}")
    elif operation == "AbortMultipartUpload":
        yield Need(actions[operation], f"{bucket}/{params['Key']}")
    else:
        yield Need(actions[operation], bucket)


def needs(
    service: str, operation: str, params: Mapping[str, Any], actions: Mapping[str, str]
) -> list[Need]:
    """Return what a call needs; `actions` name those of S3, which are called otherwise."""
    if service == "ec2":
        return list(of_ec2(operation, params))
    if service == "iam":
        return list(of_iam(operation, params))
    if service == "s3":
        return list(of_s3(operation, params, actions))
    if service == "ssm":
        owned = f"arn:aws:ssm:{REGION}::parameter{params['Name']}"
        return [Need(f"ssm:{operation}", owned)]
    assert (service, operation) == ("sts", "GetCallerIdentity"), (service, operation)
    return []  # it needs no right
