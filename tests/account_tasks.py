"""What tests of the account's tasks type, have at hand, and look for afterwards."""

from __future__ import annotations

import re
from typing import Any

from account_side import BUCKET, REGION, SETTINGS, UNIT, World, context, described_all
from invoke import Exit

from tasks import aws_destroy
from tasks.engine.account_parts import Names
from tasks.engine.settings import Settings

NAMES = Names(UNIT, "123456789012", REGION)

OURS = NAMES.bucket

EMPTY = Settings(region=REGION)

PUBLIC = SETTINGS.model_copy(update={"public_name": "mlflow.example.org"})


def destroy(settings: Settings = SETTINGS, **options: Any) -> None:
    aws_destroy.destroy(context(settings), name=settings.unit, **options)


def out(capsys: Any) -> str:
    return str(capsys.readouterr().out)


def mutations(world: World) -> list[str]:
    """Name the calls that changed something."""
    return [call for call in world.calls if not re.match("Describe|Get|List|Head", call)]


def aws_provision_target() -> Any:
    from tasks.engine.ssh import Client

    return Client().target(UNIT)


def ran(monkeypatch: Any, module: Any, error: Exit | None = None) -> list[Any]:
    """Note what is run on hosts."""
    calls: list[Any] = []

    def run(hosts: Any, tasks: Any, config: Any, settings: Any, client: Any) -> None:
        calls.append((hosts, tasks, settings))
        if error:
            raise error

    monkeypatch.setattr(module, "run_on", run)
    return calls


def with_tasks(settings: Settings = SETTINGS) -> Any:
    c = context(settings)
    names = ("install", "configure", "deploy", "verify", "backup")
    c._set(tasks={name: name for name in names})
    return c


def left(world: World) -> list[Any]:
    """Return all that is left in the account, but what was there before."""
    ec2, iam = world.client("ec2"), world.client("iam")
    groups = ec2.describe_security_groups()["SecurityGroups"]
    return [
        *described_all(world),
        *ec2.describe_volumes()["Volumes"],
        *ec2.describe_addresses()["Addresses"],
        *(one for one in groups if one["GroupName"] != "default"),
        *ec2.describe_key_pairs()["KeyPairs"],
        *iam.list_roles()["Roles"],
        *iam.list_instance_profiles()["InstanceProfiles"],
        *ec2.describe_network_interfaces()["NetworkInterfaces"],
    ]


def buckets(world: World) -> list[str]:
    return [one["Name"] for one in world.client("s3").list_buckets()["Buckets"]]


def fill(world: World) -> None:
    """Put objects with old versions and delete markers into the bucket."""
    s3 = world.client("s3")
    s3.delete_bucket_policy(Bucket=BUCKET)  # moto denies all to everybody by it
    for key in ("mlflow-artifacts/a", "mlflow-backups/b"):
        for _ in range(2):
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
        s3.delete_object(Bucket=BUCKET, Key=key)
    s3.create_multipart_upload(Bucket=BUCKET, Key="mlflow-backups/unfinished")
