"""What is bound to fail is named before anything is made, and what others made stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from account_side import (
    BUCKET,
    OWN,
    REGION,
    SETTINGS,
    TAGS,
    UNIT,
    World,
    context,
    land,
    provision_it,
    provisioned,
    refusing,
    world,
)
from account_tasks import EMPTY, NAMES, OURS, PUBLIC, buckets, left, mutations, out
from botocore.exceptions import ClientError
from invoke import Exit

from tasks import aws_power, aws_provision
from tasks.changes import provision
from tasks.engine import paths
from tasks.engine.settings import settle
from tasks.laptop.account import group, instance, place, price_list
from tasks.laptop.account.group import network

_ = (land, provisioned, world)  # the fixtures


# -- foreign resources -------------------------------------------------------------------------


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


# -- preflight: nothing is made where it is bound to fail --------------------------------------


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


# -- wrong input -------------------------------------------------------------------------------


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
