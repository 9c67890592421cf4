"""Write, read and delete one object in the bucket, and name the permission that is missing.

Runs on the host in the server's own environment, with the credentials that the server will use.
Its functions serve prove_backups.py as well.
"""

import base64
import dataclasses
import hashlib
import socket

import talk
from bucket import Bucket, Denied, Trouble, troubled
from talk import Place, fail, say, warn

BODY = b"written by remote-mlflow to prove access\n"
# A bucket with an object lock wants some digest of what is sent.
MD5 = base64.b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()


@dataclasses.dataclass(frozen=True)
class Request:
    """Where the bucket is, and the prefix in it."""

    place: Place


def prove(bucket, stays):
    # Each host has a proof of its own: two at the same moment would delete each other's.
    s3, key = bucket.s3, f"{bucket.prefix}/.remote-mlflow-proof-{socket.gethostname()}"
    if bucket.credentials and bucket.credentials.method == "iam-role":
        say("no keys are needed: the instance role is used")
    try:
        actual = bucket.refuse_other_region(bucket.attempt("s3:ListBucket", s3.head_bucket))
    except Denied:
        actual = None  # an answer to HEAD has no body that says why; the listing's has
    if actual and not bucket.region and not bucket.endpoint and actual != "us-east-1":
        say(f"the bucket is in {actual}; set `region: {actual}` in fabric.yaml to save a detour")
    bucket.attempt("s3:ListBucket", s3.list_objects_v2, Prefix=bucket.prefix + "/", MaxKeys=1)
    bucket.attempt("s3:PutObject", s3.put_object, Key=key, Body=BODY, ContentMD5=MD5)
    answer = bucket.attempt("s3:GetObject", s3.get_object, Key=key)
    if answer["Body"].read() != BODY:
        raise Trouble(
            "bucket-forgets",
            f"s3://{bucket.name}/{key} does not hold what was written to it.",
            "Check the endpoint.",
        )
    try:
        bucket.attempt("s3:DeleteObject", s3.delete_object, Key=key)
    except Denied:
        warn(
            f"s3:DeleteObject on s3://{bucket.name}/{bucket.prefix}/* is denied: {stays}, and the "
            f"proof leaves {key} behind"
        )


def main(place, stays, keys=None):
    """Prove it with the server's own keys or others; `stays` is what does where nothing may go."""
    try:
        troubled(lambda: prove(Bucket(place, keys=keys), stays))
    except Denied as error:
        whose = "the backups' own" if keys else "the host's"
        fail(
            f"{error} on s3://{place.bucket}/{place.prefix}/* is denied to {whose} credentials. "
            "Allow it in their policy, then run the same command again."
        )
    except Trouble as trouble:
        fail(str(trouble))


if __name__ == "__main__":
    main(talk.request(Request).place, "deleted runs keep their files")
