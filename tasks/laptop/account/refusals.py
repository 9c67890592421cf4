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
    from collections.abc import Callable, Iterator, Mapping, Sequence

CHOOSE = (
    "Choose others with --profile NAME or AWS_PROFILE; `aws sts get-caller-identity` tries them."
)

LOG_IN = "Log in again (aws sso login, or new keys in AWS_*), then run the same command again."

OVER = "Your session is over. Log in again (aws login), then run the same command again."

ASK = (
    "Ask whoever manages the account for it: ./fab aws.policy --operator prints all that is needed."
)

QUOTA = "Ask for more in the console's Service Quotas"

AGAIN = "Wait a minute, then run the same command again."

CLOCK = "This machine's clock is wrong ({code}). Set it (timedatectl set-ntp true), then try again."

# By the code of an answer, or the name of botocore's exception.
WORDS = {
    # who is asking
    "NoCredentialsError": f"There are no AWS credentials here. {CHOOSE}",
    "PartialCredentialsError": f"Your AWS credentials lack one of their two keys. {CHOOSE}",
    "CredentialRetrievalError": f"Your AWS credentials cannot be fetched. {LOG_IN}",
    "ProfileNotFound": "~/.aws has no such profile. `aws configure list-profiles` lists all.",
    "UnauthorizedSSOTokenError": f"Your SSO session is over. {LOG_IN}",
    "SSOTokenLoadError": f"There is no SSO session yet. {LOG_IN}",
    "SSOError": f"Your SSO session cannot be used. {LOG_IN}",
    "TokenRetrievalError": f"Your SSO session is over. {LOG_IN}",
    "NoAuthTokenError": f"There is no SSO session yet. {LOG_IN}",
    "LoginError": OVER,
    **dict.fromkeys(
        ("UnknownCredentialError", "UnknownTokenProviderError"),
        f"Your profile takes credentials from where there are none: {{message}} {CHOOSE}",
    ),
    "InvalidConfigError": f"~/.aws/config cannot be used: {{message}} {CHOOSE}",
    "ConfigParseError": "~/.aws cannot be read: {message} Mend that file.",
    "ConfigNotFound": "~/.aws cannot be read: {message} Check AWS_CONFIG_FILE.",
    **dict.fromkeys(
        ("AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidAccessKeyId",
         "InvalidToken", "UnrecognizedClientException", "InvalidSignatureException",
         "MissingAuthenticationToken"),
        f"AWS refuses your credentials ({{code}}). {CHOOSE}",
    ),
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "RequestExpired"),
        f"Your AWS credentials have expired ({{code}}). {LOG_IN}",
    ),
    "RequestTimeTooSkewed": CLOCK,
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
    **dict.fromkeys(
        ("InvalidRegionError", "UnknownRegionError", "UnknownEndpointError",
         "ServiceNotInRegionError"),
        "AWS has no such region. Check `region:` in fabric.yaml and AWS_DEFAULT_REGION.",
    ),
    "EndpointConnectionError": "AWS cannot be reached: check network, proxy (HTTPS_PROXY) and "
    "region; a region that is not opted in cannot be reached either.",
    "ConnectTimeoutError": "AWS does not answer: check network and proxy (HTTPS_PROXY).",
    "ReadTimeoutError": f"AWS did not answer in time. {AGAIN}",
    "ProxyConnectionError": "The proxy does not answer: check HTTPS_PROXY.",
    "ConnectionClosedError": f"AWS closed the connection. {AGAIN}",
    "HTTPClientError": "AWS cannot be reached: check network and proxy (HTTPS_PROXY).",
    "WaiterError": f"AWS has not finished in time: {{message}} {AGAIN}",
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
        ("SecurityGroupLimitExceeded", "SecurityGroupsPerVpcLimitExceeded"),
        f"The quota of security groups is used up ({{code}}). {QUOTA}: VPC security groups per "
        "Region.",
    ),
    "TooManyBuckets": "The quota of buckets is used up (TooManyBuckets). "
    f"{QUOTA}: General purpose buckets.",
    **dict.fromkeys(
        ("LimitExceeded", "LimitExceededException", "ResourceLimitExceeded"),
        f"A quota is used up ({{code}}): {{message}} {QUOTA}.",
    ),
    "InsufficientInstanceCapacity": "AWS has no machine of this type left in this zone "
    "(InsufficientInstanceCapacity). Wait, or set `subnet:` in fabric.yaml to one of another zone.",
    **dict.fromkeys(
        ("RequestLimitExceeded", "Throttling", "ThrottlingException", "ServerInternal",
         "InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable", "SlowDown"),
        f"AWS is busy ({{code}}), also after several tries. {AGAIN}",
    ),
    # what is not there, or not yet
    "InvalidInstanceID.NotFound": "There is no such instance in this region. Check the id, and "
    "`region:`.",
    "InvalidInstanceID.Malformed": "That is no instance's id. One looks like i-0123456789abcdef0.",
    **dict.fromkeys(
        ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidAMIID.Malformed"),
        "AWS has no such image in this region ({code}): {message} Check `region:` in fabric.yaml.",
    ),
    "ParameterNotFound": "AWS names no image of that system in this region (ParameterNotFound). "
    "Check `region:` in fabric.yaml.",
    **dict.fromkeys(
        ("InvalidInstanceType", "Unsupported"),
        "This zone has no such type of instance ({code}): {message} Set `subnet:` in fabric.yaml "
        "to one of another zone.",
    ),
    "InvalidKeyPair.NotFound": f"EC2 does not know the key pair (InvalidKeyPair.NotFound). {AGAIN}",
    **dict.fromkeys(
        ("VPCIdNotSpecified", "DefaultVpcDoesNotExist", "InvalidVpcID.NotFound",
         "InvalidSubnetID.NotFound", "MissingInput"),
        "There is no such network, or no default one ({code}). Set `vpc:` or `subnet:` in "
        "fabric.yaml to one that is there.",
    ),
    **dict.fromkeys(
        ("InvalidGroup.NotFound", "InvalidGroupId.Malformed", "NoSuchEntity",
         "InvalidAllocationID.NotFound", "InvalidAssociationID.NotFound",
         "InvalidVolume.NotFound"),
        f"AWS does not know it, or not yet ({{code}}): {{message}} {AGAIN}",
    ),
    **dict.fromkeys(
        ("NoSuchBucket", "404"), "There is no such bucket. Check `bucket:` in fabric.yaml."
    ),
    # names
    **dict.fromkeys(
        ("InvalidGroup.Duplicate", "InvalidKeyPair.Duplicate", "InvalidPermission.Duplicate",
         "EntityAlreadyExists", "ResourceExistsException", "EntityTemporarilyUnmodifiable",
         "ConcurrentModification"),
        "Somebody made or changed the same at this moment ({code}): {message} Run the same "
        "command again: it looks first.",
    ),
    "BucketAlreadyExists": "Another account has a bucket of that name (BucketAlreadyExists). Set "
    "another `bucket:` in fabric.yaml.",
    "BucketAlreadyOwnedByYou": "You have that bucket already (BucketAlreadyOwnedByYou). Run the "
    "same command again: it looks first.",
    "InvalidBucketName": "S3 takes no bucket of that name (InvalidBucketName): small letters, "
    "digits and -, 3 to 63. Set another `bucket:` in fabric.yaml.",
    **dict.fromkeys(
        ("IllegalLocationConstraintException", "InvalidLocationConstraint", "PermanentRedirect",
         "AuthorizationHeaderMalformed", "301"),
        "The bucket is not in this region ({code}). Set `region:` in fabric.yaml to the bucket's.",
    ),
    "IdempotentParameterMismatch": "The same was asked for before with other settings "
    "(IdempotentParameterMismatch). Put these back as they were, then run the same command again.",
    # what must not change so
    "OperationNotPermitted": "AWS does not permit that: {message}",
    "OperationAborted": f"Somebody else is changing the same now (OperationAborted). {AGAIN}",
    "IncorrectInstanceState": "The instance is not in a state for that: {message}",
    "DependencyViolation": "Something still uses it (DependencyViolation): {message} " + AGAIN,
    "DeleteConflict": "Something still belongs to it (DeleteConflict): {message} " + AGAIN,
    "BucketNotEmpty": "The bucket still holds objects, or versions of deleted ones "
    "(BucketNotEmpty). " + AGAIN,
    "InvalidPermission.NotFound": f"The rule is gone already. {AGAIN}",
    "RulesPerSecurityGroupLimitExceeded": "The security group holds as many rules as it may "
    f"(RulesPerSecurityGroupLimitExceeded). {QUOTA}: Inbound or outbound rules per security group.",
    "MalformedPolicy": "S3 does not take the policy: {message}",
}  # fmt: skip

