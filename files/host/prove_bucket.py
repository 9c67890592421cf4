"""Write, read and delete one object in the bucket, and name the permission that is missing.

Runs on the host in the server's own environment, with the credentials that the server will use.
Arguments: bucket, prefix, region or "", endpoint or "".
"""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

bucket, prefix, region, endpoint = sys.argv[1:5]
KEY = prefix + "/.remote-mlflow-proof"
BODY = b"written by remote-mlflow to prove access\n"


def fail(text):
    print("@fail " + text)
    sys.exit(1)


def attempt(permission, action, **options):
    try:
        return action(Bucket=bucket, **options)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code in ("NoSuchBucket",) or (permission == "s3:ListBucket" and status == 404):
            fail(
                "The bucket %s does not exist. Create it, or mend `bucket:` in fabric.yaml."
                % bucket
            )
        if code in (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "ExpiredToken",
        ):
            fail(
                "AWS refuses the credentials on the host (%s). Give right ones: set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and type configure again." % code
            )
        if code == "RequestTimeTooSkewed":
            fail("The host's clock is wrong: S3 refuses it. Type: sudo timedatectl set-ntp true")
        if status == 403 or code == "AccessDenied":
            raise PermissionError(permission) from error
        wrong_region(error.response)
        fail("%s on s3://%s failed: %s" % (permission, bucket, error))


def wrong_region(response):
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    actual = headers.get("x-amz-bucket-region")
    if actual and region and actual != region:
        fail(
            "The bucket %s is in region %s, not %s. Set `region: %s` in fabric.yaml."
            % (bucket, actual, region, actual)
        )
    return actual


def prove():
    # Without a path-style address most S3-compatible stores are not found.
    style = {"addressing_style": "path"} if endpoint else {}
    session = boto3.session.Session()
    found = session.get_credentials()
    if found and found.method == "iam-role":
        print("@say no keys are needed: the instance role is used")
    s3 = session.client(
        "s3",
        region_name=region or None,
        endpoint_url=endpoint or None,
        config=Config(
            connect_timeout=10,
            read_timeout=20,
            retries={"total_max_attempts": 2},
            s3=style,
        ),
    )
    try:
        actual = wrong_region(attempt("s3:ListBucket", s3.head_bucket))
    except PermissionError:
        actual = None  # an answer to HEAD has no body that says why; the listing's has
    if actual and not region and not endpoint and actual != "us-east-1":
        print(
            "@say the bucket is in %s; set `region: %s` in fabric.yaml to save a detour"
            % (actual, actual)
        )
    attempt("s3:ListBucket", s3.list_objects_v2, Prefix=prefix + "/", MaxKeys=1)
    attempt("s3:PutObject", s3.put_object, Key=KEY, Body=BODY)
    answer = attempt("s3:GetObject", s3.get_object, Key=KEY)
    if answer["Body"].read() != BODY:
        fail("s3://%s/%s does not hold what was written to it. Check the endpoint." % (bucket, KEY))
    try:
        attempt("s3:DeleteObject", s3.delete_object, Key=KEY)
    except PermissionError:
        print(
            "@warn s3:DeleteObject on s3://%s/%s/* is denied: deleted runs keep their files, and "
            "the proof leaves %s behind" % (bucket, prefix, KEY)
        )


try:
    prove()
except PermissionError as error:
    fail(
        "%s on s3://%s/%s/* is denied to the host's credentials. Allow it in their policy, then "
        "type the same again." % (error, bucket, prefix)
    )
except PartialCredentialsError:
    fail(
        "The host's AWS credentials lack one of their two keys. Set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY and type configure again."
    )
except NoCredentialsError:
    fail(
        "The host has no AWS credentials: no ~/.aws/credentials and no instance role. Attach a "
        "role to the instance, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and type "
        "configure again."
    )
except ProfileNotFound as error:
    fail("%s. Mend `profile:` in fabric.yaml or the host's ~/.aws." % error)
except EndpointConnectionError as error:
    fail("The host cannot reach S3 (%s). Check its outbound network and `endpoint_url:`." % error)
except (BotoCoreError, ConfigParseError) as error:
    fail(
        "S3 cannot be used from the host: %s. Check `region:`, `endpoint_url:` and ~/.aws." % error
    )
