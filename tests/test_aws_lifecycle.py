"""What was made is stopped and started, paid for, and taken away: nothing is left behind."""

from __future__ import annotations

import pytest
from account_side import BUCKET, OWN, REGION, UNIT, context, land, provision_it, provisioned, world
from account_tasks import (
    EMPTY,
    NAMES,
    aws_provision_target,
    buckets,
    destroy,
    fill,
    left,
    mutations,
    out,
    ran,
    with_tasks,
)
from invoke import Exit
from test_aws_audit import FAULTS

from tasks import aws_cost, aws_destroy, aws_power
from tasks.engine import connection
from tasks.laptop.account import bucket, entry, key_pair

_ = (land, provisioned, world)  # the fixtures


# -- stop, start, allow-me, cost ---------------------------------------------------------------


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