# By what an answer says beside a code that stands for many things.
SAYING = (
    # The type is one that a new account's free plan does not let it launch (karpenter #9004).
    (r"not eligible for Free Tier",
     "A new account's free plan launches few types ({code}): {message} `aws ec2 "
     "describe-instance-types --filters Name=free-tier-eligible,Values=true --query "
     "InstanceTypes[].InstanceType` lists them; or change the plan in the console's Billing."),
    (r"does not match the architecture", "Image and type do not fit together ({code}): {message}"),
    (r"Invalid IAM Instance Profile",
     f"EC2 does not know the new instance profile yet ({{code}}). {AGAIN}"),
    (r"[Ss]ignature (expired|not yet current)|current time", CLOCK),
    (r"explicit deny in (an? [a-z -]+)",
     "AWS does not let you do {action} ({code}): an explicit deny forbids it, in {0}. Ask whoever "
     "manages the account: no policy of yours can allow it."),
)  # fmt: skip


# What may not be looked at, and is said instead.
DENIED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "403")


@contextmanager
def in_our_words(action: Callable[[str], str | None]) -> Iterator[None]:
    """Turn what boto3 raises into Exit with one line; `action` names the right a call needs."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise Exit(said_of(error, action)) from error


def said_of(error: Exception, action: Callable[[str], str | None]) -> str:
    """Say in one line what an exception means for the operator, boto3's or ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ClientError):
        return of_answer(error.response, error.operation_name, action)
    if isinstance(error, BotoCoreError):
        return of_exception(error)
    if isinstance(error, Exit):
        return sentence(error.message or "")
    return sentence(f"{type(error).__name__}: {error}")


