"""An instance that somebody made; what gives it a role and sets its bucket up, and undoes it."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from tasks.engine.account_parts import TAG
from tasks.engine.records import dataclass
from tasks.laptop.account import before, instance, mend, role
from tasks.laptop.account import bucket as bucket_part
from tasks.laptop.account.steps import Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.engine.account_parts import Names, Role
    from tasks.engine.server import Server
    from tasks.engine.task import Host
    from tasks.laptop.account.session import Account


@dataclass
class Case:
    """One host, and what of the account is its own."""

    c: Host
    account: Account
    names: Names
    instance: Mapping[str, Any]
    role: Role | None
    has_keys: bool  # also where they were taken away, and not forgotten yet
    key: str | None = field(default=None)

    @property
    def server(self) -> Server:
        return self.c.server

    @property
    def id(self) -> str:
        return str(self.instance["InstanceId"])

    @property
    def profile(self) -> str:
        """Name the instance profile that is attached, or ''."""
        return str(self.instance.get("IamInstanceProfile", {}).get("Arn", "")).rpartition("/")[2]


def tagging(case: Case) -> Step:
    """Have instance and groups bear the tag, by which rights to change them are given."""
    ec2, ids = case.account.client("ec2"), [case.id, *instance.groups(case.instance)]
    tags = [{"Key": TAG, "Value": case.names.unit}]
    return Step(
        f"tag {', '.join(ids)} with {TAG}={case.names.unit}",
        lambda: ec2.create_tags(Resources=ids, Tags=tags),
        lambda: ec2.delete_tags(Resources=ids, Tags=tags),
    )


def making_role(case: Case, wanted: Mapping[str, Any]) -> Step:
    """Have the role be there with what the server needs and nothing else of ours."""
    name, former = case.names.role, case.role

    def undo() -> None:
        if former is None:
            role.remove(case.account, case.names)
            return
        iam, kept = case.account.client("iam"), dict(former.policies)
        for policy in wanted:
            if policy not in kept:
                iam.delete_role_policy(RoleName=name, PolicyName=policy)
        for policy, text in kept.items():
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=text)

    what = "make the role" if former is None else "give the role what the server needs:"
    return Step(f"{what} {name}", lambda: role.settle(case.account, case.names, wanted), undo)


def attaching(case: Case) -> Step:
    """Have the instance lend the role to the host."""
    name = case.names.role

    def undo() -> None:
        ec2 = case.account.client("ec2")
        asked = [{"Name": "instance-id", "Values": [case.id]}]
        found = ec2.describe_iam_instance_profile_associations(Filters=asked)
        for one in found["IamInstanceProfileAssociations"]:
            ours = one["IamInstanceProfile"]["Arn"].endswith(f"/{name}")
            if ours and one["State"] in ("associating", "associated"):
                ec2.disassociate_iam_instance_profile(AssociationId=one["AssociationId"])

    return Step(
        f"attach it to {case.id}", lambda: instance.attach(case.account, case.id, name), undo
    )


# What each of the repairs of a bucket is for, in a plan.
SAID = {
    "versioning-off": "keep versions of what is deleted or overwritten",
    "encryption-off": "encrypt by default",
    "public-access": "block public access",
    "tls-not-required": "deny requests without TLS",
    "lifecycle-parts": "remove uploads that were cut off, after a week",
}


def setting_up(case: Case, name: str, keys: Sequence[str]) -> list[Step]:
    """Return a step for each setting that is to change, each with the one that was there."""
    if not keys:
        return []
    account, was = case.account, before.kept(case.account, name)
    steps = [
        Step(
            f"{name}: {SAID[key]}",
            lambda key=key: mend.MENDS[key](account, name, None),  # type: ignore[misc]
            lambda key=key: before.put_back(account, name, was, key),  # type: ignore[misc]
        )
        for key in keys
    ]
    if "versioning-off" in keys:
        # Nothing old is kept yet, so that a rule deletes nothing that somebody counts on.
        settings = case.server.settings
        rules = bucket_part.rules(settings.label, settings.artifact_prefix, settings.backup_prefix)
        steps.append(
            Step(
                f"{name}: keep old versions for 30 days",
                lambda: mend.merge_rules(account, name, rules),
                lambda: before.put_back(account, name, was, "lifecycle-parts"),
            )
        )
    return steps


def last_use(account: Account, key: str) -> tuple[str, str]:
    """Return whose a key is, and in words when it was used last; nothing where none may know."""
    from botocore.exceptions import ClientError

    try:
        found = account.client("iam").get_access_key_last_used(AccessKeyId=key)
    except ClientError:
        return "", ""
    used = found.get("AccessKeyLastUsed", {})
    when = used.get("LastUsedDate")
    last = f"; used last on {when:%Y-%m-%d} for {used.get('ServiceName')}" if when else ""
    return str(found.get("UserName") or ""), last
