"""A host whose instance has a role needs no keys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from lab import CHAIN, UNIT, Host

NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
DROP_IN = f"/etc/systemd/system/{UNIT}.service.d"


@contextmanager
def without_keys(host: Host, metadata: str) -> Iterator[None]:
    """Take the keys away, and have the host and its server look for a role at this address.

    On EC2 it is a fixed one.
    """
    with finding(host, f"AWS_EC2_METADATA_SERVICE_ENDPOINT={metadata}"):
        host.run(f"systemctl stop {UNIT}.socket {UNIT}.service; rm -r /home/ubuntu/.aws")
        yield


@contextmanager
def finding(host: Host, *variables: str) -> Iterator[None]:
    """Have the host's programs and its server find AWS as these variables say; keeps its keys."""
    with host.kept("/etc/environment"), host.kept("/home/ubuntu/.aws"):
        host.run(
            f"printf '%s\\n' {' '.join(variables)} >> /etc/environment; mkdir {DROP_IN}; "
            f"cat > {DROP_IN}/e2e.conf; systemctl daemon-reload",
            stdin=f"[Service]\nEnvironment={' '.join(variables)}\n",
        )
        try:
            yield
        finally:
            host.run(f"rm -r {DROP_IN}; systemctl daemon-reload; systemctl stop {UNIT}.service")


def test_with_neither_keys_nor_a_role_configure_says_so(host: Host) -> None:
    with without_keys(host, "http://127.0.0.1:9"):  # where nothing answers
        because = ("no AWS credentials", "no instance role", "AWS_ACCESS_KEY_ID")
        host.refused("configure", because=because, **NO_KEYS)


def test_keys_for_a_host_that_has_a_role_are_asked_about(host: Host) -> None:
    with without_keys(host, host.lab.endpoint):
        host.run(f"echo AWS_ENDPOINT_URL={host.lab.endpoint} >> /etc/environment")
        aws = {"FABRIC_MLFLOW_ENDPOINT_URL": ""}
        because = ("Give", "the AWS keys of arn:aws:", "needs a confirmation", "--yes")
        refused = host.refused("configure", because=because, **aws)
        assert "The instance has a role" in refused.err
        assert "AWS answered: s3:ListAllMyBuckets" in refused.err
        assert host.run("ls /home/ubuntu/.aws 2> /dev/null || true") == ""
        host.fab("configure", "--yes", **aws)
        assert "credentials" in host.run("ls /home/ubuntu/.aws")


def test_with_an_instance_role_no_key_is_on_the_host(host: Host) -> None:
    with without_keys(host, host.lab.endpoint):
        assert "instance role" in host.fab("configure", **NO_KEYS).out
        host.fab("deploy", "verify", **NO_KEYS)
        host.healthy()
        assert host.run("ls /home/ubuntu/.aws") == "config"
        assert host.fab(*CHAIN, **NO_KEYS).out.count("nothing to change") == 3


def account(host: Host, service: str) -> Any:
    """Reach the lab's AWS as an administrator does."""
    keys = {name.lower(): value for name, value in host.lab.keys.items()}
    return boto3.client(  # type: ignore[call-overload]
        service, region_name="us-east-1", endpoint_url=host.lab.endpoint, **keys
    )


def instance(host: Host) -> str:
    """Have the lab's AWS know the host as an instance without a role."""
    ec2 = account(host, "ec2")
    network = f"{host.address.rpartition('.')[0]}.0/24"
    vpc = ec2.create_vpc(CidrBlock=network)["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=network)["Subnet"]["SubnetId"]
    image = ec2.describe_images()["Images"][0]["ImageId"]
    made = ec2.run_instances(
        ImageId=image, InstanceType="t3.small", MinCount=1, MaxCount=1, SubnetId=subnet,
        PrivateIpAddress=host.address,
    )  # fmt: skip
    return str(made["Instances"][0]["InstanceId"])


@contextmanager
def with_a_role(host: Host) -> Iterator[dict[str, str]]:
    """Have the host, which has keys, find a role as well; gives what its operator's shell says."""
    place = f"AWS_EC2_METADATA_SERVICE_ENDPOINT={host.lab.endpoint}"
    store = f"AWS_ENDPOINT_URL={host.lab.endpoint}"
    with finding(host, place, store):
        yield {
            "FABRIC_MLFLOW_ENDPOINT_URL": "", "FABRIC_MLFLOW_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": host.lab.endpoint,
        }  # fmt: skip


@pytest.mark.sampled
def test_a_host_with_keys_is_taken_into_care_and_lives_on_its_role(blank: Host) -> None:
    host = blank
    with host.lab.another_bucket() as bucket:
        host.variables["FABRIC_MLFLOW_BUCKET"] = bucket
        adopted(host, bucket)


def adopted(host: Host, bucket: str) -> None:
    """Have aws.adopt take a host and its bucket into care, and see that they go on."""
    host.fab(*CHAIN, timeout=600)
    with with_a_role(host) as aws:
        host.fab("configure", "deploy", "--yes", "--leave-artifacts", **aws)
        id, s3 = instance(host), account(host, "s3")
        with host.start("aws.adopt", "--yes", **aws) as working:
            while working.running:
                # The lab's AWS knows no conditions: the statement on TLS would deny everything.
                s3.delete_bucket_policy(Bucket=bucket)
                time.sleep(0.5)
            done = working.done()
        assert done.code == 0, done
        assert "the key E2E" in done.out
        assert "credentials" not in host.run("ls /home/ubuntu/.aws")
        found = account(host, "ec2").describe_instances(InstanceIds=[id])
        profile = found["Reservations"][0]["Instances"][0]["IamInstanceProfile"]["Arn"]
        assert profile.endswith(f"/{UNIT}-us-east-1")
        host.fab("verify", **aws, **NO_KEYS)
        host.healthy()
