"""The way into the account: boto3's whole chain of credentials, asked anew each time."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.engine.account_parts import Names
from tasks.engine.records import dataclass

if TYPE_CHECKING:
    import boto3

    from tasks.engine.settings import Settings

# What --profile is, of every task that asks the account.
PROFILE = "which profile of your ~/.aws to use (else AWS_PROFILE, or the variables)"

REGIONLESS = "No region is named. Set `region:` in fabric.yaml, or AWS_DEFAULT_REGION."


@dataclass(frozen=True)
class Caller:
    """Who asks: the account's number and the caller's ARN."""

    account: str
    arn: str

    @property
    def name(self) -> str:
        """Name the caller to people: a user or role, with the session's name."""
        return self.arn.rpartition(":")[2]


class Account:
    """One AWS account in one region, with the operator's rights."""

    def __init__(self, session: boto3.Session, region: str) -> None:
        self._session, self.region = session, region
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """Return boto3's client of a service: patient with a busy AWS, and made once."""
        from botocore.config import Config

        if service not in self._clients:
            config = Config(
                retries={"mode": "standard", "max_attempts": 5},
                connect_timeout=10,
                read_timeout=30,
            )
            # The price list of all regions is in one of them alone.
            region = "us-east-1" if service == "pricing" else self.region
            self._clients[service] = self._session.client(
                service, region_name=region, config=config
            )
        return self._clients[service]

    @cached_property
    def caller(self) -> Caller:
        """Ask who is asking; raises botocore's exceptions where AWS refuses the credentials."""
        found = self.client("sts").get_caller_identity()
        return Caller(found["Account"], found["Arn"])

    def described(self) -> str:
        """Say in one line where the operator is about to look or work, and as whom."""
        return f"account {self.caller.account}, region {self.region}, as {self.caller.name}"


def sign_in(settings: Settings, profile: str | None = None) -> Account:
    """Return the operator's account, of which nothing was asked yet.

    The region is the settings', else the profile's or variables'. Raises Exit where there is none,
    and botocore's ProfileNotFound.
    """
    import boto3

    session = boto3.Session(profile_name=profile) if profile else boto3.Session()
    # botocore reads AWS_DEFAULT_REGION alone; all other SDKs read this one.
    region = settings.region or session.region_name or os.environ.get("AWS_REGION")
    if not region:
        raise Exit(REGIONLESS)
    return Account(session, region)


def names_of(account: Account, unit: str, own: tuple[tuple[str, str], ...] = ()) -> Names:
    """Return what a server's parts are called in this account; `own` are tags of the operator's."""
    return Names(unit, account.caller.account, account.region, own)
