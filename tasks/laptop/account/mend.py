"""Set up what is not as it should be in the account, each repair harmless when repeated.

None cuts off the operator or the server: what a new rule replaces goes once the new one is there,
and comes back where the host cannot be reached after that.
"""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.laptop.account.refusals import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.laptop.account.session import Account
    from tasks.laptop.account.way import Way

SSH = 22

# Of which a rule speaks, so that a put of all rules replaces ours alone.
PARTS = "remote-mlflow-unfinished-uploads"

UNFINISHED: dict[str, Any] = {
    "ID": PARTS,
    "Status": "Enabled",
    "Filter": {"Prefix": ""},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
}


# -- the bucket --------------------------------------------------------------------------------


def keep_versions(account: Account, bucket: str, way: Way | None = None) -> None:
    """Have the bucket keep what is deleted or overwritten."""
    account.client("s3").put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )


def encrypt(account: Account, bucket: str, way: Way | None = None) -> None:
    """Have S3 encrypt with a key of its own whatever names none."""
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    account.client("s3").put_bucket_encryption(
        Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]}
    )


def block_public(account: Account, bucket: str, way: Way | None = None) -> None:
    """Have neither policy nor access list open the bucket to everybody."""
    blocks = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    account.client("s3").put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration=blocks
    )


def require_tls(account: Account, bucket: str, way: Way | None = None) -> None:
    """Add a statement to the bucket's policy that denies what comes without TLS."""
    policy, others = policy_without_ours(account, bucket)
    policy["Statement"] = [*others, tls_only(bucket)]
    account.client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def policy_without_ours(account: Account, bucket: str) -> tuple[dict[str, Any], list[Any]]:
    """Return the bucket's policy, and what of its statements is not ours."""
    from botocore.exceptions import ClientError

    try:
        text = account.client("s3").get_bucket_policy(Bucket=bucket)["Policy"]
    except ClientError as error:
        if code_of(error) != "NoSuchBucketPolicy":
            raise
        text = '{"Version": "2012-10-17", "Statement": []}'
    policy = json.loads(text)
    there = policy["Statement"]
    statements = there if isinstance(there, list) else [there]
    return policy, [one for one in statements if one.get("Sid") != "RemoteMlflowTlsOnly"]


def tls_only(bucket: str) -> dict[str, Any]:
    """Return that statement."""
    return {
        "Sid": "RemoteMlflowTlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def end_unfinished(account: Account, bucket: str, way: Way | None = None) -> None:
    """Have S3 remove the parts of uploads that were cut off a week ago."""
    merge_rules(account, bucket, [UNFINISHED])


def merge_rules(account: Account, bucket: str, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Set lifecycle rules by their ids; all others stay, although S3 takes only all at once."""
    from botocore.exceptions import ClientError

    s3 = account.client("s3")
    try:
        rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except ClientError as error:
        if code_of(error) != "NoSuchLifecycleConfiguration":
            raise
        rules = []
    ids = {rule["ID"] for rule in wanted}
    merged = [*(rule for rule in rules if rule.get("ID") not in ids), *wanted]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": merged})


# -- the instance ------------------------------------------------------------------------------


def protect(account: Account, instance: str, way: Way | None = None) -> None:
    """Have AWS refuse to terminate the instance until somebody allows it."""
    account.client("ec2").modify_instance_attribute(
        InstanceId=instance, DisableApiTermination={"Value": True}
    )


def require_tokens(account: Account, instance: str, way: Way | None = None) -> None:
    """Have the instance's metadata answer those alone who ask for a token first (IMDSv2)."""
    account.client("ec2").modify_instance_metadata_options(
        InstanceId=instance, HttpTokens="required", HttpEndpoint="enabled"
    )


def narrow_ssh(account: Account, rule: str, way: Way | None = None) -> None:
    """Let the operator's own address in to SSH, then take away the rule that lets everybody in.

    Raises Exit, with the old rule put back, where the host cannot be reached after that.
    """
    if way is None:
        raise Exit("From where you reach the host is not known: nothing was changed.")
    ec2 = account.client("ec2")
    (old,) = ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule])["SecurityGroupRules"]
    group = old["GroupId"]
    let_in(account, group, way.address)
    if not _is_in(account, group, way.address):
        raise Exit(f"The new rule for {way.address} is not to be seen yet: nothing was taken away.")
    revoke(account, old)
    if way.reach():
        return
    let_in_again(account, old)
    raise Exit(
        f"Without {source(old)} the host could not be reached, so that rule is back as it was. You "
        f"seem to come from another address than {way.address}."
    )


