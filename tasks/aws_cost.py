"""What this project has in the account's region now, and what each costs a month."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.changes import operator_policy, prices, provision
from tasks.engine.account_parts import TAG
from tasks.engine.console import console, printable
from tasks.engine.task import local
from tasks.laptop.account import price_list, remains
from tasks.laptop.account.instance import GONE
from tasks.laptop.account.refusals import in_our_words
from tasks.laptop.account.session import PROFILE, names_of, sign_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tasks.changes.prices import Price
    from tasks.engine.task import Local
    from tasks.laptop.account.session import Account

NAMESPACE = "aws"

ANY = [{"Name": "tag-key", "Values": [TAG]}]


@local(help={"profile": PROFILE})
def cost(c: Local, profile: str | None = None) -> None:
    """Print what runs now in the account, and its price.

    Everything in the region that bears the tag remote-mlflow, of all environments: instances, disks
    and addresses. A bucket is paid for by its bytes, and traffic to the internet by the byte.

    Example: fab aws.cost
    """
    settings, _ = c.place()
    with in_our_words(operator_policy.action):
        account = sign_in(settings, profile)
        console.say(account.described())
        listed = price_list.listed(account, "")
        lines = [*running(account, listed)]
        names = names_of(account, settings.unit)
        for name in provision.buckets(settings, names):
            if not settings.endpoint_url and remains.exists(account, name):
                lines.append((f"bucket {name}", prices.USE))
    if not lines:
        console.say(f"nothing in {account.region} bears the tag {TAG}, and there is no bucket")
        return
    console.say(f"prices: {prices.source(listed)}")
    for what, price in lines:
        console.say(f"  {what}: {price}")
    console.say(f"  sum: {prices.summed(lines)}")


def running(account: Account, listed: prices.Listed) -> Iterator[tuple[str, Price]]:
    """Yield what there is in the region with its price, by EC2's own lists."""
    ec2 = account.client("ec2")
    lasting = ec2.describe_addresses(Filters=ANY)["Addresses"]
    with_lasting = {one.get("InstanceId") for one in lasting}
    for one in paged(ec2, "describe_instances"):
        state = one["State"]["Name"]
        if state in GONE:
            continue
        runs = state in ("running", "pending")
        of_type = price_list.listed(account, one["InstanceType"])
        what = f"{unit(one)}: instance {one['InstanceId']} ({one['InstanceType']}, {state})"
        yield what, prices.instance(of_type, runs)
        if one.get("PublicIpAddress") and one["InstanceId"] not in with_lasting:
            yield f"{unit(one)}: its public address {one['PublicIpAddress']}", prices.address()
    for one in paged(ec2, "describe_volumes"):
        what = f"{unit(one)}: disk {one['VolumeId']}, {one['Size']} GB {one['VolumeType']}"
        yield what, prices.disk(listed, one["Size"], one["VolumeType"])
    for one in lasting:
        yield f"{unit(one)}: Elastic IP address {one['PublicIp']}", prices.address()


def paged(ec2: Any, operation: str) -> Iterable[Mapping[str, Any]]:
    """Yield all that bears the tag."""
    for page in ec2.get_paginator(operation).paginate(Filters=ANY):
        for each in page.get("Reservations", [page]):
            yield from each.get("Instances", each.get("Volumes", []))


def unit(found: Mapping[str, Any]) -> str:
    """Name the server that something belongs to."""
    return printable(next(str(one["Value"]) for one in found["Tags"] if one["Key"] == TAG))