def of_answer(
    answer: Mapping[str, object], operation: str, action: Callable[[str], str | None]
) -> str:
    """Say in one line what an answer of AWS's means for the operator."""
    found = answer.get("Error")
    error: Mapping[str, str] = found if isinstance(found, dict) else {}
    code, message = error.get("Code", "?"), sentence(error.get("Message", ""))
    named = re.search(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)", message)
    wanted = named[1] if named else action(operation) or operation
    words = WORDS.get(code, f"AWS refuses {operation} ({code}): {{message}}")
    quoted: Sequence[str] = ()
    for pattern, more in SAYING:
        if match := re.search(pattern, message):
            words, quoted = more, match.groups()
            break
    return words.format(*quoted, code=code, message=message, action=wanted)


def sentence(text: str) -> str:
    """Return others' words as one line that ends in a full stop."""
    line = " ".join(text.split())
    return f"{line.rstrip('.')}." if line else ""


def of_exception(error: Exception) -> str:
    """Say in one line what botocore found wrong before or while it asked."""
    message = sentence(str(error))
    for kind in type(error).__mro__:
        if kind.__name__ in WORDS:
            return WORDS[kind.__name__].format(code=kind.__name__, message=message)
    return f"AWS cannot be asked: {message}"


def denied(error: Exception) -> bool:
    """Tell whether this is a right that is missing, and no credentials that are wrong."""
    return code_of(error) in DENIED


def code_of(error: Exception) -> str:
    """Return the code of an answer; nothing where it is none."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