def source(rule: Mapping[str, Any]) -> str:
    """Return where an inbound rule lets somebody in from, as people read it."""
    group = rule.get("ReferencedGroupInfo", {}).get("GroupId", "another group")
    return str(rule.get("CidrIpv4") or rule.get("CidrIpv6") or rule.get("PrefixListId") or group)


def revoke(account: Account, rule: Mapping[str, Any]) -> None:
    """Take an inbound rule away; that it is gone, as after an answer that was lost, is fine."""
    from botocore.exceptions import ClientError

    try:
        account.client("ec2").revoke_security_group_ingress(
            GroupId=rule["GroupId"], SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]]
        )
    except ClientError as error:
        gone = ("InvalidPermission.NotFound", "InvalidSecurityGroupRuleId.NotFound")
        if code_of(error) not in gone:
            raise


def let_in_again(account: Account, rule: Mapping[str, Any]) -> None:
    """Have an inbound rule for SSH be there once more; raises Exit for one of no network."""
    network = rule.get("CidrIpv4") or rule.get("CidrIpv6")
    if not network:
        raise Exit(f"Add it by hand: SSH from {source(rule)} in {rule['GroupId']}.")
    allow(account, rule["GroupId"], permission(network, rule.get("Description", "")))


def let_in(account: Account, group: str, address: str) -> None:
    """Add a rule for SSH from one address; one that is there already is as good."""
    network = str(ipaddress.ip_network(address))
    allow(account, group, permission(network, "remote-mlflow: operator"))


def allow(account: Account, group: str, one: Mapping[str, Any], **more: Any) -> None:
    """Add an inbound rule; one that is there already is as good."""
    from botocore.exceptions import ClientError

    try:
        account.client("ec2").authorize_security_group_ingress(
            GroupId=group, IpPermissions=[one], **more
        )
    except ClientError as error:
        if code_of(error) != "InvalidPermission.Duplicate":
            raise


def permission(network: str, description: str, port: int = SSH) -> dict[str, Any]:
    """Return what lets a network in to a port, as EC2 takes it."""
    version = ipaddress.ip_network(network).version
    ranges, word = ("IpRanges", "CidrIp") if version == 4 else ("Ipv6Ranges", "CidrIpv6")
    one = {word: network, **({"Description": description} if description else {})}
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, ranges: [one]}


def _is_in(account: Account, group: str, address: str) -> bool:
    pages = account.client("ec2").get_paginator("describe_security_group_rules")
    wanted = str(ipaddress.ip_network(address))
    return any(
        wanted in (rule.get("CidrIpv4"), rule.get("CidrIpv6"))
        and not rule["IsEgress"]
        and rule["FromPort"] == SSH
        for page in pages.paginate(Filters=[{"Name": "group-id", "Values": [group]}])
        for rule in page["SecurityGroupRules"]
    )


# By the key of the finding: what --fix does about it.
MENDS: Mapping[str, Callable[[Account, str, Way | None], None]] = {
    "versioning-off": keep_versions,
    "encryption-off": encrypt,
    "public-access": block_public,
    "tls-not-required": require_tls,
    "lifecycle-parts": end_unfinished,
    "protection-off": protect,
    "imds-v1": require_tokens,
    "ssh-open": narrow_ssh,
}
