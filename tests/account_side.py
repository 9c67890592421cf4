"""An AWS account in this process: moto, with an instance and a bucket as they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import store_side
from botocore.config import Config
from interruptions import interrupted
from invoke import Context, Exit
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import EC2Backend, amis, instances
from moto.ec2.responses import general
from moto.iam.exceptions import NotFoundException
from moto.iam.models import IAMBackend
from moto.ssm.models import Parameter, ssm_backends

from tasks import aws_provision
from tasks.changes import policy, provision
from tasks.engine import paths
from tasks.engine.account_parts import TAG
from tasks.engine.settings import Settings
from tasks.laptop.account import group, mend, patience, place, price_list, way
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
SESSION = store_side.Session.__base__


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
    few_images(monkeypatch)
    with mock_aws():
        found = made(Account(boto3.Session(), REGION))
        CALLS.clear()
        yield found


def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have moto know Ubuntu's images alone: it makes all of them anew for every test, twice."""
    few = [one for one in amis.AMIS if one["owner_id"] == "099720109477"][:1]
    monkeypatch.setattr(amis, "AMIS", few)
    monkeypatch.setenv("MOTO_AMIS_PATH", "no more of them")  # it is read as moto is imported


CLIENTS: dict[tuple[str, str], Any] = {}

CALLS: list[str] = []

# By operation: the code that AWS answers instead.
REFUSED: dict[str, str] = {}


def client(self: Account, service: str) -> Any:
    """Make each client once: EC2's takes longer to make than most tests."""
    key = (service, self.region)
    if key not in CLIENTS:
        # Only the tries, as in session.py: its clients are made anew, which takes long.
        config = Config(retries={"mode": "standard", "max_attempts": 5})
        found = SESSION().client(service, region_name=self.region, config=config)
        found.meta.events.register("before-call", lambda model, **_: CALLS.append(model.name))
        found.meta.events.register("before-call", refused)
        found.meta.events.register("before-parameter-build", told)
        found.meta.events.register_first("before-send", interrupted)
        CLIENTS[key] = found
    return CLIENTS[key]


# Who is told of each call before it is done: of its service, operation and parameters.
ASKED: list[Any] = []


def told(params: Any, model: Any, **_: Any) -> None:
    for listen in ASKED:
        listen(model.service_model.service_name, model.name, params)


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


# -- an account where nothing of ours is yet ------------------------------------------------------

CONSOLE = """[   12.3] cloud-init[600]: Cloud-init finished\r
<14>Nov 28 17:07:52 ec2: #############################################################\r
<14>Nov 28 17:07:52 ec2: -----BEGIN SSH HOST KEY KEYS-----\r
<14>Nov 28 17:07:52 ec2: ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAI root@host\r
<14>Nov 28 17:07:52 ec2: ssh-ed25519 {key} root@host\r
<14>Nov 28 17:07:52 ec2: -----END SSH HOST KEY KEYS-----\r
"""

HOST_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIEgMQ+M9PT1HAFpYkCCZvNnz7xjM6p8Y5tz5DNDrt1i8"

OWN = "203.0.113.77/32"  # where the operator comes from


FREE: list[str] = []

ask_for_free_types = place.free_types


def known_free_types(account: Account) -> list[str]:
    """Ask once: moto looks through all of its types."""
    FREE[:] = FREE or ask_for_free_types(account)
    return FREE


class Clock:
    """A clock that is moved on by waiting alone."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def land(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An account with a default VPC that leads outside, and nothing of ours; a clone of its own."""
    monkeypatch.setattr(boto3, "Session", SESSION)
    monkeypatch.setattr(Account, "client", client)
    monkeypatch.setattr(price_list, "listed", lambda *_: {"instance": 0.0192, "disk": 0.0952})
    monkeypatch.setattr(group, "own_network", lambda: OWN)
    monkeypatch.setattr(place, "free_types", known_free_types)
    monkeypatch.setattr("time.sleep", lambda _: None)  # boto3's, between its tries
    monkeypatch.setattr(patience, "time", Clock())
    monkeypatch.setattr(general, "SAMPLE_CONSOLE_OUTPUT", CONSOLE.format(key=HOST_KEY))
    monkeypatch.setattr(instances.InstanceBackend, "run_instances", once_a_token())
    monkeypatch.setattr(EC2Backend, "associate_iam_instance_profile", once_an_instance())
    monkeypatch.setattr(instances.Instance, "terminate", terminated_again())
    monkeypatch.setattr(IAMBackend, "remove_role_from_instance_profile", removed_again())
    project = home / "clone"
    project.mkdir()
    (project / "fabric.yaml").write_text((paths.PROJECT / "fabric.yaml").read_text())
    monkeypatch.setattr(paths, "PROJECT", project)
    for name, value in STRICT.items():
        monkeypatch.setenv(name, value)
    few_images(monkeypatch)
    with mock_aws():
        world = World(Account(boto3.Session(), REGION))
        for service in ("ec2", "iam", "s3", "sts", "ssm"):
            world.client(service)  # made once for all, not in each fork
        furnish(world)
        CALLS.clear()
        yield world


