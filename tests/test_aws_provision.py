"""One story: what the plan says is what is made, once; faults are named; nothing is left behind."""

from __future__ import annotations

import base64
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from account_side import (
    BUCKET,
    HOST_KEY,
    OWN,
    REGION,
    SETTINGS,
    TAGS,
    UNIT,
    World,
    context,
    described_all,
    land,
    provision_it,
    provisioned,
    refusing,
    world,
)
from botocore.exceptions import ClientError
from invoke import Exit
from moto.ec2.responses import general
from test_aws_audit import FAULTS, keys, known_to_host, with_fix

from tasks import aws_cost, aws_destroy, aws_power, aws_provision
from tasks.changes import operator_policy, policy, prices, provision
from tasks.engine import connection, paths
from tasks.engine.account_parts import Names, differing
from tasks.engine.settings import Settings, settle
from tasks.laptop.account import (
    bucket,
    entry,
    group,
    host_key,
    instance,
    key_pair,
    place,
    price_list,
)
from tasks.laptop.account.group import network
from tasks.laptop.account.survey import survey

_ = (land, provisioned, world)  # the fixtures

NAMES = Names(UNIT, "123456789012", REGION)

OURS = NAMES.bucket

EMPTY = Settings(region=REGION)


def destroy(settings: Settings = SETTINGS, **options: Any) -> None:
    aws_destroy.destroy(context(settings), name=settings.unit, **options)


def out(capsys: Any) -> str:
    return str(capsys.readouterr().out)


def mutations(world: World) -> list[str]:
    """Name the calls that changed something."""
    return [call for call in world.calls if not re.match("Describe|Get|List|Head", call)]


# -- the plan is what is made --------------------------------------------------------------------


def test_the_plan_is_what_is_made_attribute_by_attribute(land, monkeypatch):
    plans = []
    planned = aws_provision.planned

    def noted(order: Any) -> Any:
        plans.append(planned(order))
        return plans[-1]

    monkeypatch.setattr(aws_provision, "planned", noted)
    provision_it(land)
    wanted = plans[0][0]
    vpc = wanted.group.vpc
    there = survey(land.account, NAMES, [BUCKET], vpc).parts
    assert there.buckets == wanted.buckets
    assert there.role == wanted.role
    assert there.group == wanted.group
    assert differing(wanted.key, there.key) == ["public"], "made after the plan was shown"
    assert there.key.public == key_pair.public_half(NAMES)
    assert there.instance == provision.settled(wanted.instance, land.group)
    assert there.address is None


