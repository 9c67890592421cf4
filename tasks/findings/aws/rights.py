"""What the host may do in the account: its role, or keys that lie on it."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

from tasks.changes import policy
from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tasks.findings.aws.case import AccountCase
    from tasks.findings.case import Finding

DAY = 86400

OLDEST = 90  # days; CIS AWS Foundations, "access keys are rotated every 90 days or less"

NEEDED = "./fab aws.policy prints all that is needed."

# With one of these a thief can erase what versions, locks and backups are there to keep, or give
# himself more.
ERASING = (
    "s3:DeleteObjectVersion", "s3:PutBucketVersioning", "s3:PutLifecycleConfiguration",
    "s3:PutBucketPolicy", "s3:DeleteBucketPolicy", "s3:BypassGovernanceRetention",
    "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:PutUserPolicy", "iam:AttachUserPolicy",
    "iam:CreateAccessKey", "iam:PassRole", "sts:AssumeRole", "ec2:TerminateInstances",
)  # fmt: skip

# Nobody who takes the host over gains by these.
SESSIONS = {action.lower() for action in policy.SESSIONS}


def rights(case: AccountCase) -> Iterator[Finding]:
    role, keys = case.parts.get("role"), case.parts.get("keys", [])
    yield from _role(case)
    yield from _sessions(case)
    for key in keys:
        yield from _key(case, key)
    ids = ", ".join(key["id"] for key in keys)
    if keys and role:
        yield case.finding(
            "keys-hide-role",
            "Keys on the host are used instead of its role.",
            f"{ids} in ~/.aws/credentials; the instance has the role {role['name']}",
            Remedy(
                "aws.adopt proves the bucket with the role alone, then takes the keys away.",
                type=(case.fab("aws.adopt"),),
            ),
            resource=ids,
        )


def _role(case: AccountCase) -> Iterator[Finding]:
    if "role" not in case.parts or "instance" not in case.parts:
        return
    role, keys = case.parts["role"], case.parts.get("keys")
    if not role:
        lie = "keys lie on the host instead, which do not change by themselves" if keys else ""
        yield case.finding(
            "role-none",
            "The instance has no role.",
            lie or "no instance profile is attached",
            Remedy(
                "With one nobody has to look after keys. aws.adopt makes it, attaches it and "
                f"proves it; or by hand: {NEEDED}",
                type=(case.fab("aws.adopt"),) if case.on_host else (),
            ),
            severity="note",
            resource=case.instance_id,
            check="ec2_instance_profile_attached",
        )
        return
    yield from _wide(case, f"The role {role['name']}", role["name"], role["policies"])


def _sessions(case: AccountCase) -> Iterator[Finding]:
    """Compare with what Session Manager needs, where hosts are reached by it."""
    role = case.parts.get("role")
    if case.settings.access != "ssm" or not role:
        return
    allowed = [
        pattern.lower()
        for one in role["policies"]
        for statement in _listed(one["document"].get("Statement"))
        if statement.get("Effect") == "Allow"
        for pattern in _listed(statement.get("Action"))
    ]
    lacking = [
        action
        for action in policy.SESSIONS
        if not any(fnmatch.fnmatchcase(action.lower(), pattern) for pattern in allowed)
    ]
    if lacking:
        yield case.finding(
            "session-rights",
            f"The role {role['name']} may not take sessions, by which `access: ssm` reaches it.",
            f"it lacks {', '.join(lacking)}",
            Remedy(f"Allow it these. {NEEDED}"),
            resource=role["name"],
        )


def _key(case: AccountCase, key: Mapping[str, Any]) -> Iterator[Finding]:
    id, user = key["id"], key["user"]
    if key["made"] and case.now - key["made"] > OLDEST * DAY:
        yield case.finding(
            "key-old",
            f"A key on the host is {int((case.now - key['made']) / DAY)} days old.",
            f"{id} of {user}",
            Remedy("Make another for that user, type ./fab configure, and delete this one."),
            severity="note",
            resource=id,
            check="iam_rotate_access_key_90_days",
        )
    yield from _wide(case, f"The key {id} of {user}", id, key["policies"])


def _wide(
    case: AccountCase, who: str, resource: str, policies: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """Compare what is allowed with what is needed."""
    found: dict[str, list[str]] = {"problem": [], "note": []}
    for one in policies:
        for statement in _listed(one["document"].get("Statement")):
            for severity, word in excess(statement, case):
                found[severity].append(f"{word} ({one['name']})")
    for severity, key, much in (
        ("problem", "rights-wide", "far more than it needs"),
        ("note", "rights-more", "more than it needs"),
    ):
        if words := list(dict.fromkeys(found[severity])):
            more = f" and {len(words) - 5} more" if len(words) > 5 else ""
            yield case.finding(
                key,
                f"{who} may do {much}: whoever takes the host over may, too.",
                ", ".join(words[:5]) + more,
                Remedy(f"Give it the least policy. {NEEDED}"),
                severity=severity,
                resource=resource,
                check="iam_inline_policy_no_administrative_privileges"
                if severity == "problem"
                else "",
            )


def excess(statement: Mapping[str, Any], case: AccountCase) -> Iterator[tuple[str, str]]:
    """Name what a statement allows beyond our policy, each with how bad that is."""
    if statement.get("Effect") != "Allow":
        return
    if "Action" not in statement:
        yield "problem", "NotAction"
        return
    resources = _listed(statement.get("Resource", "*"))
    needed = _needed(case)
    for action in _listed(statement["Action"]):
        if action.lower() in SESSIONS:
            continue
        if any(fnmatch.fnmatchcase(bad.lower(), action.lower()) for bad in ERASING):
            yield "problem", action
        elif action.lower() not in needed:
            yield "note", action
        else:
            for resource in resources:
                if case.settings.backup_profile and _reaches_backups(resource, case):
                    yield "problem", f"{action} on the backups"
                if not _within(resource, needed[action.lower()]):
                    severity = "problem" if resource in ("*", "arn:aws:s3:::*") else "note"
                    yield severity, f"{action} on {resource}"


def _needed(case: AccountCase) -> dict[str, list[str]]:
    """Map each action of our policy, in small letters, to its resources.

    Where backups have credentials of their own, the role is the server's alone.
    """
    found: dict[str, list[str]] = {}
    role: policy.Role = "artifacts" if case.settings.backup_profile else "both"
    for statement in policy.document(case.settings, role)["Statement"]:
        for action in statement["Action"]:
            found.setdefault(action.lower(), []).extend(statement["Resource"])
    return found


def _reaches_backups(resource: str, case: AccountCase) -> bool:
    """Tell whether a pattern of resources holds objects of the backups."""
    bucket = case.settings.backup_bucket or case.settings.bucket
    some = f"arn:aws:s3:::{bucket}/{case.settings.backup_prefix}/some"
    return fnmatch.fnmatchcase(some, resource)


def _within(resource: str, wanted: Sequence[str]) -> bool:
    """Tell whether a pattern of resources lies in one of ours, or is the bucket's as a whole.

    One for all of the bucket is more than needed, but it reaches nothing of others.
    """
    buckets = {one.partition("/")[0] for one in wanted}
    return any(resource == bucket or resource.startswith(f"{bucket}/") for bucket in buckets)


def _listed(value: Any) -> list[Any]:
    """Return what a policy may spell as one or as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