def furnish(world: World) -> None:
    """Give the account what AWS's own have and moto's lacks."""
    ec2 = world.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    ec2.create_route(
        RouteTableId=table["RouteTables"][0]["RouteTableId"],
        DestinationCidrBlock="0.0.0.0/0",
        GatewayId=gateway,
    )
    for architecture in ("arm64", "amd64"):
        image = ec2.register_image(Name=f"ubuntu-{architecture}", RootDeviceName="/dev/sda1")
        name = provision.IMAGE.format(release=provision.RELEASE, arch=architecture)
        ssm_backends[DEFAULT_ACCOUNT_ID][REGION]._parameters[name].append(
            Parameter(
                DEFAULT_ACCOUNT_ID, name, image["ImageId"], "String", "", None, None,
                datetime.now(timezone.utc), 1, "text",
            )
        )  # fmt: skip


def once_a_token() -> Any:
    """Return RunInstances with what moto ignores: a token that was seen buys nothing again."""
    plain, seen = instances.InstanceBackend.run_instances, dict[str, Any]()

    def run(self: Any, *args: Any, client_token: str = "", **more: Any) -> Any:
        if client_token not in seen:
            seen[client_token] = plain(self, *args, client_token=client_token, **more)
        return seen[client_token]

    return run


def provision_it(world: World, settings: Settings = SETTINGS, **options: Any) -> None:
    """Have the task make everything, and note where it is."""
    aws_provision.provision(context(settings), yes=True, **options)
    (one,) = described_all(world)
    world.instance, world.role = one["InstanceId"], f"{settings.unit}-{REGION}"
    world.group = one["NetworkInterfaces"][0]["Groups"][0]["GroupId"]


def described_all(world: World) -> list[dict[str, Any]]:
    """Return all instances that are not gone."""
    found = world.client("ec2").describe_instances()["Reservations"]
    every = [one for each in found for one in each["Instances"]]
    return [one for one in every if one["State"]["Name"] not in ("terminated", "shutting-down")]


@pytest.fixture
def provisioned(land: World, capsys: Any) -> World:
    """An account where the task has made everything."""
    provision_it(land)
    capsys.readouterr()
    CALLS.clear()
    return land


def once_an_instance() -> Any:
    """Return the lending of a role as part of RunInstances, which moto does on its own, twice."""
    plain = EC2Backend.associate_iam_instance_profile

    def lend(self: Any, instance_id: str, *args: Any, **more: Any) -> Any:
        there = self.iam_instance_profile_associations.get(instance_id)
        return there or plain(self, instance_id, *args, **more)

    return lend


def terminated_again() -> Any:
    """Return TerminateInstances as AWS has it: "each call succeeds" (EC2 API); moto's fails."""
    plain = instances.Instance.terminate

    def terminate(self: Any) -> Any:
        return self._state if self._state.name == "terminated" else plain(self)

    return terminate


def removed_again() -> Any:
    """Return RemoveRoleFromInstanceProfile of a role that is not in it as AWS refuses that.

    moto ends with an error of Python's (IAM API: NoSuchEntity).
    """
    plain = IAMBackend.remove_role_from_instance_profile

    def remove(self: Any, profile_name: str, role_name: str) -> Any:
        if self.get_role(role_name) not in self.get_instance_profile(profile_name).roles:
            raise NotFoundException(f"The role {role_name} is not in {profile_name}.")
        return plain(self, profile_name, role_name)

    return remove


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
