"""Write, read and delete one object in the bucket, and name the permission that is missing.

Runs on the host in the server's own environment, with the credentials that the server will use.
Arguments: bucket, prefix, region or "", endpoint or "".
"""

import socket
import sys

from bucket import Bucket, Denied, Trouble, troubled

BODY = b"written by remote-mlflow to prove access\n"


def prove(bucket):
    # Each host has a proof of its own: two at the same moment would delete each other's.
    s3, key = bucket.s3, "%s/.remote-mlflow-proof-%s" % (bucket.prefix, socket.gethostname())
    if bucket.credentials and bucket.credentials.method == "iam-role":
        print("@say no keys are needed: the instance role is used")
    try:
        actual = bucket.refuse_other_region(bucket.attempt("s3:ListBucket", s3.head_bucket))
    except Denied:
        actual = None  # an answer to HEAD has no body that says why; the listing's has
    if actual and not bucket.region and not bucket.endpoint and actual != "us-east-1":
        print(
            "@say the bucket is in %s; set `region: %s` in fabric.yaml to save a detour"
            % (actual, actual)
        )
    bucket.attempt("s3:ListBucket", s3.list_objects_v2, Prefix=bucket.prefix + "/", MaxKeys=1)
    bucket.attempt("s3:PutObject", s3.put_object, Key=key, Body=BODY)
    answer = bucket.attempt("s3:GetObject", s3.get_object, Key=key)
    if answer["Body"].read() != BODY:
        raise Trouble(
            "bucket-forgets",
            "s3://%s/%s does not hold what was written to it." % (bucket.name, key),
            "Check the endpoint.",
        )
    try:
        bucket.attempt("s3:DeleteObject", s3.delete_object, Key=key)
    except Denied:
        print(
            "@warn s3:DeleteObject on s3://%s/%s/* is denied: deleted runs keep their files, and "
            "the proof leaves %s behind" % (bucket.name, bucket.prefix, key)
        )


try:
    troubled(lambda: prove(Bucket(*sys.argv[1:5])))
except Denied as error:
    print(
        "@fail %s on s3://%s/%s/* is denied to the host's credentials. Allow it in their policy, "
        "then type the same again." % (error, *sys.argv[1:3])
    )
    sys.exit(1)
except Trouble as trouble:
    print("@fail %s" % trouble)
    sys.exit(1)
