"""Whatever AWS or boto3 refuses is one line that says what to do."""

from __future__ import annotations

import re
from contextlib import suppress

import botocore.exceptions
import pytest
from botocore.exceptions import ClientError
from invoke import Exit

from tasks.changes import operator_policy
from tasks.laptop.account import refusals
from tasks.laptop.account.refusals import in_our_words

# Every code that is foreseen, with what its line must name.
CODES = {
    "AuthFailure": "AWS refuses your credentials (AuthFailure)",
    "InvalidClientTokenId": "--profile NAME",
    "SignatureDoesNotMatch": "AWS refuses your credentials",
    "InvalidAccessKeyId": "AWS refuses your credentials",
    "InvalidToken": "AWS refuses your credentials",
    "ExpiredToken": "have expired (ExpiredToken)",
    "ExpiredTokenException": "aws sso login",
    "RequestExpired": "have expired",
    "RequestTimeTooSkewed": "clock is wrong",
    "UnauthorizedOperation": "ec2:DescribeInstances",
    "AccessDenied": "ec2:DescribeInstances",
    "AccessDeniedException": "ec2:DescribeInstances",
    "OptInRequired": "has not signed up",
    "PendingVerification": "still verifying",
    "Blocked": "AWS Support",
    "VcpuLimitExceeded": "quota of vCPUs",
    "InstanceLimitExceeded": "quota of instances",
    "VolumeLimitExceeded": "quota of disks",
    "AddressLimitExceeded": "quota of Elastic IP addresses",
    "RequestLimitExceeded": "AWS is busy",
    "Throttling": "AWS is busy (Throttling)",
    "ServerInternal": "AWS is busy",
    "Unavailable": "AWS is busy",
    "InternalError": "AWS is busy",
    "ServiceUnavailable": "AWS is busy",
    "InvalidInstanceID.NotFound": "no such instance",
    "InvalidInstanceID.Malformed": "i-0123456789abcdef0",
    "NoSuchBucket": "Check `bucket:`",
    "OperationNotPermitted": "does not permit that: no, not so",
    "OperationAborted": "Wait a minute",
    "IncorrectInstanceState": "no, not so",
    "RulesPerSecurityGroupLimitExceeded": "rules per security group",
    "SecurityGroupLimitExceeded": "quota of security groups",
    "TooManyBuckets": "quota of buckets",
    "LimitExceeded": "A quota is used up (LimitExceeded): no, not so. Ask",
    "InsufficientInstanceCapacity": "set `subnet:`",
    "InvalidAMIID.NotFound": "no such image in this region (InvalidAMIID.NotFound): no, not so.",
    "ParameterNotFound": "names no image",
    "InvalidInstanceType": "no such type of instance",
    "Unsupported": "to one of another zone",
    "InvalidKeyPair.NotFound": "does not know the key pair",
    "InvalidParameterCombination": "AWS refuses DescribeInstances (InvalidParameterCombination)",
    "InvalidParameterValue": "AWS refuses DescribeInstances (InvalidParameterValue): no, not so.",
    "VPCIdNotSpecified": "Set `vpc:` or `subnet:`",
    "InvalidGroup.NotFound": "or not yet (InvalidGroup.NotFound): no, not so. Wait a minute",
    "NoSuchEntity": "or not yet",
    "InvalidGroup.Duplicate": "Run the same command again: it looks first.",
    "InvalidKeyPair.Duplicate": "at this moment (InvalidKeyPair.Duplicate)",
    "InvalidPermission.Duplicate": "it looks first",
    "EntityAlreadyExists": "it looks first",
    "ResourceExistsException": "it looks first",
    "BucketAlreadyExists": "Set another `bucket:`",
    "BucketAlreadyOwnedByYou": "You have that bucket already",
    "InvalidBucketName": "small letters",
    "IllegalLocationConstraintException": "Set `region:`",
    "InvalidLocationConstraint": "not in this region (InvalidLocationConstraint)",
    "BucketNotEmpty": "versions of deleted ones",
    "DependencyViolation": "Something still uses it (DependencyViolation): no, not so. Wait",
    "DeleteConflict": "Something still belongs to it",
    "IdempotentParameterMismatch": "Put these back as they were",
    "SomethingNew": "AWS refuses DescribeInstances (SomethingNew): no, not so",
}


def said(error: Exception) -> str:
    with pytest.raises(Exit) as refused, in_our_words(operator_policy.action):
        raise error
    assert refused.value.code == 1
    message = refused.value.message
    assert message
    assert "\n" not in message
    assert "{" not in message
    return str(message)


