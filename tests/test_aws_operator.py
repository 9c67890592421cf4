"""Whoever has `aws.policy --operator` alone can do all of `aws.*`, and nothing to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from account_side import (
    ASKED,
    OWN,
    REGION,
    SETTINGS,
    TRUST,
    UNIT,
    World,
    context,
    land,
    provision_it,
    provisioned,
    world,
)
from account_tasks import PUBLIC, destroy, fill, ran, with_tasks
from judged import Need, needs
from test_aws_adopt import taking
from test_aws_audit import on_host

from tasks import aws_cost, aws_power
from tasks.changes import operator_policy
from tasks.engine.account_parts import TAG
from tasks.engine.settings import Settings

_ = (land, provisioned, taking, world)  # the fixtures

ACTIONS = {call: name for right in operator_policy.RIGHTS for call, name in right.calls.items()}


def denied(settings: Settings, service: str, operation: str, params: Any) -> list[Need]:
    """Return what of a call the operator's policy does not allow."""
    document = operator_policy.document(settings)
    return [
        need for need in needs(service, operation, params, ACTIONS) if not need.is_allowed(document)
    ]


@pytest.fixture
def judging() -> Iterator[Callable[[Settings], list[Any]]]:
    """Have each call be judged before it is done; gives what returns those that are not allowed."""
    found: list[Any] = []
    judge = [SETTINGS]

    def note(service: str, operation: str, params: Any) -> None:
        found.extend((operation, need) for need in denied(judge[0], service, operation, params))

    def begin(settings: Settings) -> list[Any]:
        judge[0] = settings
        ASKED.append(note)
        return found

    yield begin
    ASKED.clear()


@pytest.mark.parametrize("own", [False, True], ids=["a bucket of the settings", "one of its own"])
def test_every_call_of_a_server_s_life_is_allowed(land, monkeypatch, judging, own):
    ran(monkeypatch, aws_power)
    settings = PUBLIC.model_copy(update={"bucket": None}) if own else PUBLIC
    refused = judging(settings)
    provision_it(land, settings)
    provision_it(land, settings)
    aws_power.stop(with_tasks(settings))
    aws_power.start(context(settings))
    aws_power.allow_me(context(settings), allow="198.51.100.7")
    aws_cost.cost(context(settings))
    ASKED.pop()
    if not own:
        fill(land)
    judging(settings)
    destroy(settings, with_bucket=True)
    assert refused == []


def test_every_look_of_an_audit_is_allowed(capsys, world, monkeypatch, judging):
    refused = judging(SETTINGS)
    on_host(capsys, monkeypatch, world, [])
    assert refused == []


def test_an_instance_is_taken_into_care_once_somebody_has_tagged_it(taking, judging):
    """None of the operator's rights gives the tag by which the others are given."""
    ids = [taking.world.instance, taking.world.group]
    tag = [{"Key": TAG, "Value": UNIT}]
    assert denied(SETTINGS, "ec2", "CreateTags", {"Resources": ids, "Tags": tag})
    taking.world.client("ec2").create_tags(Resources=ids, Tags=tag)
    refused = judging(SETTINGS)
    taking.adopt()
    assert refused == []


# -- what is others' -------------------------------------------------------------------------------


OTHERS = "somebody-elses"


