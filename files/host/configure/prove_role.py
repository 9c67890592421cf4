"""Prove that the instance's role alone can use the bucket, whatever keys lie on the host.

Waits for a role that was attached a moment ago: the host hears of it after seconds, and S3 too.
Reports {"arn"} of the role's session, None where AWS does not say.
"""

import dataclasses
import os
import time

import boto3
import botocore.session
import prove_bucket
import talk
from botocore.exceptions import BotoCoreError, ClientError
from bucket import Bucket, Denied, Trouble, troubled
from talk import Place, fail, say

BEAT = 5  # seconds between two tries

# What S3 says of a role's keys that are too new.
NEW = ("credentials-wrong", "credentials-expired")


@dataclasses.dataclass(frozen=True)
class Request:
    """The artifacts' place, the backups' where they use the role as well, and how long to wait."""

    place: Place
    backups: dict
    patience: int


def lent():
    """Return the keys that the instance lends now, as boto3 takes them; None without a role."""
    providers = botocore.session.Session().get_component("credential_provider")
    found = providers.get_provider("iam-role").load()
    if found is None:
        return None
    keys = found.get_frozen_credentials()
    return {
        "aws_access_key_id": keys.access_key,
        "aws_secret_access_key": keys.secret_key,
        "aws_session_token": keys.token,
    }


def proved(places):
    """Use each place with the role; return why it cannot be used, or what the role is."""
    keys = lent()
    if keys is None:
        return "The instance lends no role.", None
    for place in places:
        try:
            troubled(lambda place=place: prove_bucket.prove(Bucket(place, keys=keys), "it stays"))
        except Denied as error:
            return f"{error} on s3://{place.bucket}/{place.prefix}/* is denied to the role.", None
        except Trouble as trouble:
            if trouble.kind not in NEW:
                fail(str(trouble))
            return str(trouble), None
    return None, arn(keys, places[0].region)


def arn(keys, region):
    try:
        client = boto3.client("sts", region_name=region or "us-east-1", **keys)
        return client.get_caller_identity()["Arn"]
    except (BotoCoreError, ClientError):
        return None


def main(asked):
    os.environ.pop("AWS_PROFILE", None)
    os.environ["AWS_METADATA_SERVICE_TIMEOUT"] = "3"
    places = [asked.place, *([Place(**asked.backups)] if asked.backups else [])]
    until = time.monotonic() + asked.patience
    why, role = proved(places)
    if why:
        say(f"waiting up to {asked.patience} s for the role: {why}")
    while why:
        if time.monotonic() > until:
            fail(f"{why} Allow what ./fab aws.policy prints, then run the same command again.")
        time.sleep(BEAT)
        why, role = proved(places)
    talk.report({"arn": role})


if __name__ == "__main__":
    main(talk.request(Request))