def test_what_is_made_is_what_the_facts_ask_for(provisioned):
    one = provisioned.described()
    assert one["InstanceType"] == "t4g.small"
    assert one["MetadataOptions"]["HttpTokens"] == "required"
    assert one["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert one["KeyName"] == UNIT
    assert provisioned.networks() == [OWN]
    (disk,) = provisioned.client("ec2").describe_volumes()["Volumes"]
    assert (disk["VolumeType"], disk["Encrypted"], disk["Size"]) == ("gp3", True, 16)
    assert one["BlockDeviceMappings"][0]["Ebs"]["DeleteOnTermination"] is True
    credits = provisioned.client("ec2").describe_instance_credit_specifications(
        InstanceIds=[provisioned.instance]
    )["InstanceCreditSpecifications"]
    assert credits[0]["CpuCredits"] == "standard", "the plan's price is all that it costs"
    text = provisioned.client("iam").get_role_policy(
        RoleName=provisioned.role, PolicyName="bucket"
    )["PolicyDocument"]
    assert text == policy.document(SETTINGS)


def test_everything_bears_the_tag_and_tags_of_ones_own(land):
    provision_it(land, tag=["team=research"])
    wanted = {"remote-mlflow": UNIT, "Name": UNIT, "team": "research"}
    ec2, iam = land.client("ec2"), land.client("iam")
    tagged = [
        land.described()["Tags"],
        ec2.describe_volumes()["Volumes"][0]["Tags"],
        ec2.describe_security_groups(GroupIds=[land.group])["SecurityGroups"][0]["Tags"],
        ec2.describe_key_pairs()["KeyPairs"][0]["Tags"],
        iam.get_role(RoleName=land.role)["Role"]["Tags"],
        iam.get_instance_profile(InstanceProfileName=land.role)["InstanceProfile"]["Tags"],
        land.client("s3").get_bucket_tagging(Bucket=BUCKET)["TagSet"],
    ]
    for tags in tagged:
        assert {one["Key"]: one["Value"] for one in tags} == wanted


def test_account_region_and_caller_come_first_and_every_resource_has_a_price(land, capsys):
    provision_it(land)
    first, second, *lines = out(capsys).splitlines()
    assert first == "account 123456789012, region eu-central-1, as user/moto"
    assert second.startswith("prices: AWS's price list of today; addresses as of 2026-11-28")
    planned = [line for line in lines if line.startswith("  + ")]
    assert [re.sub(r".*: ", "", line) for line in planned] == [
        "by the bytes in it", "no charge", "no charge", "no charge",
        "14.02 $ a month", "1.52 $ a month", "3.65 $ a month",
    ]  # fmt: skip
    assert "  sum: 19.19 $ a month; the bucket by the bytes in it" in lines


def test_a_price_that_nobody_knows_is_said_to_be_unknown(land, capsys, monkeypatch):
    monkeypatch.setattr(price_list, "listed", lambda *_: {})
    provision_it(land)
    said = out(capsys)
    assert "protected from termination: price unknown" in said
    assert "sum: 3.65 $ a month, and instance and disk, whose price is unknown" in said


def test_again_there_is_nothing_to_change(provisioned, capsys):
    provision_it(provisioned)
    said = out(capsys)
    assert "nothing to change in the account" in said
    assert not re.search(r"^  [+~] ", said, re.M)
    assert mutations(provisioned) == []


def test_nothing_is_made_before_a_yes(land):
    with pytest.raises(Exit, match="--yes"):
        aws_provision.provision(context(SETTINGS))
    assert [call for call in mutations(land) if "Run" not in call] == [
        "CreateSecurityGroup", "ImportKeyPair",
    ], "dry runs"  # fmt: skip
    assert described_all(land) == []
    assert land.client("ec2").describe_key_pairs()["KeyPairs"] == []
    assert not (paths.config() / "keys").exists()


def test_the_audit_finds_nothing(provisioned, capsys):
    assert keys(capsys, provisioned) == []


# -- faults ------------------------------------------------------------------------------------


# Twenty of those that the audit's own tests make, one at least of each finding.
TWENTY = [
    name
    for name in FAULTS
    if name not in (
        "SSH from everywhere by IPv6", "another port", "a range", "all", "an administrator",
        "all buckets", "erasing versions", "two hops", "something else",
    )
]  # fmt: skip


@pytest.mark.parametrize("name", TWENTY)
def test_each_fault_is_named_and_mended_where_that_is_promised(
    provisioned, capsys, monkeypatch, name
):
    break_it, wanted = FAULTS[name]
    break_it(provisioned)
    address = provisioned.described().get("PublicIpAddress", "")
    before = known_to_host(capsys, monkeypatch, address)
    assert sorted(row["key"] for row in before) == sorted(wanted)
    if any(row["safe"] for row in before):
        with_fix(provisioned)
        capsys.readouterr()
        after = known_to_host(capsys, monkeypatch, address)
        assert after == [row for row in before if not row["safe"]]


MENDED = ("IMDSv1", "two hops", "no protection", "no role", "no versions", "no encryption",
          "public access", "no TLS", "no end of uploads", "no end of versions")  # fmt: skip


def test_there_are_twenty():
    assert len(TWENTY) == 20


def test_typed_again_it_mends_what_it_made(provisioned, capsys):
    for name in MENDED:
        FAULTS[name][0](provisioned)
    assert len(keys(capsys, provisioned)) == 7, "of some the worse hides the other"
    provision_it(provisioned)
    said = out(capsys)
    assert "  ~ bucket team-models" in said
    assert "(versioned, encrypted, closed, tls only, rules)" in said
    assert "(profile, hops, protected)" in said
    assert keys(capsys, provisioned) == []


# -- the host ----------------------------------------------------------------------------------


def test_the_host_is_known_by_the_key_of_its_console(provisioned):
    known = entry.known_hosts().read_text()
    assert known == f"{provisioned.instance} ssh-ed25519 {HOST_KEY}\n"
    target = aws_provision_target()
    assert target.hostname == provisioned.described()["PublicIpAddress"]
    assert target.user == "ubuntu"
    assert target.key_alias == provisioned.instance
    assert target.checking in ("yes", "true")
    assert target.identities == (str(key_pair.file_of(NAMES)),)
    assert key_pair.file_of(NAMES).stat().st_mode & 0o777 == 0o600


def aws_provision_target() -> Any:
    from tasks.engine.ssh import Client

    return Client().target(UNIT)


def test_without_a_key_on_the_console_it_ends_with_what_goes_on(land, monkeypatch):
    console = general.SAMPLE_CONSOLE_OUTPUT
    monkeypatch.setattr(general, "SAMPLE_CONSOLE_OUTPUT", "Linux version 6.8\n")
    monkeypatch.setattr(host_key, "PATIENCE", 0)
    again = r"Run the same command again to go on: \./fab aws\.provision --tag team=a"
    with pytest.raises(Exit, match=again):
        provision_it(land, tag=["team=a"])
    assert not entry.known_hosts().exists()
    monkeypatch.setattr(general, "SAMPLE_CONSOLE_OUTPUT", console)
    provision_it(land)
    assert len(described_all(land)) == 1
    assert entry.is_trusted(land.instance)


WRAPPED = """ci-info: x
-----BEGIN SSH HOST KEY KEYS-----
ssh-ed25519 {start}
{end} root@host
-----END SSH HOST KEY KEYS-----
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (WRAPPED.format(start=HOST_KEY[:40], end=HOST_KEY[40:]), True),
        (WRAPPED.format(start=HOST_KEY, end=""), True),
        (WRAPPED.format(start=HOST_KEY, end="").replace("END SSH", "and"), False),
        (WRAPPED.format(start=HOST_KEY[:40], end=""), False),
        (f"ssh-ed25519 {HOST_KEY} root@host", False),
        ("", False),
    ],
)
def test_a_host_key_is_whole_or_none(text, found):
    for spelt in (text, text.replace("\n", "\r\n"), re.sub("(?m)^", "ci-info: ", text)):
        assert host_key.key_in(spelt) == (f"ssh-ed25519 {HOST_KEY}" if found else "")


def test_a_key_of_another_shape_is_none():
    other = base64.b64encode(b"\x00\x00\x00\x0bssh-ed25518\x00\x00\x00\x20" + bytes(32)).decode()
    assert host_key.key_in(WRAPPED.format(start=other, end="")) == ""


def test_fabric_yaml_names_host_and_bucket(land):
    provision_it(land, EMPTY)
    file = yaml.safe_load((paths.PROJECT / "fabric.yaml").read_text())
    settings, hosts = settle(file, {})
    assert hosts == [UNIT]
    assert settings.bucket == OURS == "mlflow-server-123456789012-eu-central-1-an"


def test_an_environment_s_lines_are_its_own(land, capsys):
    file = paths.PROJECT / "fabric.yaml"
    file.write_text(
        "hosts: [another]\nmlflow:\n  bucket: shared\n"
        "  environments:\n    staging:\n      port: 5001\n"
        "    other:\n      port: 5002\n"
    )
    staging = Settings(region=REGION, environment="staging", port=5001)
    provision_it(land, staging)
    settings, hosts = settle(yaml.safe_load(file.read_text()), {}, "staging")
    assert hosts == ["mlflow-server-staging"]
    assert settings.bucket == "mlflow-server-staging-123456789012-eu-central-1-an"
    assert settings.port == 5001
    assert "Next: ./fab -H mlflow-server-staging use staging install" in out(capsys)
    aws_destroy.destroy(context(staging, ["mlflow-server-staging"]), name=staging.unit)
    assert yaml.safe_load(file.read_text())["mlflow"]["environments"]["staging"]["hosts"] == []


def test_hosts_that_are_named_already_stay(land, capsys):
    file = paths.PROJECT / "fabric.yaml"
    file.write_text("hosts: [mine]\nmlflow:\n  bucket: team-models\n")
    aws_provision.provision(context(SETTINGS, ["mine"]), yes=True)
    assert yaml.safe_load(file.read_text())["hosts"] == ["mine"]
    assert "fabric.yaml names mine: this host is -H mlflow-server" in capsys.readouterr().err


def ran(monkeypatch: Any, module: Any, error: Exit | None = None) -> list[Any]:
    """Note what is run on hosts."""
    calls: list[Any] = []

    def run(hosts: Any, tasks: Any, config: Any, settings: Any, client: Any) -> None:
        calls.append((hosts, tasks, settings))
        if error:
            raise error

    monkeypatch.setattr(module, "run_on", run)
    return calls


def with_tasks(settings: Settings = SETTINGS) -> Any:
    c = context(settings)
    names = ("install", "configure", "deploy", "verify", "backup")
    c._set(tasks={name: name for name in names})
    return c


def test_it_ends_with_the_chain_or_runs_it(land, capsys, monkeypatch):
    calls = ran(monkeypatch, aws_provision)
    aws_provision.provision(with_tasks(EMPTY), yes=True)
    assert "Next: ./fab -H mlflow-server install configure deploy verify" in out(capsys)
    assert calls == []
    aws_provision.provision(with_tasks(EMPTY), yes=True, deploy=True)
    ((hosts, tasks, settings),) = calls
    assert (hosts, tasks) == ([UNIT], ["install", "configure", "deploy", "verify"])
    assert (settings.bucket, settings.region) == (OURS, REGION)


# -- with a public name ------------------------------------------------------------------------

PUBLIC = SETTINGS.model_copy(update={"public_name": "mlflow.example.org"})


def test_a_public_name_gets_a_lasting_address_and_the_web(land, capsys):
    provision_it(land, PUBLIC)
    (address,) = land.client("ec2").describe_addresses()["Addresses"]
    assert address["InstanceId"] == land.instance
    assert land.networks(443) == land.networks(80) == ["0.0.0.0/0", "::/0"]
    assert land.networks(5000) == []
    assert aws_provision_target().hostname == address["PublicIp"]
    capsys.readouterr()
    assert keys(capsys, land, PUBLIC) == []
    land.calls.clear()
    provision_it(land, PUBLIC)
    assert mutations(land) == []
    destroy(PUBLIC)
    assert land.client("ec2").describe_addresses()["Addresses"] == []


def test_through_session_manager_no_port_is_open(land, capsys, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    session = SETTINGS.model_copy(update={"access": "ssm"})
    provision_it(land, session)
    assert "security group mlflow-server: no port for SSH: no charge" in out(capsys)
    assert land.networks() == []
    target = aws_provision_target()
    assert target.hostname == land.instance
    assert "aws ssm start-session" in str(target.proxy_command)
    aws_power.stop(context(session), backup=False)
    aws_power.start(context(session))
    assert aws_provision_target().hostname == land.instance
    with pytest.raises(Exit, match="Leave --allow out"):
        provision_it(land, session, allow=["203.0.113.9"])
    with pytest.raises(Exit, match="no port is open"):
        aws_power.allow_me(context(session))


# -- stop, start, allow-me, cost ------------------------------------------------------------------


def test_it_stops_after_a_backup_and_starts_under_another_address(provisioned, capsys, monkeypatch):
    calls = ran(monkeypatch, aws_power)
    before = aws_provision_target().hostname
    aws_power.stop(with_tasks())
    assert [(hosts, tasks) for hosts, tasks, _ in calls] == [([UNIT], ["backup"])]
    assert provisioned.described()["State"]["Name"] == "stopped"
    assert "still bills: 1.52 $ a month (disk vol-" in out(capsys)
    aws_power.stop(with_tasks())
    assert len(calls) == 1
    assert "is stopped already" in out(capsys)
    aws_power.start(context())
    after = aws_provision_target()
    assert after.hostname == provisioned.described()["PublicIpAddress"] != before
    assert after.key_alias == provisioned.instance
    assert "Next: ./fab -H mlflow-server status" in out(capsys)
    aws_power.start(context())
    assert "runs already" in out(capsys)


def test_without_a_backup_it_is_not_stopped_unless_that_is_wanted(provisioned, monkeypatch):
    ran(monkeypatch, aws_power, Exit("mlflow-server: no server there."))
    command = r"no server there\. It was not stopped; without a backup: \./fab aws\.stop --no-b"
    with pytest.raises(Exit, match=command):
        aws_power.stop(with_tasks())
    assert provisioned.described()["State"]["Name"] == "running"
    aws_power.stop(with_tasks(), backup=False)
    assert provisioned.described()["State"]["Name"] == "stopped"


def test_ssh_follows_the_operator_in_one_call(provisioned, monkeypatch, capsys):
    aws_power.allow_me(context(), allow="198.51.100.7/24")
    assert provisioned.networks() == ["198.51.100.0/24"]
    assert mutations(provisioned) == ["ModifySecurityGroupRules"]
    assert "SSH is open to 198.51.100.0/24, and no longer to 203.0.113.77/32" in out(capsys)
    aws_power.allow_me(context())
    assert provisioned.networks() == [OWN]
    aws_power.allow_me(context())
    assert len(mutations(provisioned)) == 2


def test_rules_of_others_stay(provisioned):
    provisioned.let("192.0.2.1/32", 22)
    aws_power.allow_me(context(), allow="198.51.100.7")
    assert provisioned.networks() == ["192.0.2.1/32", "198.51.100.7/32"]


def test_a_host_that_does_not_answer_names_what_opens_it(provisioned):
    target = aws_provision_target()
    said = connection.explained(TimeoutError(), target)
    assert "./fab aws.allow-me" in said
    assert "./fab aws.start" in said
    assert "use staging aws.allow-me" in connection.shut_out("mlflow-server-staging", "x")


def test_what_runs_is_listed_with_its_price(provisioned, capsys):
    aws_cost.cost(context())
    said = out(capsys)
    assert f"mlflow-server: instance {provisioned.instance} (t4g.small, running): 14.02 $" in said
    assert "mlflow-server: its public address" in said
    assert "bucket team-models: by the bytes in it" in said
    assert "sum: 19.19 $ a month; the bucket team-models by the bytes in it" in said


def test_where_nothing_is_there_nothing_costs(land, capsys):
    aws_cost.cost(context(EMPTY))
    assert "nothing in eu-central-1 bears the tag" in out(capsys)


# -- the end -----------------------------------------------------------------------------------


def left(world: World) -> list[Any]:
    """Return all that is left in the account, but what was there before."""
    ec2, iam = world.client("ec2"), world.client("iam")
    groups = ec2.describe_security_groups()["SecurityGroups"]
    return [
        *described_all(world),
        *ec2.describe_volumes()["Volumes"],
        *ec2.describe_addresses()["Addresses"],
        *(one for one in groups if one["GroupName"] != "default"),
        *ec2.describe_key_pairs()["KeyPairs"],
        *iam.list_roles()["Roles"],
        *iam.list_instance_profiles()["InstanceProfiles"],
        *ec2.describe_network_interfaces()["NetworkInterfaces"],
    ]


def buckets(world: World) -> list[str]:
    return [one["Name"] for one in world.client("s3").list_buckets()["Buckets"]]


def fill(world: World) -> None:
    """Put objects with old versions and delete markers into the bucket."""
    s3 = world.client("s3")
    s3.delete_bucket_policy(Bucket=BUCKET)  # moto denies all to everybody by it
    for key in ("mlflow-artifacts/a", "mlflow-backups/b"):
        for _ in range(2):
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
        s3.delete_object(Bucket=BUCKET, Key=key)
    s3.create_multipart_upload(Bucket=BUCKET, Key="mlflow-backups/unfinished")


def test_destroy_leaves_the_bucket_and_nothing_else(provisioned, capsys):
    fill(provisioned)
    destroy()
    captured = capsys.readouterr()
    assert left(provisioned) == []
    assert buckets(provisioned) == [BUCKET]
    versions = provisioned.client("s3").list_object_versions(Bucket=BUCKET)
    assert len(versions["Versions"]) == 4
    assert "  - instance i-" in captured.out
    assert "  saved: 19.19 $ a month" in captured.out
    assert "  = bucket team-models with artifacts and backups: by the bytes in it" in captured.out
    assert "still bills: bucket team-models, by the bytes in it" in captured.out
    assert "nothing else of this server bills any more" in captured.out
    assert "./fab -H mlflow-server backup" in captured.err
    assert entry.blocks() == {}
    assert not key_pair.file_of(NAMES).exists()


def test_destroy_with_the_bucket_leaves_nothing(provisioned, capsys, monkeypatch):
    fill(provisioned)
    monkeypatch.setattr(bucket, "MOST", 2)
    destroy(with_bucket=True)
    said = out(capsys)
    assert left(provisioned) == []
    assert buckets(provisioned) == []
    assert "6 versions of objects were in it" in said
    assert said.endswith("✓ nothing of this server bills any more\n")
    destroy(with_bucket=True)
    assert out(capsys).splitlines()[1:] == ["✓ nothing of this server bills any more"]


def test_after_a_destroy_it_is_made_anew_with_the_same_bucket(provisioned):
    first = provisioned.instance
    destroy()
    provision_it(provisioned)
    assert provisioned.instance != first
    assert buckets(provisioned) == [BUCKET]


@pytest.mark.parametrize(
    ("name", "words"), [("other", "this server is mlflow-server"), ("", "--name mlflow-server")]
)
def test_nothing_goes_unless_the_name_was_typed(provisioned, name, words):
    with pytest.raises(Exit, match=words):
        aws_destroy.destroy(context(), name=name)
    assert mutations(provisioned) == []


@pytest.mark.parametrize("answer", ["mlflow-server", "yes", ""])
def test_the_name_is_asked_for(provisioned, monkeypatch, answer):
    for module in ("tasks.aws_destroy", "tasks.engine.console"):
        monkeypatch.setattr(f"{module}.interactive", lambda: True)
    monkeypatch.setattr("tasks.engine.console.ask", lambda *_: answer)
    if answer == UNIT:
        aws_destroy.destroy(context())
        assert left(provisioned) == []
        return
    with pytest.raises(Exit, match="Nothing was removed"):
        aws_destroy.destroy(context())
    assert mutations(provisioned) == []


def test_what_still_bills_is_said(provisioned, capsys):
    FAULTS["a plain disk"][0](provisioned)
    ec2 = provisioned.client("ec2")
    (plain,) = [one for one in ec2.describe_volumes()["Volumes"] if not one["Encrypted"]]
    tag = {"Key": "remote-mlflow", "Value": UNIT}
    ec2.create_tags(Resources=[plain["VolumeId"]], Tags=[tag])
    destroy()
    assert ec2.describe_volumes()["Volumes"] == [], "disks that bear the tag go as well"


def test_a_disk_that_stays_is_an_error(provisioned, monkeypatch):
    ec2 = provisioned.client("ec2")
    zone = provisioned.described()["Placement"]["AvailabilityZone"]
    tags = NAMES.tagging("volume")
    ec2.create_volume(AvailabilityZone=zone, Size=8, VolumeType="gp3", TagSpecifications=tags)
    monkeypatch.setattr("tasks.laptop.account.remains.remove_volume", lambda *_: None)
    monkeypatch.setattr(aws_destroy, "awaited", lambda *_, **__: None)
    with pytest.raises(Exit, match=r"This still bills: disk vol-\S+, 8 GB \(0\.76 \$ a month\)"):
        destroy()


def test_what_others_made_stays(land, capsys):
    """A role, a bucket and a key pair of our names, without our tag."""
    land.client("iam").create_role(RoleName=NAMES.role, AssumeRolePolicyDocument="{}")
    land.client("ec2").create_key_pair(KeyName=UNIT)
    s3 = land.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    with pytest.raises(Exit, match=r"was not made by aws\.provision"):
        destroy(with_bucket=True)
    destroy()
    assert len(left(land)) == 2
    assert buckets(land) == [BUCKET]


# -- foreign resources ---------------------------------------------------------------------------


def foreign_role(world: World) -> None:
    world.client("iam").create_role(RoleName=NAMES.role, AssumeRolePolicyDocument="{}")


def foreign_profile(world: World) -> None:
    world.client("iam").create_instance_profile(InstanceProfileName=NAMES.role)


def foreign_group(world: World) -> None:
    vpc = world.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    world.client("ec2").create_security_group(GroupName=UNIT, Description="d", VpcId=vpc)


def foreign_bucket(world: World) -> None:
    s3 = world.client("s3")
    s3.create_bucket(Bucket=OURS, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=OURS, Key="theirs", Body=b"x")


def several(world: World) -> None:
    image = world.client("ec2").describe_images(Owners=["self"])["Images"][0]["ImageId"]
    world.client("ec2").run_instances(
        ImageId=image, MinCount=2, MaxCount=2, TagSpecifications=NAMES.tagging("instance")
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (foreign_role, "a role mlflow-server-eu-central-1 in this account that is none of ours"),
        (foreign_profile, "an? instance profile mlflow-server-eu-central-1 .* none of ours"),
        (foreign_group, "a security group mlflow-server in vpc-[0-9a-f]+ that is none of ours"),
        (lambda world: world.client("ec2").create_key_pair(KeyName=UNIT), "a key pair mlflow-s"),
        (foreign_bucket, f"a bucket {OURS} in this account that is none of ours"),
        (several, "2 instances bear the tag remote-mlflow=mlflow-server: i-"),
    ],
)
def test_what_bears_our_name_without_our_tag_is_refused(land, make, words):
    make(land)
    land.calls.clear()
    with pytest.raises(Exit, match=words):
        provision_it(land, EMPTY)
    assert mutations(land) == []


def test_a_bucket_that_the_settings_name_is_used_as_it_is(land, capsys):
    s3 = land.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    provision_it(land)
    assert f"  = bucket {BUCKET}, yours: used as it is" in out(capsys)
    assert "Status" not in s3.get_bucket_versioning(Bucket=BUCKET)
    with pytest.raises(ClientError, match="NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=BUCKET)


def test_an_instance_that_was_taken_over_goes_on_with_what_others_made(world, monkeypatch, capsys):
    """As aws.adopt leaves it: its own key, group and address; the role is another's."""
    monkeypatch.setattr(group, "own_network", lambda: OWN)
    monkeypatch.setattr(price_list, "listed", lambda *_: {})
    monkeypatch.setattr(aws_provision, "reachable", lambda order: world.instance)
    monkeypatch.setattr(aws_provision, "written", lambda *_: SETTINGS)
    world.client("ec2").create_tags(Resources=[world.group], Tags=TAGS)
    world.let(OWN, 22)
    world.calls.clear()
    aws_provision.provision(context(SETTINGS), yes=True)
    assert mutations(world) == []
    assert "nothing to change in the account" in out(capsys)


# -- preflight: nothing is made where it is bound to fail ----------------------------------------


def without_vpc(world: World) -> None:
    ec2 = world.client("ec2")
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    (gateway,) = ec2.describe_internet_gateways()["InternetGateways"]
    id = gateway["InternetGatewayId"]
    ec2.detach_internet_gateway(InternetGatewayId=id, VpcId=vpc["VpcId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])


def without_route(world: World) -> None:
    ec2 = world.client("ec2")
    for table in ec2.describe_route_tables()["RouteTables"]:
        for route in table["Routes"]:
            if route.get("GatewayId", "").startswith("igw-"):
                ec2.delete_route(
                    RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0"
                )


@pytest.mark.parametrize(
    ("spoil", "more", "words"),
    [
        (without_vpc, {}, r"no default VPC .* Set `subnet:` in fabric\.yaml"),
        (without_route, {}, r"has no public subnet: none has a route to an internet gateway"),
        (None, {"subnet": "subnet-0123456789abcdef0"}, "has no subnet subnet-0123456789abcdef0"),
        (None, {"vpc": "vpc-0123456789abcdef0"}, "has no VPC vpc-0123456789abcdef0"),
    ],
)
def test_without_a_public_subnet_it_says_what_to_set(land, spoil, more, words):
    if spoil:
        spoil(land)
    land.calls.clear()
    with pytest.raises(Exit, match=words):
        provision_it(land, SETTINGS.model_copy(update=more))
    assert mutations(land) == []


def test_a_subnet_of_the_settings_is_where_it_is_made(land):
    subnets = land.client("ec2").describe_subnets()["Subnets"]
    last = sorted(subnets, key=lambda one: one["AvailabilityZone"])[-1]["SubnetId"]
    provision_it(land, SETTINGS.model_copy(update={"subnet": last}))
    assert land.described()["SubnetId"] == last


def test_a_subnet_with_a_route_table_of_its_own_is_judged_by_that():
    main = {"Associations": [{"Main": True}], "Routes": [{"GatewayId": "igw-1",
            "DestinationCidrBlock": "0.0.0.0/0"}]}  # fmt: skip
    own: dict[str, Any] = {"Associations": [{"SubnetId": "subnet-1"}], "Routes": []}
    assert place.is_public("subnet-2", [main, own])
    assert not place.is_public("subnet-1", [main, own])


def test_a_type_that_no_zone_offers_is_said(land, monkeypatch):
    monkeypatch.setattr(place, "zones_of", lambda *_: {"eu-central-1z"})
    with pytest.raises(Exit, match=r"t4g\.small is not offered in .* Set `subnet:` to one in eu-c"):
        provision_it(land)


@pytest.mark.parametrize(
    "operation", ["RunInstances", "CreateSecurityGroup", "ImportKeyPair", "AllocateAddress"]
)
def test_a_right_that_is_missing_is_known_before_anything_is_made(land, operation):
    with (
        refusing("UnauthorizedOperation", operation),
        pytest.raises(Exit, match=f"AWS does not let you do ec2:{operation}"),
    ):
        provision_it(land, PUBLIC)
    assert left(land) == []
    assert buckets(land) == []


def test_a_type_for_more_workers_is_larger():
    found = [provision.type_for(workers) for workers in (0, 1, 4, 8, 16, 64)]
    assert found == [
        "t4g.small", "t4g.small", "t4g.small", "t4g.medium", "t4g.large", "t4g.2xlarge",
    ]  # fmt: skip


def test_accounts_on_the_free_plan_learn_which_types_they_may_have(land, capsys):
    provision_it(land, SETTINGS.model_copy(update={"workers": 8}))
    assert "t4g.medium is no type for accounts on AWS's free plan; those may have c7i-" in out(
        capsys
    )


def test_the_free_plan_s_refusal_is_one_line(land, monkeypatch):
    message = "The specified instance type is not eligible for Free Tier."
    answer: Any = {"Error": {"Code": "InvalidParameterCombination", "Message": message}}

    def refuse(*_: Any) -> None:
        raise ClientError(answer, "RunInstances")

    monkeypatch.setattr(instance, "launch", refuse)
    with pytest.raises(Exit, match=r"on AWS's free plan, which may not launch t4g\.small but c7i"):
        provision_it(land)


def test_where_a_zone_is_full_the_next_one_is_asked(land, monkeypatch):
    asked, run = [], instance._run

    def full(account: Any, names: Any, wanted: Any, subnet: str, root: str) -> str:
        asked.append(subnet)
        if len(asked) == 1:
            answer: Any = {"Error": {"Code": "InsufficientInstanceCapacity", "Message": "no"}}
            raise ClientError(answer, "RunInstances")
        return run(account, names, wanted, subnet, root)

    monkeypatch.setattr(instance, "_run", full)
    provision_it(land)
    assert land.described()["SubnetId"] == asked[1] != asked[0]


def test_a_new_profile_is_waited_for(land):
    client, tries = land.client("ec2"), []

    def late(**_: Any) -> Any:
        tries.append(1)
        if len(tries) > 2 or not (paths.config() / "keys").exists():
            return None
        text = "Value (x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Pr"
        error = {"Code": "InvalidParameterValue", "Message": text + "ofile name"}
        return SimpleNamespace(status_code=400), {"Error": error, "ResponseMetadata": {}}

    client.meta.events.register("before-call.ec2.RunInstances", late)
    try:
        provision_it(land)
    finally:
        client.meta.events.unregister("before-call.ec2.RunInstances", late)
    assert len(tries) == 3


# -- wrong input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tag": ["team"]}, r"--tag is 'team'\. Give KEY=VALUE"),
        ({"tag": ["aws:x=1"]}, "--tag is 'aws:x=1'"),
        ({"tag": ["Name=x"]}, "The tag Name is the server's own"),
        ({"allow": ["somewhere"]}, r"--allow is 'somewhere'\. Give an address or network"),
        ({"allow": ["0.0.0.0/0"]}, "--allow 0.0.0.0/0 lets everybody try"),
        ({"allow": ["::/0"]}, "--allow ::/0 lets everybody try"),
    ],
)
def test_wrong_input_is_one_line(land, options, words):
    with pytest.raises(Exit, match=words) as refused:
        provision_it(land, **options)
    assert "\n" not in str(refused.value.message)
    assert land.calls == []


def test_another_store_has_no_instance(land):
    elsewhere = SETTINGS.model_copy(update={"endpoint_url": "https://minio.example.org"})
    with pytest.raises(Exit, match=r"`endpoint_url:` is https://minio\.example\.org"):
        provision_it(land, elsewhere)


@pytest.mark.parametrize("task", [aws_power.stop, aws_power.start, aws_power.allow_me])
def test_where_no_server_is_each_task_says_what_makes_one(land, task):
    with pytest.raises(Exit, match=r"Make one: \./fab aws\.provision"):
        task(context())


@pytest.mark.parametrize("allow", ["nowhere", "0.0.0.0/0"])
def test_allow_me_lets_nobody_else_in(provisioned, allow):
    with pytest.raises(Exit, match="--allow"):
        aws_power.allow_me(context(), allow=allow)
    assert mutations(provisioned) == []


def test_networks_are_spelt_as_aws_keeps_them():
    assert network("203.0.113.9/24") == "203.0.113.0/24"
    assert network("203.0.113.9") == "203.0.113.9/32"


@pytest.mark.parametrize("key", ["vpc", "subnet"])
def test_ids_have_a_shape(key):
    with pytest.raises(Exit, match=f"`mlflow: {key}:` is 'mine': give its id"):
        settle({"mlflow": {key: "mine"}}, {})


# -- names and prices ------------------------------------------------------------------------------


def test_names_fit_where_they_go():
    longest = Names(f"mlflow-server-{'a' * 32}", "123456789012", "ap-southeast-1")
    assert len(longest.role) <= 64
    assert len(longest.bucket) <= 63
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", longest.bucket)
    assert NAMES.bucket == OURS


def product(price: str) -> str:
    dimension = {"pricePerUnit": {"USD": price}}
    return json.dumps({"terms": {"OnDemand": {"a": {"priceDimensions": {"b": dimension}}}}})


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([product("0.0192000000")], 0.0192),
        ([product("0.0192"), product("0.0000000000")], 0.0192),
        ([product("0.01"), product("0.02")], None),
        ([], None),
    ],
)
def test_a_price_is_one_or_unknown(answers, found):
    pricing = SimpleNamespace(get_products=lambda **_: {"PriceList": answers})
    account: Any = SimpleNamespace(client=lambda _: pricing, region=REGION)
    wanted = {} if found is None else {"instance": found, "disk": found}
    assert price_list_listed(account, "t4g.small") == wanted
    assert "instance" not in price_list_listed(account, "")


