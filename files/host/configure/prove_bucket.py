"""Write, read and delete one object in the bucket, and name the permission that is missing.

Runs on the host in the server's own environment, with the credentials that the server will use.
"""

import dataclasses
import socket

import talk
from bucket import Bucket, Denied, Trouble, troubled
from talk import Place, fail, say, warn

BODY = b"written by remote-mlflow to prove access\n"


@dataclasses.dataclass(frozen=True)
class Request:
    """Where the bucket is, and the prefix of the server in it."""

    place: Place


def prove(bucket):
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
    bucket.attempt("s3:PutObject", s3.put_object, Key=key, Body=BODY)
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
            f"s3:DeleteObject on s3://{bucket.name}/{bucket.prefix}/* is denied: deleted runs "
            f"keep their files, and the proof leaves {key} behind"
        )


place = talk.request(Request).place
try:
    troubled(lambda: prove(Bucket(place)))
except Denied as error:
    fail(
        f"{error} on s3://{place.bucket}/{place.prefix}/* is denied to the host's credentials. "
        "Allow it in their policy, then type the same again."
    )
except Trouble as trouble:
    fail(str(trouble))