def foreign(world: World) -> dict[tuple[str, str], dict[str, Any]]:
    """Make what somebody else has in the account; return calls that would change or read it."""
    ec2, iam = world.client("ec2"), world.client("iam")
    ours = world.described()
    network = {"VpcId": ours["VpcId"], "Description": "x"}
    group = ec2.create_security_group(GroupName=OTHERS, **network)["GroupId"]
    rule = ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22,
                        "IpRanges": [{"CidrIp": OWN}]}],
    )["SecurityGroupRules"][0]["SecurityGroupRuleId"]  # fmt: skip
    ec2.create_key_pair(KeyName=OTHERS)
    (one,) = ec2.run_instances(
        ImageId=ours["ImageId"], InstanceType="t3.small", MinCount=1, MaxCount=1,
        SubnetId=ours["SubnetId"],
    )["Instances"]  # fmt: skip
    id = one["InstanceId"]
    lasting = ec2.allocate_address(Domain="vpc")["AllocationId"]
    disk = ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    iam.create_role(RoleName=OTHERS, AssumeRolePolicyDocument=TRUST)
    iam.create_instance_profile(InstanceProfileName=OTHERS)
    iam.add_role_to_instance_profile(InstanceProfileName=OTHERS, RoleName=OTHERS)
    profile, tag = {"Name": OTHERS}, [{"Key": TAG, "Value": UNIT}]
    return {
        ("ec2", "TerminateInstances"): {"InstanceIds": [id]},
        ("ec2", "StopInstances"): {"InstanceIds": [world.instance, id]},
        ("ec2", "StartInstances"): {"InstanceIds": [id]},
        ("ec2", "ModifyInstanceAttribute"): {"InstanceId": id},
        ("ec2", "ModifyInstanceMetadataOptions"): {"InstanceId": id},
        ("ec2", "DescribeInstanceAttribute"): {"InstanceId": id},
        ("ec2", "GetConsoleOutput"): {"InstanceId": id},
        ("ec2", "CreateTags"): {"Resources": [id], "Tags": tag},
        # Our instance, with somebody else's role: whoever logs in there would have its rights.
        ("ec2", "AssociateIamInstanceProfile"): {
            "InstanceId": world.instance, "IamInstanceProfile": profile,
        },
        ("ec2", "RunInstances"): {
            "ImageId": ours["ImageId"], "IamInstanceProfile": profile,
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": tag}
                for kind in ("instance", "volume", "network-interface")
            ],
        },
        # The tag that the new rule gets says nothing of whose group it goes into.
        ("ec2", "AuthorizeSecurityGroupIngress"): {
            "GroupId": group,
            "TagSpecifications": [{"ResourceType": "security-group-rule", "Tags": tag}],
        },
        ("ec2", "RevokeSecurityGroupIngress"): {"GroupId": group},
        ("ec2", "ModifySecurityGroupRules"): {
            "GroupId": world.group, "SecurityGroupRules": [{"SecurityGroupRuleId": rule}],
        },
        ("ec2", "DeleteSecurityGroup"): {"GroupId": group},
        ("ec2", "DeleteKeyPair"): {"KeyName": OTHERS},
        ("ec2", "ReleaseAddress"): {"AllocationId": lasting},
        ("ec2", "AssociateAddress"): {"AllocationId": lasting, "InstanceId": world.instance},
        ("ec2", "DeleteVolume"): {"VolumeId": disk},
        ("ec2", "AllocateAddress"): {},  # without the tag nobody would find it again
        ("iam", "PutRolePolicy"): {"RoleName": OTHERS},
        ("iam", "DeleteRole"): {"RoleName": OTHERS},
        ("iam", "CreateRole"): {"RoleName": "new", "Path": "/"},
        ("iam", "AddRoleToInstanceProfile"): {
            "InstanceProfileName": world.role, "RoleName": OTHERS,
        },
        ("iam", "DeleteInstanceProfile"): {"InstanceProfileName": OTHERS},
        ("s3", "DeleteObjects"): {
            "Bucket": OTHERS, "Delete": {"Objects": [{"Key": "k", "VersionId": "1"}]},
        },
        ("s3", "PutBucketPolicy"): {"Bucket": OTHERS},
        ("s3", "DeleteBucket"): {"Bucket": OTHERS},
        ("s3", "GetBucketPolicy"): {"Bucket": OTHERS},
        ("ssm", "GetParameter"): {"Name": "/somebody/password"},
    }  # fmt: skip


def test_what_others_have_is_out_of_reach(provisioned):
    calls = foreign(provisioned)
    allowed = [call for call, params in calls.items() if not denied(SETTINGS, *call, params)]
    assert allowed == []


def test_it_is_by_conditions_and_resources_that_it_is_out_of_reach(provisioned):
    """With each action on everything, all of these calls would be allowed."""
    calls = foreign(provisioned)
    every = {
        "Statement": [
            {"Effect": "Allow", "Action": sorted(set(ACTIONS.values())), "Resource": ["*"]}
        ]
    }
    for call, params in calls.items():
        assert all(need.is_allowed(every) for need in needs(*call, params, ACTIONS)), call


def test_the_very_same_calls_are_allowed_on_what_is_ours(provisioned):
    ec2 = provisioned.client("ec2")
    ours = {
        "TerminateInstances": {"InstanceIds": [provisioned.instance]},
        "GetConsoleOutput": {"InstanceId": provisioned.instance},
        "DeleteSecurityGroup": {"GroupId": provisioned.group},
        "DeleteKeyPair": {"KeyName": UNIT},
        "DeleteVolume": {"VolumeId": ec2.describe_volumes()["Volumes"][0]["VolumeId"]},
        "AssociateIamInstanceProfile": {
            "InstanceId": provisioned.instance, "IamInstanceProfile": {"Name": provisioned.role},
        },
    }  # fmt: skip
    assert [call for call, params in ours.items() if denied(SETTINGS, "ec2", call, params)] == []


@pytest.mark.parametrize(
    ("condition", "known", "holds"),
    [
        ({"StringLike": {"a": "*"}}, {"a": "x"}, True),
        ({"StringLike": {"a": "*"}}, {}, False),
        ({"StringLike": {"a": "x?z*"}}, {"a": "xyz.more"}, True),
        ({"StringLike": {"a": "x.z"}}, {"a": "xyz"}, False),
        ({"StringEquals": {"a": ["b", "c"]}}, {"a": "c"}, True),
        ({"StringEquals": {"a": "*"}}, {"a": "c"}, False),
        ({"StringEquals": {"a": "b"}, "StringLike": {"t": "*"}}, {"a": "b"}, False),
    ],
)
def test_conditions_are_judged_as_iam_does(condition, known, holds):
    statement = {"Effect": "Allow", "Action": ["s:*"], "Resource": ["*"], "Condition": condition}
    assert Need("s:Do", "arn:x", known).is_allowed({"Statement": [statement]}) is holds
