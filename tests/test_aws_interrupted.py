"""Whatever call is interrupted, the same command completes: nothing twice, nothing unseen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from account_side import (
    Interruption,
    Killed,
    World,
    context,
    described_all,
    interrupting,
    land,
    provision_it,
    provisioned,
)
from test_aws_provision import NAMES, OURS, PUBLIC, buckets, fill, left, mutations, ran
from test_aws_provision import destroy as destroyed

from tasks import aws_power
from tasks.laptop.account import patience, remains

_ = (land, provisioned)  # the fixtures

MOST = 60  # commands until all calls were interrupted once

# Another bucket than the settings', so that its name is one of ours.
SETTINGS = PUBLIC.model_copy(update={"bucket": None})


def until_done(
    now: Interruption, command: Callable[[], Any], after: Callable[[], Any] = lambda: None
) -> list[str]:
    """Type a command again and again until nothing interrupts it; return what did.

    `after` looks at what there is each time.
    """
    found = []
    for _ in range(MOST):
        now.operation = ""
        try:
            command()
        except Killed:
            found.append(now.operation)
            after()
        else:
            return found
    raise AssertionError("it never ends")


# Calls that make or change something, each interrupted by the tests below.
MADE = {
    "CreateRole", "CreateInstanceProfile", "PutRolePolicy", "AddRoleToInstanceProfile",
    "CreateBucket", "PutBucketTagging", "PutBucketVersioning", "PutBucketEncryption",
    "PutPublicAccessBlock", "PutBucketPolicy", "PutBucketLifecycleConfiguration",
    "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "ImportKeyPair", "RunInstances",
    "ModifyInstanceAttribute", "AllocateAddress", "AssociateAddress",
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


@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_at_every_call_in_turn_the_same_command_completes(land, how):
    """And as it stands after each of these, a destroy would find all that is there."""
    # Before a call it stands as after the one before.
    after = (lambda: all_is_found(land)) if how == "after" else lambda: None
    with interrupting(how) as now:
        killed = until_done(now, lambda: provision_it(land, SETTINGS), after)
    assert set(killed) == MADE
    one_of_each(land)
    destroyed(SETTINGS)
    assert left(land) == []


def test_with_every_answer_lost_nothing_is_made_twice(land):
    with interrupting("lost") as now:
        provision_it(land, SETTINGS)
    sent = {operation for operation, *_ in now.seen}
    assert sent == MADE | {"ReleaseAddress"}, "of two addresses one goes back"
    one_of_each(land)


@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_at_every_call_a_destroy_completes(land, how):
    settings = PUBLIC
    provision_it(land, settings)
    fill(land)
    with interrupting(how) as now:
        killed = until_done(now, lambda: destroyed(settings, with_bucket=True))
    assert set(killed) == REMOVED
    assert left(land) == []
    assert buckets(land) == []


def test_with_every_answer_lost_a_destroy_completes(land):
    provision_it(land, PUBLIC)
    fill(land)
    with interrupting("lost"):
        destroyed(PUBLIC, with_bucket=True)
    assert left(land) == []
    assert buckets(land) == []


@pytest.mark.parametrize("how", ["before", "after", "lost"])
def test_killed_at_every_call_stop_start_and_allow_me_complete(provisioned, monkeypatch, how):
    ran(monkeypatch, aws_power)
    monkeypatch.setattr(patience, "BEAT", 3.0)
    with interrupting(how) as now:
        until_done(now, lambda: aws_power.stop(context(), backup=False))
        assert provisioned.described()["State"]["Name"] == "stopped"
        until_done(now, lambda: aws_power.start(context()))
        assert provisioned.described()["State"]["Name"] == "running"
        until_done(now, lambda: aws_power.allow_me(context(), allow="198.51.100.7"))
        assert provisioned.networks() == ["198.51.100.7/32"]
