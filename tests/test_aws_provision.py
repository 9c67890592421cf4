"""What the plan says is what is made, once; typed again, it mends what it made."""

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
    UNIT,
    context,
    described_all,
    land,
    provision_it,
    provisioned,
    world,
)
from account_tasks import (
    EMPTY,
    NAMES,
    OURS,
    PUBLIC,
    aws_provision_target,
    destroy,
    fill,
    mutations,
    out,
    ran,
    with_tasks,
)
from botocore.exceptions import ClientError
from invoke import Exit
from moto.ec2.responses import general
from test_aws_audit import FAULTS, keys, known_to_host, with_fix

from tasks import aws_cost, aws_destroy, aws_power, aws_provision
from tasks.changes import operator_policy, policy, prices, provision
from tasks.engine import paths
from tasks.engine.account_parts import Names, differing
from tasks.engine.settings import Settings, settle
from tasks.laptop.account import entry, host_key, key_pair, price_list
from tasks.laptop.account.survey import survey

_ = (land, provisioned, world)  # the fixtures


# -- the plan is what is made ------------------------------------------------------------------


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


# -- names and prices --------------------------------------------------------------------------


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
