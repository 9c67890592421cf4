"""Whose keys these are, asked of a whole AWS as moto plays it: STS, IAM, EC2, instance metadata."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

Look = Callable[[dict[str, str]], Any]

NOTHING = "http://127.0.0.1:9"  # where nobody answers
SERVERS = ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject")


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    # moto loads a service at its first request, for longer than a look waits.
    client(url, "sts").get_caller_identity()
    client(url, "ec2").describe_instances()
    client(url, "s3").list_buckets()
    yield url
    server.stop()


def client(url: str, service: str) -> Any:
    words = {"aws_access_key_id": "toy", "aws_secret_access_key": "toy", "region_name": "us-east-1"}
    return boto3.client(service, endpoint_url=url, **words)  # type: ignore[call-overload]


@pytest.fixture
def look(aws: str, run_program: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Look]:
    """Look at keys from a host without a role, with permissions checked."""
    for name in ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        monkeypatch.setenv(name, aws if name == "AWS_ENDPOINT_URL" else NOTHING)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "1")

    def look(keys: dict[str, str]) -> Any:
        monkeypatch.setenv("AWS_PROFILE", "in-no-file")  # the login's, who is not meant
        code, out = run_program("look_at_keys.py", keys=keys, region="eu-west-1")
        assert code == 0, out
        assert keys["aws_secret_access_key"] not in out
        return json.loads(out.removeprefix("@report "))

    yield look
    checked(aws, "inf")


def checked(aws: str, after: str = "0") -> None:
    """Have permissions be checked after so many requests (moto's "IAM-like Access Control")."""
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{aws}/moto-api/reset-auth", after.encode(), plain)
    urllib.request.urlopen(request, timeout=30).close()


def user(aws: str, *actions: str) -> dict[str, str]:
    """Make a user who may do these actions; returns the keys as a profile."""
    iam = client(aws, "iam")
    name = f"user-{len(iam.list_users()['Users'])}"
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    checked(aws)
    return {
        "aws_access_key_id": key["AccessKeyId"],
        "aws_secret_access_key": key["SecretAccessKey"],
    }


def test_a_server_s_own_user_is_named_and_may_no_more(aws, look):
    found = look(user(aws, *SERVERS))
    assert found["why"] == ""
    assert found["arn"].startswith("arn:aws:iam::123456789012:user/user-")
    assert found["account"] == "123456789012"
    assert (found["may"], found["role"], found["why"]) == ([], None, "")


@pytest.mark.parametrize(
    ("actions", "may"),
    [
        (["s3:*"], ["s3:ListAllMyBuckets"]),
        (["iam:ListUsers"], ["iam:ListUsers"]),
        (["*"], ["s3:ListAllMyBuckets", "iam:ListUsers", "ec2:DescribeInstances"]),
    ],
)
def test_what_answers_beyond_a_server_s_work_is_named(aws, look, actions, may):
    assert look(user(aws, *actions))["may"] == may


def test_the_instance_s_role_is_named(aws, look, monkeypatch):
    keys = user(aws, *SERVERS)
    checked(aws, "inf")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws)
    assert look(keys)["role"]


def test_where_nobody_says_whose_they_are_there_is_a_reason(look, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOTHING)
    found = look({"aws_access_key_id": "AKIA", "aws_secret_access_key": "hidden-key"})
    assert (found["arn"], found["may"], found["role"]) == (None, [], None)
    assert "Could not connect" in found["why"]
