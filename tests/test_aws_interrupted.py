"""Whatever call is interrupted, the same command completes: nothing twice, nothing unseen.

A third of the interruptions each day, all of them with --full.
"""

from __future__ import annotations

from typing import Any

import pytest
from account_side import World, context, described_all, land, provision_it, provisioned, world
from account_tasks import NAMES, OURS, PUBLIC, buckets, fill, left, mutations, ran
from account_tasks import destroy as destroyed
from interruptions import at_every_call
from test_aws_adopt import ROLE, taking

from tasks import aws_power
from tasks.laptop.account import patience, remains

pytestmark = pytest.mark.timeout(600)  # with --full on a busy machine

_ = (land, provisioned, taking, world)  # the fixtures

# Another bucket than the settings', so that its name is one of ours.
SETTINGS = PUBLIC.model_copy(update={"bucket": None})

# Calls that make or change something, each interrupted by the tests below.
MADE = {
    "CreateRole", "CreateInstanceProfile", "PutRolePolicy", "AddRoleToInstanceProfile",
    "CreateBucket", "PutBucketTagging", "PutBucketVersioning", "PutBucketEncryption",
    "PutPublicAccessBlock", "PutBucketPolicy", "PutBucketLifecycleConfiguration",
    "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "ImportKeyPair", "RunInstances",
    "ModifyInstanceAttribute", "AllocateAddress", "AssociateAddress",
}  # fmt: skip

TAKEN = {
    "CreateTags", "CreateRole", "CreateInstanceProfile", "PutRolePolicy",
    "AddRoleToInstanceProfile", "AssociateIamInstanceProfile", "prove", "away", "configure",
    "deploy", "forget", "AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress",
    "PutBucketVersioning", "PutBucketEncryption", "PutPublicAccessBlock", "PutBucketPolicy",
    "PutBucketLifecycleConfiguration",
}  # fmt: skip

REMOVED = {
    "ModifyInstanceAttribute", "TerminateInstances", "DisassociateAddress", "ReleaseAddress",
    "DeleteSecurityGroup", "DeleteKeyPair", "RemoveRoleFromInstanceProfile",
    "DeleteInstanceProfile", "DeleteRolePolicy", "DeleteRole", "AbortMultipartUpload",
    "DeleteObjects", "DeleteBucket",
}  # fmt: skip


def one_of_each(world: World) -> None:
    """Raise AssertionError unless everything is there, once."""
    ec2, iam = world.client("ec2"), world.client("iam")
    assert len(described_all(world)) == 1
    assert len(ec2.describe_addresses()["Addresses"]) == 1
    assert len(ec2.describe_key_pairs()["KeyPairs"]) == 1
    assert len(ec2.describe_volumes()["Volumes"]) == 1
    groups = ec2.describe_security_groups(Filters=NAMES.bears())["SecurityGroups"]
    assert len(groups) == 1
    assert len(iam.list_roles()["Roles"]) == 1
    assert buckets(world) == [OURS]
    world.calls.clear()
    provision_it(world, SETTINGS)
    assert mutations(world) == [], "as it should be, so that nothing is to be changed"


def all_is_found(world: World) -> None:
    """Raise AssertionError where a destroy would not see all that there is."""
    ec2, iam = world.client("ec2"), world.client("iam")
    there = remains.look(world.account, NAMES, [OURS])
    groups = ec2.describe_security_groups()["SecurityGroups"]
    assert len(there.instances) == len(described_all(world))
    assert len(there.volumes) == len(ec2.describe_volumes()["Volumes"])
    assert len(there.addresses) == len(ec2.describe_addresses()["Addresses"])
    assert len(there.groups) == len([one for one in groups if one["GroupName"] != "default"])
    assert there.key == bool(ec2.describe_key_pairs()["KeyPairs"])
    made = [*iam.list_roles()["Roles"], *iam.list_instance_profiles()["InstanceProfiles"]]
    assert there.role == bool(made)
    assert list(there.buckets) == buckets(world)


def test_interrupted_at_any_call_the_same_command_makes_everything_once(land, third):
    """And as it stands after each of them, a destroy would find all that is there."""
    calls = at_every_call(
        lambda: provision_it(land, SETTINGS),
        lambda: one_of_each(land),
        third,
        interrupted=lambda: all_is_found(land),
    )
    assert set(calls) == MADE


def test_interrupted_at_any_call_a_destroy_completes(land, third):
    provision_it(land, PUBLIC)
    fill(land)

    def nothing_is_left() -> None:
        assert left(land) == []
        assert buckets(land) == []

    calls = at_every_call(lambda: destroyed(PUBLIC, with_bucket=True), nothing_is_left, third)
    assert set(calls) == REMOVED


def test_interrupted_at_any_call_stop_start_and_allow_me_complete(provisioned, third, monkeypatch):
    ran(monkeypatch, aws_power)
    monkeypatch.setattr(patience, "BEAT", 3.0)
    steps = [
        (lambda: aws_power.stop(context(), backup=False), state, "stopped"),
        (lambda: aws_power.start(context()), state, "running"),
        (lambda: aws_power.allow_me(context(), allow="198.51.100.7"), World.networks,
         ["198.51.100.7/32"]),
    ]  # fmt: skip
    for command, look, wanted in steps:

        def check(look: Any = look, wanted: Any = wanted) -> None:
            assert look(provisioned) == wanted

        assert at_every_call(command, check, third)


def state(world: World) -> str:
    return str(world.described()["State"]["Name"])


def test_interrupted_at_any_call_a_host_is_taken_into_care_all_the_same(taking, third):
    """By the account's calls and by those on the host, where keys lie aside meanwhile."""

    def adopted() -> None:
        assert taking.profile == ROLE
        assert taking.world.networks() == ["203.0.113.77/32", "203.0.113.9/32"]
        assert not taking.host.keys
        assert not taking.host.aside
        assert taking.deploys, "the server was started anew without keys"
        taking.world.calls.clear()
        taking.adopt()
        assert mutations(taking.world) == []

    calls = at_every_call(taking.adopt, adopted, third)
    assert set(calls) == TAKEN
