"""How the bucket is set up, and who may read the backups in it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.findings.aws.case import AccountCase
    from tasks.findings.case import Finding

BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def bucket(case: AccountCase) -> Iterator[Finding]:
    parts = case.parts
    if "versioning" in parts and parts["versioning"] != "Enabled":
        yield case.finding(
            "versioning-off",
            "What is deleted or overwritten in the bucket is gone at once.",
            f"versioning is {parts['versioning'] or 'not set'}",
            Remedy(
                f"{case.mends} What was deleted then takes space until a lifecycle rule removes it."
            ),
            resource=case.name,
            check="s3_bucket_object_versioning",
        )
    if "encryption" in parts and not parts["encryption"]:
        yield case.finding(
            "encryption-off",
            "The bucket names no encryption.",
            "no default encryption",
            Remedy(case.mends),
            resource=case.name,
            check="s3_bucket_default_encryption",
        )
    yield from _public(case)
    yield from _policy(case)
    yield from _lifecycle(case)
    yield from _region(case)


def _public(case: AccountCase) -> Iterator[Finding]:
    if "public access" not in case.parts:
        return
    off = [name for name in BLOCKS if not case.parts["public access"].get(name)]
    if off:
        # Where a policy opens it on purpose, somebody may depend on that.
        opened = "policy" not in case.parts or bool(strangers(case)[0])
        yield case.finding(
            "public-access",
            "The bucket may be opened to everybody by a policy or an access list.",
            f"public access is not blocked: {', '.join(off)}",
            Remedy(
                "Somebody has opened it on purpose: ask who, then block public access."
                if opened
                else case.mends,
                safe=not opened,
            ),
            resource=case.name,
            check="s3_bucket_level_public_access_block",
        )


def _policy(case: AccountCase) -> Iterator[Finding]:
    if "policy" not in case.parts:
        return
    if not only_tls(case.parts["policy"], case.name):
        yield case.finding(
            "tls-not-required",
            "The bucket takes requests without TLS.",
            "no statement of its policy denies aws:SecureTransport false",
            Remedy(case.mends),
            severity="note",
            resource=case.name,
            check="s3_bucket_secure_transport_policy",
        )
    everybody, others = strangers(case)
    for names, key, severity in (
        (everybody, "bucket-public", "problem"),
        (others, "bucket-shared", "note"),
    ):
        if names:
            who = "Everybody" if key == "bucket-public" else f"Another account ({', '.join(names)})"
            yield case.finding(
                key,
                f"{who} may get at what is in the bucket, backups with their hashes and keys "
                "included.",
                f"its policy allows {', '.join(names)}",
                Remedy("If that is not meant, take the statement out of the bucket's policy."),
                severity=severity,
                resource=case.name,
                check="s3_bucket_policy_public_write_access" if severity == "problem" else "",
            )


def only_tls(policy: Mapping[str, Any], bucket: str) -> bool:
    """Tell whether a bucket's policy denies every request without TLS."""
    arn = f"arn:aws:s3:::{bucket}"
    return any(
        one.get("Effect") == "Deny"
        and one.get("Principal") in ("*", {"AWS": "*"})
        and {"s3:*", "*"} & set(_listed(one.get("Action")))
        and {arn, f"{arn}/*"} <= set(_listed(one.get("Resource")))
        and str(one.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")).lower()
        == "false"
        for one in _listed(policy.get("Statement"))
    )


def strangers(case: AccountCase) -> tuple[list[str], list[str]]:
    """Return whom the bucket's policy lets in: everybody, and principals of other accounts."""
    everybody, others = [], []
    for one in _listed(case.parts["policy"].get("Statement")):
        if one.get("Effect") != "Allow" or "Service" in _mapping(one.get("Principal")):
            continue
        principal = one.get("Principal", one.get("NotPrincipal"))
        for name in _listed(_mapping(principal).get("AWS", principal)):
            account = re.search(r"\d{12}", str(name))
            if name == "*" and not one.get("Condition"):
                everybody.append("*")
            elif name != "*" and account and account[0] != case.parts.get("account"):
                others.append(str(name))
    return sorted(set(everybody)), sorted(set(others))


def _lifecycle(case: AccountCase) -> Iterator[Finding]:
    if "lifecycle" not in case.parts:
        return
    rules = [rule for rule in _listed(case.parts["lifecycle"] or []) if rule["Status"] == "Enabled"]
    kept = (case.settings.backup_prefix, case.settings.artifact_prefix)
    for rule in rules:
        reached = [prefix for prefix in kept if _reaches(rule, prefix)]
        expires = {"Days", "Date"} & set(rule.get("Expiration", {}))
        away = [one.get("StorageClass", "") for one in rule.get("Transitions", [])]
        if reached and expires:
            yield case.finding(
                "lifecycle-deletes",
                f"A lifecycle rule deletes what is in use below {' and '.join(reached)}.",
                f"rule {rule.get('ID', '?')}: {json.dumps(rule['Expiration'], default=str)}",
                Remedy(
                    "How long backups stay is what `keep:` says, and artifacts stay until gc. Take "
                    "the rule away, or narrow its prefix."
                ),
                resource=case.name,
            )
        if reached and {"GLACIER", "DEEP_ARCHIVE"} & set(away):
            yield case.finding(
                "lifecycle-archives",
                f"A lifecycle rule moves what is below {' and '.join(reached)} where it cannot be "
                "read at once.",
                f"rule {rule.get('ID', '?')}: {', '.join(away)}",
                Remedy("restore and clients then fail. GLACIER_IR and STANDARD_IA can be read."),
                resource=case.name,
            )
    if not any("AbortIncompleteMultipartUpload" in rule and _whole(rule) for rule in rules):
        yield case.finding(
            "lifecycle-parts",
            "Uploads that were cut off stay in the bucket, and are paid for, for ever.",
            "no rule for the whole bucket with AbortIncompleteMultipartUpload",
            Remedy(case.mends),
            severity="note",
            resource=case.name,
            check="s3_bucket_lifecycle_enabled",
        )
    hoards = not any("NoncurrentVersionExpiration" in rule for rule in rules)
    if case.parts.get("versioning") == "Enabled" and hoards:
        yield case.finding(
            "lifecycle-versions",
            "What was deleted or overwritten stays in the bucket, and is paid for, for ever.",
            "versioning without a rule with NoncurrentVersionExpiration",
            # A rule would delete all old versions at once: somebody may count on those.
            Remedy(
                "Add a rule that deletes noncurrent versions after 30 days, unless you count on "
                "older ones. docs/aws.md shows the rules.",
                safe=False,
            ),
            severity="note",
            resource=case.name,
        )


def _whole(rule: Mapping[str, Any]) -> bool:
    return _prefix(rule) == "" and not {"Tag", "And"} & set(rule.get("Filter", {}))


def _prefix(rule: Mapping[str, Any]) -> str:
    found = rule.get("Filter", {})
    return str(
        rule.get("Prefix") or found.get("Prefix") or found.get("And", {}).get("Prefix") or ""
    )


def _reaches(rule: Mapping[str, Any], prefix: str) -> bool:
    """Tell whether a rule concerns something below a prefix, as far as names alone say."""
    found = rule.get("Filter", {})
    if "Tag" in found or "Tags" in found.get("And", {}):
        return False  # nothing of ours bears a tag
    one, other = _prefix(rule), f"{prefix}/"
    return one.startswith(other) or other.startswith(one)


def _region(case: AccountCase) -> Iterator[Finding]:
    there, here = case.parts.get("bucket", {}).get("region"), case.parts.get("home")
    if there and here and there != here:
        yield case.finding(
            "bucket-elsewhere",
            "Bucket and instance are in different regions: each byte between them is paid for.",
            f"bucket {there}, instance {here}",
            Remedy("Have both in one region; artifacts can be copied by `aws s3 sync`."),
            severity="note",
            resource=case.name,
        )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
