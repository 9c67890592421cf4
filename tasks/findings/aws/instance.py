"""How the instance is set up: metadata, disks, protection, size, and what its user data says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tasks.changes.provision import needed_mb
from tasks.engine.tables import counted
from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.aws.case import AccountCase
    from tasks.findings.case import Finding

# Shapes of secrets; what they matched is never shown.
SECRETS = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|aws_secret_access_key\s*[=:]"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b\w*(password|passwd|secret|token)\w*\s*[=:]\s*[\"']?[^\s\"'$<]{6,}",
    re.I,
)


def instance(case: AccountCase) -> Iterator[Finding]:
    if "instance" not in case.parts:
        return
    yield from _metadata(case)
    yield from _disks(case)
    if case.parts.get("protection") is False:
        yield case.finding(
            "protection-off",
            "One click terminates the instance, and its disk with it.",
            "DisableApiTermination is false",
            Remedy(case.mends),
            severity="note",
            resource=case.instance_id,
        )
    yield from _size(case)
    if found := SECRETS.search(case.parts.get("user data", "")):
        line = case.parts["user data"][: found.start()].count("\n") + 1
        yield case.finding(
            "user-data-secret",
            "The instance's user data holds what looks like a secret.",
            f"line {line}; it is not shown. Whatever runs on the host can read it, and whoever may "
            "describe the instance",
            Remedy(
                "Give the service another secret. User data can be changed while the instance is "
                "stopped.",
            ),
            resource=case.instance_id,
            check="ec2_instance_secrets_user_data",
        )


def _metadata(case: AccountCase) -> Iterator[Finding]:
    options, id = case.parts["instance"].get("MetadataOptions", {}), case.instance_id
    if options.get("HttpEndpoint") == "disabled":
        return
    if options.get("HttpTokens") != "required":
        yield case.finding(
            "imds-v1",
            "Whatever on the host can be made to fetch an address gives away the role's keys.",
            f"HttpTokens is {options.get('HttpTokens', 'optional')}: IMDSv1 answers",
            Remedy(case.mends),
            resource=id,
            check="ec2_instance_imdsv2_enabled",
        )
    hops = options.get("HttpPutResponseHopLimit", 1)
    if hops > 1:
        command = (
            f"aws ec2 modify-instance-metadata-options --instance-id {id} "
            "--http-put-response-hop-limit 1"
        )
        yield case.finding(
            "imds-hops",
            "Containers on the host get the role's keys.",
            f"HttpPutResponseHopLimit is {hops}",
            Remedy("Nothing of ours runs in one. Unless something of yours does:", type=(command,)),
            severity="note",
            resource=id,
        )


def _disks(case: AccountCase) -> Iterator[Finding]:
    for volume in case.parts.get("volumes", []):
        if not volume.get("Encrypted"):
            yield case.finding(
                "disk-unencrypted",
                "A disk of the instance is not encrypted.",
                f"{volume['VolumeId']}: Encrypted is false",
                Remedy(
                    "It cannot be encrypted in place: make a new instance with an encrypted disk, "
                    "and bring the server over by restore (docs/backup.md)."
                ),
                severity="note",
                resource=volume["VolumeId"],
                check="ec2_ebs_volume_encryption",
            )


def _size(case: AccountCase) -> Iterator[Finding]:
    if "type" not in case.parts:
        return
    there, needed = case.parts["type"]["MemoryInfo"]["SizeInMiB"], needed_mb(case.settings.workers)
    if there < needed:
        yield case.finding(
            "type-small",
            f"The instance is too small for {counted(case.settings.workers or 1, 'worker')}.",
            f"{case.parts['type']['InstanceType']} has {there} MB, about {needed} are needed",
            Remedy("Choose a larger type while it is stopped, or fewer `workers:`."),
            resource=case.instance_id,
        )
