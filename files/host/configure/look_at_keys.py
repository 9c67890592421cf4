"""Look whose AWS keys these are, what they may do beside a server's work, and what the host has.

Runs on the host in MLflow's environment, before the keys are written anywhere. Reports {"account",
"arn": whose they are, None where AWS does not say; "why": why not; "may": [permissions that no
server needs and that were seen to be there]; "role": the instance's role, or None}. Nothing is
changed: what is asked for is one page of a list, or a dry run.
"""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import boto3
import botocore.session
import talk
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

REGION = "us-east-1"  # answers for all regions of AWS itself
QUICK = Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 1})


@dataclasses.dataclass(frozen=True)
class Request:
    """The keys as a profile of ~/.aws/credentials has them, and the region, or ""."""

    keys: dict
    region: str


def identity(session):
    """Return account and ARN of whose keys a session has; it needs no permission."""
    try:
        answer = session.client("sts", config=QUICK).get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        return {"account": None, "arn": None, "why": str(error)}
    return {"account": answer["Account"], "arn": answer["Arn"], "why": ""}


def lists_buckets(session):
    session.client("s3", config=QUICK).list_buckets(MaxBuckets=1)


def lists_users(session):
    session.client("iam", config=QUICK).list_users(MaxItems=1)


def sees_instances(session):
    try:
        session.client("ec2", config=QUICK).describe_instances(DryRun=True)
    except ClientError as error:
        if error.response["Error"]["Code"] != "DryRunOperation":
            raise


PROBES = {
    "s3:ListAllMyBuckets": lists_buckets,
    "iam:ListUsers": lists_users,
    "ec2:DescribeInstances": sees_instances,
}


def answers(probe, session):
    try:
        probe(session)
    except (BotoCoreError, ClientError):
        return False
    return True


def role():
    """Return the ARN of the instance's role, None where it has none."""
    providers = botocore.session.Session().get_component("credential_provider")
    found = providers.get_provider("iam-role").load()
    if found is None:
        return None
    keys = found.get_frozen_credentials()
    session = boto3.Session(keys.access_key, keys.secret_key, keys.token, region_name=REGION)
    return identity(session)["arn"] or "a role of its own"


def main(keys, region):
    # The profile of whoever logs in is not meant, and may be in no file.
    os.environ.pop("AWS_PROFILE", None)
    os.environ["AWS_METADATA_SERVICE_TIMEOUT"] = "3"  # as long as AWS itself has; else one second
    session = boto3.Session(**keys, region_name=region or REGION)
    with ThreadPoolExecutor() as pool:
        whose, own = pool.submit(identity, session), pool.submit(role)
        seen = {name: pool.submit(answers, probe, session) for name, probe in PROBES.items()}
        may = [name for name, answer in seen.items() if answer.result()]
    talk.report({**whose.result(), "may": may, "role": own.result()})


asked = talk.request(Request)
main(asked.keys, asked.region)
