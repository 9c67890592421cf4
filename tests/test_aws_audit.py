"""What is not safe in the account is named, by API calls made one at a time; and what is mended."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from account_side import (
    BUCKET,
    REGION,
    RULE,
    SETTINGS,
    UNIT,
    Host,
    World,
    context,
    playing,
    refusing,
    world,
)
from invoke import Exit

from tasks import aws_audit
from tasks.changes import operator_policy, policy
from tasks.engine import paths
from tasks.engine.console import console
from tasks.engine.settings import Settings
from tasks.findings.aws.case import MENDED
from tasks.laptop.account import look as looking
from tasks.laptop.account import mend, way
from tasks.laptop.account.session import Account, sign_in

_ = world  # the fixture


def rows(capsys: Any, world: World, settings: Settings = SETTINGS, **options: Any) -> list[Any]:
    """Audit, and return the findings but of what only the host could tell."""
    found = answered(capsys, context(settings), instance=world.instance, **options)
    return [row for row in found if row["severity"] != "blind"]


def answered(capsys: Any, c: Any, **options: Any) -> list[Any]:
    """Return what --json prints, as the executor has it printed."""
    console.quiet_stdout = True
    with suppress(Exit):
        aws_audit.audit(c, json=True, **options)
    console.quiet_stdout = False
    return list(json.loads(capsys.readouterr().out))


def keys(capsys: Any, world: World, settings: Settings = SETTINGS) -> list[str]:
    return [row["key"] for row in rows(capsys, world, settings)]


def on_host(capsys: Any, monkeypatch: Any, world: World, ids: list[str]) -> list[str]:
    """Audit the instance as the host at its address, where these keys lie."""
    address = world.described()["PublicIpAddress"]
    playing(monkeypatch, Host("ec2", address, ids))
    found = answered(capsys, context(hosts=["ec2"]))
    assert "blind" not in {row["severity"] for row in found}
    return [row["key"] for row in found]


def test_what_is_as_it_should_be_has_no_finding(capsys, world, monkeypatch):
    assert rows(capsys, world) == []
    assert on_host(capsys, monkeypatch, world, []) == []


def test_every_right_that_it_asks_for_is_one_of_the_operator_s(capsys, world, monkeypatch):
    world.calls.clear()
    on_host(capsys, monkeypatch, world, [])
    asked = set(world.calls) - {"GetCallerIdentity"}
    assert [call for call in asked if operator_policy.action(call) is None] == []
    assert not [call for call in asked if not re.match("Describe|Get|List|Head", call)]


# -- faults, one at a time ---------------------------------------------------------------------


def statement(**parts: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **parts}]})


def allow(world: World, action: Any, resource: str = "*") -> None:
    """Give the role another policy."""
    text = statement(Action=action, Resource=resource)
    world.client("iam").put_role_policy(RoleName=world.role, PolicyName="more", PolicyDocument=text)


def administer(world: World) -> None:
    iam = world.client("iam")
    made = iam.create_policy(PolicyName="admin", PolicyDocument=statement(Action="*", Resource="*"))
    iam.attach_role_policy(RoleName=world.role, PolicyArn=made["Policy"]["Arn"])


def add_disk(world: World) -> None:
    ec2 = world.client("ec2")
    zone = world.described()["Placement"]["AvailabilityZone"]
    disk = ec2.create_volume(AvailabilityZone=zone, Size=8, Encrypted=False)["VolumeId"]
    ec2.attach_volume(VolumeId=disk, InstanceId=world.instance, Device="/dev/sdf")


def change(world: World, **attribute: Any) -> None:
    world.client("ec2").modify_instance_attribute(InstanceId=world.instance, **attribute)


def shrink(world: World) -> None:
    world.client("ec2").stop_instances(InstanceIds=[world.instance])
    change(world, InstanceType={"Value": "t3.nano"})
    world.client("ec2").start_instances(InstanceIds=[world.instance])


def tell(world: World) -> None:
    text = b"#!/bin/sh\nexport DB_PASSWORD=hunter2hunter2\n"
    change(world, UserData={"Value": base64.b64encode(text).decode()})


def metadata(**options: Any) -> Callable[[World], Any]:
    return lambda world: world.client("ec2").modify_instance_metadata_options(
        InstanceId=world.instance, **options
    )


def part(world: World) -> None:
    ec2 = world.client("ec2")
    (one,) = ec2.describe_iam_instance_profile_associations()["IamInstanceProfileAssociations"]
    ec2.disassociate_iam_instance_profile(AssociationId=one["AssociationId"])


def policy_of(*statements: dict[str, Any]) -> Callable[[World], Any]:
    """Have the bucket's policy hold these beside ours."""
    text = json.dumps({"Version": "2012-10-17", "Statement": [*statements, mend.tls_only(BUCKET)]})
    return lambda world: world.client("s3").put_bucket_policy(Bucket=BUCKET, Policy=text)


