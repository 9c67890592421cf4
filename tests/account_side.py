"""An AWS account in this process: moto, with an instance and a bucket as they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import host_side
import pytest
from invoke import Context, Exit
from moto import mock_aws

from tasks.changes import policy
from tasks.engine.account_parts import TAG
from tasks.engine.settings import Settings
from tasks.laptop.account import mend, way
from tasks.laptop.account.session import Account

REGION, BUCKET, UNIT = "eu-central-1", "team-models", "mlflow-server"

SETTINGS = Settings(bucket=BUCKET, region=REGION)

# What moto would otherwise accept although AWS does not.
STRICT = {
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "true",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1",
}

TAGS = [{"Key": TAG, "Value": UNIT}]

TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "ec2.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)

# Others' tests replace it for good, for the host's programs.
SESSION = host_side.Session.__base__


@dataclass
class World:
    """An account with a server's instance and bucket, as they should be."""

    account: Account
    instance: str = ""
    group: str = ""
    role: str = UNIT

    @property
    def calls(self) -> list[str]:
        return CALLS

    def client(self, service: str) -> Any:
        return self.account.client(service)

    def described(self) -> dict[str, Any]:
        (found,) = self.client("ec2").describe_instances(InstanceIds=[self.instance])[
            "Reservations"
        ]
        return dict(found["Instances"][0])

    def let(self, network: str, first: int, last: int | None = None, protocol: str = "tcp") -> None:
        """Open ports of the group."""
        ranges = "Ipv6Ranges" if ":" in network else "IpRanges"
        word = "CidrIpv6" if ":" in network else "CidrIp"
        rule: dict[str, Any] = {"IpProtocol": protocol, ranges: [{word: network}]}
        if protocol != "-1":
            rule |= {"FromPort": first, "ToPort": last or first}
        self.client("ec2").authorize_security_group_ingress(
            GroupId=self.group, IpPermissions=[rule]
        )

    def networks(self, port: int = 22) -> list[str]:
        """Say who reaches a port."""
        found = self.client("ec2").describe_security_group_rules(
            Filters=[{"Name": "group-id", "Values": [self.group]}]
        )["SecurityGroupRules"]
        return sorted(
            rule.get("CidrIpv4") or rule.get("CidrIpv6")
            for rule in found
            if not rule["IsEgress"] and rule["FromPort"] == port
        )


def made(account: Account) -> World:
    """Make what a careful person would have made."""
    world = World(account)
    ec2, iam, s3 = (world.client(name) for name in ("ec2", "iam", "s3"))
    iam.create_role(RoleName=UNIT, AssumeRolePolicyDocument=TRUST)
    iam.put_role_policy(
        RoleName=UNIT, PolicyName="bucket", PolicyDocument=policy.text(policy.document(SETTINGS))
    )
    iam.create_instance_profile(InstanceProfileName=UNIT)
    iam.add_role_to_instance_profile(InstanceProfileName=UNIT, RoleName=UNIT)
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    world.group = ec2.create_security_group(GroupName=UNIT, Description="server", VpcId=vpc)[
        "GroupId"
    ]
    world.let("203.0.113.9/32", 22)
    image = ec2.describe_images(Owners=["099720109477"])["Images"][0]["ImageId"]
    (one,) = ec2.run_instances(
        ImageId=image, InstanceType="t3.small", MinCount=1, MaxCount=1,
        SecurityGroupIds=[world.group], IamInstanceProfile={"Name": UNIT},
        SubnetId=ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sda1",
             "Ebs": {"VolumeSize": 16, "VolumeType": "gp3", "Encrypted": True}}
        ],
        TagSpecifications=[{"ResourceType": "instance", "Tags": TAGS}],
    )["Instances"]  # fmt: skip
    world.instance = one["InstanceId"]
    mend.protect(account, world.instance)
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    mend.keep_versions(account, BUCKET)
    mend.encrypt(account, BUCKET)
    mend.block_public(account, BUCKET)
    mend.require_tls(account, BUCKET)
    mend.merge_rules(account, BUCKET, [mend.UNFINISHED, RULE])
    return world


RULE: dict[str, Any] = {
    "ID": "old versions",
    "Status": "Enabled",
    "Filter": {"Prefix": ""},
    "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
}


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An account as it should be; `calls` notes what is asked of it from then on."""
    monkeypatch.setattr(boto3, "Session", SESSION)
    monkeypatch.setattr(Account, "client", client)
    for name, value in STRICT.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        found = made(Account(boto3.Session(), REGION))
        CALLS.clear()
        yield found


CLIENTS: dict[tuple[str, str], Any] = {}

CALLS: list[str] = []

# By operation: the code that AWS answers instead.
REFUSED: dict[str, str] = {}


def client(self: Account, service: str) -> Any:
    """Make each client once: EC2's takes longer to make than most tests."""
    key = (service, self.region)
    if key not in CLIENTS:
        found = SESSION().client(service, region_name=self.region)
        found.meta.events.register("before-call", lambda model, **_: CALLS.append(model.name))
        found.meta.events.register("before-call", refused)
        CLIENTS[key] = found
    return CLIENTS[key]


def refused(model: Any, **_: Any) -> Any:
    """Answer with an error's code where that is wanted, before anything is sent."""
    if model.name not in REFUSED:
        return None
    error = {"Code": REFUSED[model.name], "Message": "no"}
    return SimpleNamespace(status_code=403), {"Error": error, "ResponseMetadata": {}}


@contextmanager
def refusing(code: str, *operations: str) -> Iterator[None]:
    """Have AWS answer these operations with an error's code."""
    REFUSED.update(dict.fromkeys(operations, code))
    try:
        yield
    finally:
        REFUSED.clear()


@dataclass
class Host:
    """Plays the server of a host as far as the account's tasks ask it."""

    name: str
    hostname: str
    keys: list[str]
    address: str = "203.0.113.77"
    reachable: bool = True
    rehearsal: bool = False
    proxy_command: str | None = None

    @property
    def connection(self) -> Any:
        target = SimpleNamespace(hostname=self.hostname, port=22, proxy_command=self.proxy_command)
        return SimpleNamespace(target=target, close=lambda: None)

    def read(self, command: str) -> str:
        if not self.reachable:
            raise Exit("no way")
        if command == way.KEY_IDS:
            return "\n".join(self.keys)
        assert command == 'echo "$SSH_CONNECTION"'
        return f"{self.address} 50000 10.0.0.4 22\n"


def context(settings: Settings = SETTINGS, hosts: list[str] | None = None) -> Any:
    """What a task of this machine gets as `c`."""
    c = Context()
    c._set(place=lambda: (settings, hosts or []), client=lambda: None)
    return c


def playing(monkeypatch: pytest.MonkeyPatch, host: Host) -> Host:
    """Have every host be this one."""
    monkeypatch.setattr(way, "server_on", lambda name, *_: host)
    return host
