"""The role of a server's host, and the instance profile that lends it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.engine.account_parts import PATH, Role, canonical
from tasks.laptop.account.patience import patiently
from tasks.laptop.account.refusals import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasks.engine.account_parts import Names
    from tasks.laptop.account.session import Account

# Instances alone may take the role.
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}

FOREIGN = (
    "There is a {what} {name} in this account that is none of ours: it lacks the tag "
    "remote-mlflow. Rename or delete that one, or use another environment (./fab use NAME …)."
)


def wanted(names: Names, policies: Mapping[str, Any]) -> Role:
    """Return the role as it should be; `policies` are documents by their names."""
    texts = frozenset((name, canonical(document)) for name, document in policies.items())
    return Role(names.role, texts, in_profile=True)


def look(account: Account, names: Names) -> Role | None:
    """Return the role of a server with its own policies; None where there is none.

    Raises Exit where role or profile of that name are somebody else's, and botocore's exceptions.
    """
    iam, name = account.client("iam"), names.role
    profile = _there(lambda: iam.get_instance_profile(InstanceProfileName=name))
    if profile is not None:
        profile = profile["InstanceProfile"]
        _refuse_foreign(names, "instance profile", profile)
    found = _there(lambda: iam.get_role(RoleName=name))
    if found is None:
        return None
    _refuse_foreign(names, "role", found["Role"])
    policies = {
        one: iam.get_role_policy(RoleName=name, PolicyName=one)["PolicyDocument"]
        for one in iam.list_role_policies(RoleName=name)["PolicyNames"]
    }
    held = {one["RoleName"] for one in (profile or {}).get("Roles", [])}
    texts = frozenset((one, canonical(document)) for one, document in policies.items())
    return Role(name, texts, in_profile=name in held)


def _there(ask: Callable[[], Any]) -> Any:
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError as error:
        if code_of(error) != "NoSuchEntity":
            raise
        return None


def _refuse_foreign(names: Names, what: str, found: Mapping[str, Any]) -> None:
    if not names.owns(found.get("Tags")):
        raise Exit(FOREIGN.format(what=what, name=names.role))


def settle(account: Account, names: Names, policies: Mapping[str, Any]) -> None:
    """Have role and profile be there with these policies; what is there is as good."""
    iam, name = account.client("iam"), names.role
    _unless_there(
        lambda: iam.create_role(
            RoleName=name,
            Path=PATH,
            AssumeRolePolicyDocument=json.dumps(TRUST),
            Description=f"remote-mlflow: what the host of {names.unit} may do",
            Tags=names.tags,
        )
    )
    _unless_there(
        lambda: iam.create_instance_profile(InstanceProfileName=name, Path=PATH, Tags=names.tags)
    )
    look(account, names)  # refuses what others made meanwhile
    for policy, document in policies.items():
        text = json.dumps(document)
        patiently(
            lambda policy=policy, text=text: iam.put_role_policy(  # type: ignore[misc]
                RoleName=name, PolicyName=policy, PolicyDocument=text
            )
        )
    held = patiently(lambda: iam.get_instance_profile(InstanceProfileName=name))
    if name not in {one["RoleName"] for one in held["InstanceProfile"]["Roles"]}:
        _unless_there(
            lambda: patiently(
                lambda: iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
            )
        )


def _unless_there(make: Callable[[], Any]) -> None:
    """Make something; that it is there already, such as after an answer that was lost, is fine."""
    from botocore.exceptions import ClientError

    try:
        make()
    except ClientError as error:
        # A profile holds one role: a second is LimitExceeded.
        if code_of(error) not in ("EntityAlreadyExists", "LimitExceeded"):
            raise


def is_there(account: Account, names: Names) -> bool:
    """Tell whether a role or profile of this server's is there."""
    iam, name = account.client("iam"), names.role
    profile = _there(lambda: iam.get_instance_profile(InstanceProfileName=name))
    found = _there(lambda: iam.get_role(RoleName=name))
    kept = [profile and profile["InstanceProfile"], found and found["Role"]]
    return any(names.owns(one.get("Tags")) for one in kept if one)


def remove(account: Account, names: Names) -> list[str]:
    """Remove role and profile of this server's, whatever there is of them; return what went."""
    iam, name = account.client("iam"), names.role
    gone = []
    profile = _there(lambda: iam.get_instance_profile(InstanceProfileName=name))
    if profile and names.owns(profile["InstanceProfile"].get("Tags")):
        for one in profile["InstanceProfile"]["Roles"]:
            _there(
                lambda one=one: iam.remove_role_from_instance_profile(  # type: ignore[misc]
                    InstanceProfileName=name, RoleName=one["RoleName"]
                )
            )
        _there(lambda: iam.delete_instance_profile(InstanceProfileName=name))
        gone.append(f"instance profile {name}")
    found = _there(lambda: iam.get_role(RoleName=name))
    if found and names.owns(found["Role"].get("Tags")):
        _empty(iam, name)
        _there(lambda: iam.delete_role(RoleName=name))
        gone.append(f"role {name}")
    return gone


def _empty(iam: Any, name: str) -> None:
    """Take from a role all that keeps it from being deleted."""
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        _there(lambda policy=policy: iam.delete_role_policy(RoleName=name, PolicyName=policy))  # type: ignore[misc]
    for one in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        arn = one["PolicyArn"]
        _there(lambda arn=arn: iam.detach_role_policy(RoleName=name, PolicyArn=arn))  # type: ignore[misc]