def granted(principal: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": principal, "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{BUCKET}/*"}  # fmt: skip


def lifecycle(*more: dict[str, Any], without: str = "") -> Callable[[World], Any]:
    ours = [rule for rule in (mend.UNFINISHED, RULE) if rule["ID"] != without]
    return lambda world: world.client("s3").put_bucket_lifecycle_configuration(
        Bucket=BUCKET, LifecycleConfiguration={"Rules": [*ours, *more]}
    )


def rule(**parts: Any) -> dict[str, Any]:
    return {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "mlflow-"}, **parts}


def s3(operation: str, **options: Any) -> Callable[[World], Any]:
    return lambda world: getattr(world.client("s3"), operation)(Bucket=BUCKET, **options)


SUSPENDED = {"VersioningConfiguration": {"Status": "Suspended"}}

FAULTS: dict[str, tuple[Callable[[World], Any], list[str]]] = {
    "SSH from everywhere": (lambda world: world.let("0.0.0.0/0", 22), ["ssh-open"]),
    "SSH from everywhere by IPv6": (lambda world: world.let("::/0", 22), ["ssh-open"]),
    "the server's port": (lambda world: world.let("0.0.0.0/0", 5000), ["server-open"]),
    "another port": (lambda world: world.let("0.0.0.0/0", 8080, 8090), ["port-open"]),
    "a web server": (lambda world: world.let("0.0.0.0/0", 443), ["port-open"]),
    "a range": (lambda world: world.let("::/0", 20, 6000), ["ssh-open", "server-open"]),
    "all": (lambda world: world.let("0.0.0.0/0", 0, protocol="-1"), ["ssh-open", "server-open"]),
    "IMDSv1": (metadata(HttpTokens="optional"), ["imds-v1"]),
    "two hops": (metadata(HttpTokens="required", HttpPutResponseHopLimit=2), ["imds-hops"]),
    "a plain disk": (add_disk, ["disk-unencrypted"]),
    "no protection": (
        lambda world: change(world, DisableApiTermination={"Value": False}), ["protection-off"]
    ),
    "too small": (shrink, ["type-small"]),
    "a password in user data": (tell, ["user-data-secret"]),
    "no role": (part, ["role-none"]),
    "an administrator": (administer, ["rights-wide"]),
    "all of S3": (lambda world: allow(world, "s3:*"), ["rights-wide"]),
    "all buckets": (lambda world: allow(world, "s3:GetObject"), ["rights-wide"]),
    "erasing versions": (
        lambda world: allow(world, ["s3:DeleteObjectVersion"], f"arn:aws:s3:::{BUCKET}/*"),
        ["rights-wide"],
    ),
    "something else": (lambda world: allow(world, "cloudwatch:PutMetricData"), ["rights-more"]),
    "no versions": (s3("put_bucket_versioning", **SUSPENDED), ["versioning-off"]),
    "no encryption": (s3("delete_bucket_encryption"), ["encryption-off"]),
    "public access": (s3("delete_public_access_block"), ["public-access"]),
    "no TLS": (s3("delete_bucket_policy"), ["tls-not-required"]),
    "a public bucket": (policy_of(granted("*")), ["bucket-public"]),
    "another account": (
        policy_of(granted({"AWS": "arn:aws:iam::999999999999:root"})), ["bucket-shared"]
    ),
    "a rule that deletes": (lifecycle(rule(Expiration={"Days": 30})), ["lifecycle-deletes"]),
    "a rule that archives": (
        lifecycle(rule(Transitions=[{"Days": 30, "StorageClass": "GLACIER"}])),
        ["lifecycle-archives"],
    ),
    "no end of uploads": (lifecycle(without=mend.PARTS), ["lifecycle-parts"]),
    "no end of versions": (lifecycle(without=RULE["ID"]), ["lifecycle-versions"]),
}  # fmt: skip

every_fault = pytest.mark.parametrize("name", FAULTS)


@every_fault
def test_each_fault_is_named_and_mended_where_that_is_promised(capsys, world, monkeypatch, name):
    break_it, wanted = FAULTS[name]
    break_it(world)
    assert keys(capsys, world) == wanted
    address = world.described().get("PublicIpAddress", "")
    before = known_to_host(capsys, monkeypatch, address)
    assert [row["key"] for row in before] == wanted
    if not any(row["safe"] for row in before):
        return
    world.calls.clear()
    with_fix(world)
    capsys.readouterr()
    changing = {call for call in world.calls if not re.match("Describe|Get|List|Head", call)}
    assert changing
    assert [call for call in changing if operator_policy.action(call) is None] == []
    after = known_to_host(capsys, monkeypatch, address)
    assert after == [row for row in before if not row["safe"]]


def known_to_host(capsys: Any, monkeypatch: Any, address: str) -> list[Any]:
    """Audit where the host is named, and lets its operator in from everywhere."""
    monkeypatch.setattr(way, "reaches", lambda *_: True)
    playing(monkeypatch, Host("ec2", address, []))
    found = answered(capsys, context(hosts=["ec2"]))
    return [row for row in found if row["severity"] != "blind"]


def test_without_the_host_s_name_ssh_is_left_as_it_is(world, capsys):
    world.let("0.0.0.0/0", 22)
    (found,) = rows(capsys, world, fix=True, yes=True)
    assert found["safe"] is False
    assert found["remedy"].endswith("--fix does it where the host is named with -H.")
    assert "0.0.0.0/0" in world.networks()


def with_fix(world: World, **options: Any) -> None:
    with suppress(Exit):
        aws_audit.audit(context(hosts=["ec2"]), fix=True, yes=True, **options)


def test_what_is_promised_is_what_can_be_done():
    assert set(mend.MENDS) == MENDED


def test_what_is_promised_is_tried_here():
    tried = {key for _, wanted in FAULTS.values() for key in wanted}
    assert tried >= MENDED


def test_the_rules_of_others_stay(world):
    lifecycle(rule(Expiration={"Days": 3000}), without=mend.PARTS)(world)
    mend.end_unfinished(world.account, BUCKET)
    found = world.client("s3").get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert [one["ID"] for one in found] == [RULE["ID"], "theirs", mend.PARTS]


def test_the_statements_of_others_stay(world):
    policy_of(granted({"AWS": "arn:aws:iam::999999999999:root"}))(world)
    mend.require_tls(world.account, BUCKET)
    text = world.client("s3").get_bucket_policy(Bucket=BUCKET)["Policy"]
    assert [one["Effect"] for one in json.loads(text)["Statement"]] == ["Allow", "Deny"]


def test_a_bucket_in_another_region_is_named(capsys, world):
    Account(boto3.Session(), "us-west-2").client("s3").create_bucket(
        Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    found = keys(capsys, world, SETTINGS.model_copy(update={"bucket": "far-away"}))
    assert "bucket-elsewhere" in found


def test_what_others_have_named_is_no_line_of_its_own(capsys, world):
    lifecycle(rule(ID="x\n✓ well: bucket\u202e", Expiration={"Days": 1}))(world)
    with suppress(Exit):
        aws_audit.audit(context(), instance=world.instance)
    out = capsys.readouterr().out
    assert "seen: rule x?✓ well: bucket?: " in out


def test_backups_with_credentials_of_their_own_are_not_the_role_s(capsys, world):
    apart = SETTINGS.model_copy(update={"backup_profile": "backups"})
    (wide, more) = rows(capsys, world, apart)
    assert (wide["key"], more["key"]) == ("rights-wide", "rights-more")
    assert "s3:GetObject on the backups (bucket)" in wide["seen"]
    text = policy.text(policy.document(apart, "artifacts"))
    world.client("iam").put_role_policy(RoleName=UNIT, PolicyName="bucket", PolicyDocument=text)
    assert keys(capsys, world, apart) == []


def test_a_bucket_of_the_backups_own_is_looked_at_as_well(capsys, world):
    world.client("s3").create_bucket(
        Bucket="team-backups", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    apart = SETTINGS.model_copy(update={"backup_bucket": "team-backups"})
    found = rows(capsys, world, apart)
    assert {row["host"] for row in found} == {"team-backups", world.instance}
    assert "versioning-off" in [row["key"] for row in found]


def test_a_type_is_measured_by_the_workers_that_are_wanted(capsys, world):
    assert keys(capsys, world, SETTINGS.model_copy(update={"workers": 16})) == ["type-small"]


def test_with_a_name_the_web_is_open_on_purpose(capsys, world):
    world.let("0.0.0.0/0", 443)
    named = SETTINGS.model_copy(update={"public_name": "mlflow.example.org"})
    assert keys(capsys, world, named) == []


def test_for_session_manager_no_rule_for_ssh_is_needed_and_the_role_has_rights(capsys, world):
    by_session = SETTINGS.model_copy(update={"access": "ssm"})
    found = {row["key"]: row for row in rows(capsys, world, by_session)}
    assert set(found) == {"ssh-needless", "session-rights"}
    assert (found["ssh-needless"]["severity"], found["ssh-needless"]["safe"]) == ("note", False)
    assert "ssmmessages:OpenDataChannel" in found["session-rights"]["seen"]
    text = policy.text(policy.document(by_session))
    world.client("iam").put_role_policy(RoleName=UNIT, PolicyName="bucket", PolicyDocument=text)
    assert keys(capsys, world, by_session) == ["ssh-needless"]


# -- keys on the host ----------------------------------------------------------------------------


@pytest.fixture
def key(world: World) -> str:
    """A user's key, with rights that are too wide."""
    iam = world.client("iam")
    iam.create_user(UserName="ann")
    iam.create_group(GroupName="team")
    iam.add_user_to_group(GroupName="team", UserName="ann")
    text = statement(Action="s3:*", Resource="*")
    iam.put_group_policy(GroupName="team", PolicyName="all", PolicyDocument=text)
    return str(iam.create_access_key(UserName="ann")["AccessKey"]["AccessKeyId"])


def test_keys_that_hide_a_role_are_named(capsys, world, monkeypatch, key):
    assert on_host(capsys, monkeypatch, world, [key]) == ["rights-wide", "keys-hide-role"]


def test_keys_where_a_role_would_do_are_named(capsys, world, monkeypatch, key):
    part(world)
    assert on_host(capsys, monkeypatch, world, [key]) == ["rights-wide", "role-none"]


def test_old_keys_are_named(capsys, world, monkeypatch, key):
    later = datetime.now(timezone.utc) + timedelta(days=91)
    monkeypatch.setattr("time.time", later.timestamp)
    assert "key-old" in on_host(capsys, monkeypatch, world, [key])


def test_a_key_that_is_no_user_s_is_named_as_that(world):
    answer = {"AccessKeyLastUsed": {}}
    iam = SimpleNamespace(get_access_key_last_used=lambda **_: answer)
    account: Any = SimpleNamespace(client=lambda _: iam)
    assert looking.key(account, "AKIA0123456789ABCDEF")["user"] == "nobody in this account"


def test_the_groups_of_a_second_interface_count(world, capsys):
    ec2, first = world.client("ec2"), world.described()
    wide = ec2.create_security_group(GroupName="wide", Description="w", VpcId=first["VpcId"])
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22,
            "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}  # fmt: skip
    ec2.authorize_security_group_ingress(GroupId=wide["GroupId"], IpPermissions=[rule])
    card = ec2.create_network_interface(SubnetId=first["SubnetId"], Groups=[wide["GroupId"]])
    ec2.attach_network_interface(
        NetworkInterfaceId=card["NetworkInterface"]["NetworkInterfaceId"],
        InstanceId=world.instance,
        DeviceIndex=1,
    )
    assert keys(capsys, world) == ["ssh-open"]


def test_keys_of_a_session_belong_to_nobody(world, monkeypatch):
    host = playing(monkeypatch, Host("ec2", "", ["ASIA0123456789ABCDEF", "AKIA0123456789ABCDEF"]))
    assert way.key_ids(host) == ["AKIA0123456789ABCDEF"]


def test_a_host_that_cannot_be_reached_ends_nothing(capsys, world, monkeypatch):
    address = world.described()["PublicIpAddress"]
    playing(monkeypatch, Host("ec2", address, [], reachable=False))
    with pytest.raises(Exit) as refused:
        aws_audit.audit(context(hosts=["ec2"]))
    assert refused.value.code == 2
    out = capsys.readouterr().out
    assert "[ec2] ? Not looked at: rights (./fab -H ec2 status cannot reach" in out
    assert "[ec2] ✓ well: network, instance" in out


# -- SSH is narrowed, and nobody locked out ------------------------------------------------------


def narrowing(world: World, monkeypatch: Any, **host: Any) -> None:
    world.let("0.0.0.0/0", 22)
    address = world.described()["PublicIpAddress"]
    playing(monkeypatch, Host("ec2", address, [], **host))
    with_fix(world)


def test_the_operator_s_own_address_is_in_before_everybody_is_out(world, monkeypatch):
    networks: list[list[str]] = []
    monkeypatch.setattr(way, "reaches", lambda *_: not networks.append(world.networks()))
    narrowing(world, monkeypatch)
    assert networks == [["203.0.113.77/32", "203.0.113.9/32"]]
    assert world.calls.index("AuthorizeSecurityGroupIngress") < world.calls.index(
        "RevokeSecurityGroupIngress"
    )


def test_where_the_host_cannot_be_reached_then_everybody_is_in_again(world, monkeypatch, capsys):
    monkeypatch.setattr(way, "reaches", lambda *_: False)
    narrowing(world, monkeypatch)
    assert "0.0.0.0/0" in world.networks()
    assert "that rule is back as it was" in capsys.readouterr().err


@pytest.mark.parametrize("host", [{"reachable": False}, {"proxy_command": "ssh -W hop"}], ids=str)
def test_from_an_address_that_nobody_knows_nothing_is_narrowed(world, monkeypatch, capsys, host):
    narrowing(world, monkeypatch, **host)
    assert "0.0.0.0/0" in world.networks()
    assert "nothing was changed" in capsys.readouterr().err


def test_a_new_rule_that_is_not_to_be_seen_takes_nothing_away(world, monkeypatch):
    monkeypatch.setattr(mend, "let_in", lambda *_: None)
    narrowing(world, monkeypatch)
    assert "0.0.0.0/0" in world.networks()


def test_repairs_are_asked_about_and_the_default_is_no(world, capsys):
    change(world, DisableApiTermination={"Value": False})
    with pytest.raises(Exit, match="--yes"):
        aws_audit.audit(context(), instance=world.instance, fix=True)
    assert "  - protection-off: i-" in capsys.readouterr().out
    assert keys(capsys, world) == ["protection-off"]


def test_a_repair_that_is_refused_does_not_stop_the_others(world, capsys, monkeypatch):
    change(world, DisableApiTermination={"Value": False})
    metadata(HttpTokens="optional")(world)
    with refusing("UnauthorizedOperation", "ModifyInstanceMetadataOptions"):
        with_fix_by_id(world)
    assert "imds-v1: AWS does not let you do ec2:ModifyInstanceMetadataOptions" in (
        capsys.readouterr().err
    )
    assert keys(capsys, world) == ["imds-v1"]


def with_fix_by_id(world: World) -> None:
    with pytest.raises(Exit):
        aws_audit.audit(context(), instance=world.instance, fix=True, yes=True)


# -- what may not be looked at -------------------------------------------------------------------

# By the operation that is denied: the area that cannot be looked at then, and the right.
DENIED = {
    "DescribeInstances": ("network, instance, rights", "ec2:DescribeInstances"),
    "DescribeSecurityGroupRules": ("network", "ec2:DescribeSecurityGroupRules"),
    "DescribeVolumes": ("instance", "ec2:DescribeVolumes"),
    "DescribeInstanceTypes": ("instance", "ec2:DescribeInstanceTypes"),
    "DescribeInstanceAttribute": ("instance", "ec2:DescribeInstanceAttribute"),
    "GetInstanceProfile": ("rights", "iam:GetInstanceProfile"),
    "GetRolePolicy": ("rights", "iam:GetRolePolicy"),
    "HeadBucket": ("bucket", "s3:ListBucket"),
    "GetBucketVersioning": ("bucket", "s3:GetBucketVersioning"),
    "GetBucketEncryption": ("bucket", "s3:GetEncryptionConfiguration"),
    "GetPublicAccessBlock": ("bucket", "s3:GetBucketPublicAccessBlock"),
    "GetBucketPolicy": ("bucket", "s3:GetBucketPolicy"),
    "GetBucketLifecycleConfiguration": ("bucket", "s3:GetLifecycleConfiguration"),
}


@pytest.mark.parametrize("operation", DENIED)
def test_no_right_is_required_and_what_is_missing_is_said(world, monkeypatch, capsys, operation):
    areas, right = DENIED[operation]
    playing(monkeypatch, Host("ec2", world.described()["PublicIpAddress"], []))
    code = "UnauthorizedOperation" if operation.startswith("Describe") else "AccessDenied"
    with refusing(code, operation):
        found = answered(capsys, context(hosts=["ec2"]))
    assert ", ".join(row["area"] for row in found if row["severity"] == "blind") == areas
    assert all(f"{right} is not allowed" in row["what"] for row in found)


def test_a_bucket_that_is_not_there_is_said(world, capsys):
    gone = SETTINGS.model_copy(update={"bucket": "nobody-has-made-it"})
    with pytest.raises(Exit):
        aws_audit.audit(context(gone), instance=world.instance)
    assert "? Not looked at: bucket (it is not there" in capsys.readouterr().out


def test_another_store_is_none_of_the_account_s(world, capsys):
    elsewhere = SETTINGS.model_copy(update={"endpoint_url": "https://minio.example.org"})
    with pytest.raises(Exit):
        aws_audit.audit(context(elsewhere), instance=world.instance)
    assert "it is at https://minio.example.org, not at AWS" in capsys.readouterr().out


def test_an_instance_of_another_region_is_said(world, capsys, monkeypatch):
    playing(monkeypatch, Host("ec2", "198.51.100.1", []))
    with pytest.raises(Exit):
        aws_audit.audit(context(hosts=["ec2"]))
    assert "eu-central-1 has no instance at 198.51.100.1" in capsys.readouterr().out


def test_without_a_host_ours_is_known_by_its_tag(world, capsys):
    with pytest.raises(Exit) as refused:
        aws_audit.audit(context())
    assert refused.value.code == 2, "which keys lie there, only the host knows"
    assert "[mlflow-server] ✓ well: network, instance" in capsys.readouterr().out


def test_a_rehearsal_host_is_refused(world, monkeypatch):
    playing(monkeypatch, Host("sandbox", "10.0.0.2", [], rehearsal=True))
    with pytest.raises(Exit, match="sandbox is a rehearsal host"):
        aws_audit.audit(context(hosts=["sandbox"]))


def test_where_it_looks_and_as_whom_is_said_first(world, capsys):
    with pytest.raises(Exit):
        aws_audit.audit(context())
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("looking at account 123456789012, region eu-central-1, as ")


# -- the page ----------------------------------------------------------------------------------


def test_every_finding_stands_in_the_page_and_no_other():
    folder = paths.PROJECT / "tasks/findings/aws"
    code = "\n".join(file.read_text() for file in folder.glob("*.py"))
    found = set(re.findall(r'case\.finding\(\s*"([a-z0-9-]+)"', code))
    found |= {"bucket-public", "bucket-shared", "rights-wide", "rights-more"}  # two by one call
    page = (paths.PROJECT / "docs/aws.md").read_text().partition("## What the audit finds")[2]
    table = page.partition("\n## ")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    assert {key for cell in cells for key in re.findall(r"`([a-z0-9-]+)`", cell)} == found


def test_every_finding_is_provoked_here():
    page = (paths.PROJECT / "docs/aws.md").read_text().partition("## What the audit finds")[2]
    rows = [row.split("|")[1] for row in page.partition("\n## ")[0].splitlines() if "|" in row]
    named = {key for cell in rows for key in re.findall(r"`([a-z0-9-]+)`", cell)}
    tried = {key for _, wanted in FAULTS.values() for key in wanted}
    assert named - tried == {
        "bucket-elsewhere", "keys-hide-role", "key-old", "ssh-needless", "session-rights",
    }  # fmt: skip


def test_no_region_is_one_line():
    with pytest.raises(Exit, match="No region is named"):
        sign_in(Settings(bucket="some-bucket"))