def answer(code: str, message: str = "no,\n not so", operation: str = "DescribeInstances"):
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize("code", CODES)
def test_an_answer_is_one_line(code):
    assert CODES[code] in said(answer(code))


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (botocore.exceptions.NoCredentialsError(), "There are no AWS credentials here."),
        (botocore.exceptions.ProfileNotFound(profile="x"), "aws configure list-profiles"),
        (
            botocore.exceptions.PartialCredentialsError(provider="env", cred_var="x"),
            "lack one of their two keys",
        ),
        (botocore.exceptions.UnauthorizedSSOTokenError(), "Your SSO session is over."),
        (botocore.exceptions.SSOTokenLoadError(error_msg="x"), "There is no SSO session yet."),
        (botocore.exceptions.NoRegionError(), "No region is named."),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), "HTTPS_PROXY"),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="x"), "does not answer"),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), "did not answer in time"),
        (botocore.exceptions.SSLError(endpoint_url="x", error="y"), "AWS_CA_BUNDLE"),
        (botocore.exceptions.ProxyConnectionError(proxy_url="x"), "HTTPS_PROXY"),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="x"), "closed the connection"),
        (botocore.exceptions.InvalidConfigError(error_msg="a\nb"), "cannot be used: a b. Choose"),
        (botocore.exceptions.ConfigParseError(path="x"), "Unable to parse config file: x. Mend"),
        (
            botocore.exceptions.CredentialRetrievalError(provider="process", error_msg="x"),
            "cannot be fetched. Log in again",
        ),
        (
            botocore.exceptions.TokenRetrievalError(provider="sso", error_msg="x"),
            "Your SSO session is over.",
        ),
        (botocore.exceptions.LoginRefreshRequired(), "(aws login)"),
        (botocore.exceptions.InvalidRegionError(region_name="mars 1"), "AWS has no such region."),
        (
            botocore.exceptions.WaiterError(name="x", reason="y", last_response={}),
            "has not finished in time: Waiter x failed: y. Wait a minute",
        ),
        (botocore.exceptions.PaginationError(message="a\nb"), "AWS cannot be asked: Error during"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_botocore_finds_wrong_is_one_line(error, wanted):
    assert wanted in said(error)


def test_the_right_is_the_one_that_aws_names():
    message = "User: arn:aws:iam::1:user/a is not authorized to perform: iam:PassRole on resource x"
    assert "do iam:PassRole (" in said(answer("UnauthorizedOperation", message))


def test_a_call_is_called_by_the_right_that_it_needs():
    assert "s3:GetLifecycleConfiguration" in said(
        answer("AccessDenied", operation="GetBucketLifecycleConfiguration")
    )


# What AWS says beside a code that stands for many things, and what its line must name.
SAID = {
    "a free plan": (
        "InvalidParameterCombination",
        "The specified instance type is not eligible for Free Tier. For a list run ...",
        "describe-instance-types --filters Name=free-tier-eligible,Values=true",
    ),
    "an image of another kind": (
        "InvalidParameterValue",
        "The architecture 'arm64' of the specified instance type does not match the architecture "
        "'x86_64' of the specified AMI.",
        "Image and type do not fit together",
    ),
    "a profile of just now": (
        "InvalidParameterValue",
        "Value (x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile "
        "name",
        "does not know the new instance profile yet",
    ),
    "a clock that is late": (
        "SignatureDoesNotMatch",
        "Signature expired: 20261128T100000Z is now earlier than 20261128T214500Z",
        "timedatectl",
    ),
    "a clock that is early": (
        "InvalidSignatureException",
        "Signature not yet current: 20261128T235000Z is still later than 20261128T214500Z",
        "clock is wrong (InvalidSignatureException)",
    ),
    "a rule of the organisation": (
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. User: arn:aws:iam::1:user/a is not "
        "authorized to perform: ec2:RunInstances on resource: x with an explicit deny in a service "
        "control policy. Encoded authorization failure message: abc",
        "do ec2:RunInstances (UnauthorizedOperation): an explicit deny forbids it, in a "
        "service control policy. Ask",
    ),
    "a secret in code": (
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. Encoded authorization failure "
        "message: abc",
        "do ec2:DescribeInstances (UnauthorizedOperation). Ask",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_a_code_that_stands_for_many_things_is_read_by_what_is_said(case):
    code, message, wanted = SAID[case]
    assert wanted in said(answer(code, message))


def test_every_credential_that_botocore_may_miss_is_one_line_with_what_to_type():
    kinds = [
        kind
        for name, kind in vars(botocore.exceptions).items()
        if re.search("SSO|Login|NoCredentials|PartialCred|CredentialRetr|ProfileNot|Token", name)
        and issubclass(kind, botocore.exceptions.BotoCoreError)
    ]
    fields = dict.fromkeys("provider profile cred_var error_msg name".split(), "x")
    assert len(kinds) > 8
    for kind in kinds:
        assert re.search(r"aws (sso )?login|--profile|aws configure", said(kind(**fields)))


def test_every_code_that_has_words_is_tried():
    tried = {*CODES, "403", "404", "InvalidPermission.NotFound", "MalformedPolicy"}
    of_answers = {code for code in refusals.WORDS if not hasattr(botocore.exceptions, code)}
    same_words = {words: code for code, words in refusals.WORDS.items() if code in tried}
    assert {code for code in of_answers - tried if refusals.WORDS[code] not in same_words} == set()


def test_what_goes_well_is_left_alone():
    with suppress(RuntimeError), in_our_words(operator_policy.action):
        raise RuntimeError
