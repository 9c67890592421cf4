"""What AWS refuses, in one line each: what is wrong, and what to type next.

The codes are those of EC2's "Error codes" page, of S3's, IAM's and STS's references, and of
botocore's exceptions; each was provoked or is named there.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from invoke import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHOOSE = (
    "Choose others with --profile NAME or AWS_PROFILE; `aws sts get-caller-identity` tries them."
)

LOG_IN = "Log in again (aws sso login, or new keys in AWS_*), then type the same again."

ASK = (
    "Ask whoever manages the account for it: ./fab aws.policy --operator prints all that is needed."
)

QUOTA = "Ask for more in the console's Service Quotas"

AGAIN = "Wait a minute, then type the same again."

# By the code of an answer, or the name of botocore's exception.
WORDS = {
    # who is asking
    "NoCredentialsError": f"There are no AWS credentials here. {CHOOSE}",
    "PartialCredentialsError": f"Your AWS credentials lack one of their two keys. {CHOOSE}",
    "CredentialRetrievalError": f"Your AWS credentials cannot be fetched. {LOG_IN}",
    "ProfileNotFound": "~/.aws has no such profile. `aws configure list-profiles` lists all.",
    "UnauthorizedSSOTokenError": f"Your SSO session is over. {LOG_IN}",
    "SSOTokenLoadError": f"There is no SSO session yet. {LOG_IN}",
    "TokenRetrievalError": f"Your SSO session is over. {LOG_IN}",
    **dict.fromkeys(
        ("AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidAccessKeyId",
         "InvalidToken", "UnrecognizedClientException"),
        f"AWS refuses your credentials ({{code}}). {CHOOSE}",
    ),
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "RequestExpired"),
        f"Your AWS credentials have expired ({{code}}). {LOG_IN}",
    ),
    **dict.fromkeys(
        ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "403"),
        f"AWS does not let you do {{action}} ({{code}}). {ASK}",
    ),
    # the account
    "OptInRequired": "This account has not signed up for the service (OptInRequired). Finish that "
    "in the AWS console.",
    "PendingVerification": "AWS is still verifying this account (PendingVerification). It writes "
    "an e-mail when that is done, mostly within minutes.",
    "Blocked": "AWS has blocked this account (Blocked). Ask AWS Support.",
    "NoRegionError": "No region is named. Set `region:` in fabric.yaml, or AWS_DEFAULT_REGION.",
    "EndpointConnectionError": "AWS cannot be reached: check network, proxy (HTTPS_PROXY) and "
    "region; a region that is not opted in cannot be reached either.",
    "ConnectTimeoutError": "AWS does not answer: check network and proxy (HTTPS_PROXY).",
    "ReadTimeoutError": f"AWS did not answer in time. {AGAIN}",
    "ProxyConnectionError": "The proxy does not answer: check HTTPS_PROXY.",
    "SSLError": "TLS to AWS fails: check AWS_CA_BUNDLE, and any proxy in between.",
    # quotas and capacity
    "VcpuLimitExceeded": "The quota of vCPUs in this region is used up (VcpuLimitExceeded). "
    f"{QUOTA}: Running On-Demand Standard instances.",
    "InstanceLimitExceeded": "The quota of instances in this region is used up "
    f"(InstanceLimitExceeded). {QUOTA}: Running On-Demand Standard instances.",
    "VolumeLimitExceeded": "The quota of disks in this region is used up (VolumeLimitExceeded). "
    f"{QUOTA}: Storage for General Purpose SSD (gp3) volumes.",
    "AddressLimitExceeded": "The quota of Elastic IP addresses in this region is used up "
    f"(AddressLimitExceeded). {QUOTA}: EC2-VPC Elastic IPs.",
    **dict.fromkeys(
        ("RequestLimitExceeded", "Throttling", "ThrottlingException", "ServerInternal",
         "InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable", "SlowDown"),
        f"AWS is busy ({{code}}), also after several tries. {AGAIN}",
    ),
    # what is not there
    "InvalidInstanceID.NotFound": "There is no such instance in this region. Check the id, and "
    "`region:`.",
    "InvalidInstanceID.Malformed": "That is no instance's id. One looks like i-0123456789abcdef0.",
    "NoSuchBucket": "There is no such bucket. Check `bucket:` in fabric.yaml.",
    "404": "There is no such bucket. Check `bucket:` in fabric.yaml.",
    # what must not change so
    "OperationNotPermitted": "AWS does not permit that: {message}",
    "OperationAborted": f"Somebody else is changing the same now (OperationAborted). {AGAIN}",
    "IncorrectInstanceState": "The instance is not in a state for that: {message}",
    "InvalidPermission.NotFound": f"The rule is gone already. {AGAIN}",
    "RulesPerSecurityGroupLimitExceeded": "The security group holds as many rules as it may "
    f"(RulesPerSecurityGroupLimitExceeded). {QUOTA}: Inbound or outbound rules per security group.",
    "MalformedPolicy": "S3 does not take the policy: {message}",
}  # fmt: skip


# What may not be looked at, and is said instead.
DENIED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "403")


@contextmanager
def in_our_words(action: Callable[[str], str | None]) -> Iterator[None]:
    """Turn what boto3 raises into Exit with one line; `action` names the right a call needs."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise Exit(of_answer(error.response, error.operation_name, action)) from error
    except BotoCoreError as error:
        raise Exit(of_exception(error)) from error


def of_answer(
    answer: Mapping[str, object], operation: str, action: Callable[[str], str | None]
) -> str:
    """Say in one line what an answer of AWS's means for the operator."""
    found = answer.get("Error")
    error: Mapping[str, str] = found if isinstance(found, dict) else {}
    code, message = error.get("Code", "?"), " ".join(error.get("Message", "").split())
    words = WORDS.get(code, f"AWS refuses {operation} ({code}): {{message}}")
    named = re.search(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)", message)
    wanted = named[1] if named else action(operation) or operation
    return words.format(code=code, message=message, action=wanted)


def of_exception(error: Exception) -> str:
    """Say in one line what botocore found wrong before or while it asked."""
    for kind in type(error).__mro__:
        if kind.__name__ in WORDS:
            return WORDS[kind.__name__].format(code=kind.__name__, message=error, action="")
    return f"AWS cannot be asked: {' '.join(str(error).split())}."


def denied(error: Exception) -> bool:
    """Tell whether this is a right that is missing, and no credentials that are wrong."""
    return code_of(error) in DENIED


def code_of(error: Exception) -> str:
    """Return the code of an answer; nothing where it is none."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