def test_a_price_list_that_refuses_is_no_error():
    def refuse(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetProducts")

    account: Any = SimpleNamespace(
        client=lambda _: SimpleNamespace(get_products=refuse), region=REGION
    )
    assert price_list_listed(account, "t4g.small") == {}
    assert "did not answer" in prices.source({})


price_list_listed = price_list.listed  # the fixture replaces it


# -- rights ------------------------------------------------------------------------------------


OWN_RIGHTS = {
    "LookAtPrices", "LookAtImages", "BringBack", "Make", "MakeFrom", "MakeGroupIn",
    "TagWhatIsMade", "RunAndRemove",
}  # fmt: skip


def test_every_call_stands_in_the_operator_s_policy(land, monkeypatch):
    ran(monkeypatch, aws_power)
    provision_it(land, PUBLIC, deploy=False)
    for name in MENDED:
        FAULTS[name][0](land)
    land.calls.clear()
    provision_it(land, PUBLIC)
    aws_power.stop(with_tasks(PUBLIC))
    aws_power.start(context(PUBLIC))
    aws_power.allow_me(context(PUBLIC), allow="198.51.100.7")
    aws_cost.cost(context(PUBLIC))
    fill(land)
    destroy(PUBLIC, with_bucket=True)
    provision_it(land, PUBLIC)
    asked = set(land.calls) - {"GetCallerIdentity", "DeleteBucketPolicy", "PutObject"}
    asked -= {"CreateMultipartUpload", "DeleteObject"}
    unnamed = [call for call in sorted(asked) if operator_policy.action(call) is None]
    assert unnamed == []
    # Tags are given as something is made, the fixture answers for the price list, and a disk is
    # left over in another test.
    known = {"CreateTags", "GetProducts", "DeleteVolume"}
    for right in operator_policy.RIGHTS:
        if right.name in OWN_RIGHTS:
            assert set(right.calls) - known <= asked, right.name
