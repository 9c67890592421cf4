"""Whatever AWS or boto3 refuses is one line that says what to do."""

from __future__ import annotations

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
    "InternalError": "AWS is busy",
    "ServiceUnavailable": "AWS is busy",
    "InvalidInstanceID.NotFound": "no such instance",
    "InvalidInstanceID.Malformed": "i-0123456789abcdef0",
    "NoSuchBucket": "Check `bucket:`",
    "OperationNotPermitted": "does not permit that: no, not so",
    "OperationAborted": "Wait a minute",
    "IncorrectInstanceState": "no, not so",
    "RulesPerSecurityGroupLimitExceeded": "rules per security group",
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
        (botocore.exceptions.InvalidConfigError(error_msg="a\nb"), "AWS cannot be asked: a b"),
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


def test_every_code_that_has_words_is_tried():
    tried = {*CODES, "403", "404", "InvalidPermission.NotFound", "MalformedPolicy"}
    of_answers = {code for code in refusals.WORDS if not hasattr(botocore.exceptions, code)}
    same_words = {words: code for code, words in refusals.WORDS.items() if code in tried}
    assert {code for code in of_answers - tried if refusals.WORDS[code] not in same_words} == set()


def test_what_goes_well_is_left_alone():
    with suppress(RuntimeError), in_our_words(operator_policy.action):
        raise RuntimeError
