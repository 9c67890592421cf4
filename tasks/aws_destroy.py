"""Remove all that a server has in the AWS account, so that nothing of it is paid for any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import operator_policy, prices, provision
from tasks.engine import paths
from tasks.engine.console import confirm, console, interactive
from tasks.engine.fabric_yaml import filled, filled_below, hosts_in, replace
from tasks.engine.tables import counted
from tasks.engine.task import local
from tasks.engine.typed import typed
from tasks.laptop.account import bucket, entry, group, instance, key_pair, price_list, remains, role
from tasks.laptop.account.patience import awaited
from tasks.laptop.account.refusals import in_our_words
from tasks.laptop.account.session import PROFILE, names_of, sign_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.changes.prices import Price
    from tasks.engine.account_parts import Names
    from tasks.engine.settings import Settings
    from tasks.engine.task import Local
    from tasks.laptop.account.remains import Remains
    from tasks.laptop.account.session import Account

NAMESPACE = "aws"

NOTHING = "✓ nothing of this server bills any more"


@local(
    help={
        "profile": PROFILE,
        "with-bucket": "the bucket as well, with every artifact and backup in it",
        "name": "the server's name, instead of typing it at the question",
    }
)
def destroy(
    c: Local, profile: str | None = None, with_bucket: bool = False, name: str = ""
) -> None:
    """Remove the instance and all around it for good.

    Shows what goes and what stays, with prices, and wants the server's name typed. The bucket stays
    with artifacts and backups, unless --with-bucket takes that too: from them `restore` brings the
    server back on a new instance. At the end it looks for whatever is still paid for.

    Example: fab aws.destroy
    """
    settings, _ = c.place()
    with in_our_words(operator_policy.action):
        account = sign_in(settings, profile)
        console.say(account.described())
        names = names_of(account, settings.unit)
        buckets = provision.buckets(settings, names)
        there = remains.look(account, names, buckets)
        going = there.buckets if with_bucket else ()
        if with_bucket and there.theirs:
            raise Exit(
                f"The bucket {there.theirs[0]} was not made by aws.provision (it lacks the tag "
                f"remote-mlflow={names.unit}), so it is not removed. Leave --with-bucket out."
            )
        if there.anything or going:
            show(account, there, going)
            warn(there, going, settings)
            agree(names.unit, name)
            remove(account, names, there, going)
            forget(settings, there, names)
        verdict(account, names, remains.look(account, names, buckets), bool(going))


# -- what goes, and what stays -------------------------------------------------------------------


def show(account: Account, there: Remains, going: tuple[str, ...]) -> None:
    """Print what goes and what stays, with what each costs a month."""
    lines = list(costs(account, there))
    console.say("goes:")
    for what, price in lines:
        console.say(f"  - {what}: {price}")
    for what in free(there):
        console.say(f"  - {what}: {prices.FREE}")
    for one in going:
        console.say(f"  - bucket {one} with every artifact and backup in it: {prices.USE}")
    if lines:
        console.say(f"  saved: {prices.summed(lines)}")
    kept = [one for one in (*there.buckets, *there.theirs) if one not in going]
    if kept:
        console.say("stays:")
    for one in kept:
        console.say(f"  = bucket {one} with artifacts and backups: {prices.USE}")


def costs(account: Account, there: Remains) -> Iterator[tuple[str, Price]]:
    """Yield what is paid for by the month, with its price now."""
    disks = {one["VolumeId"]: one for one in there.volumes}
    for one in there.instances:
        listed = price_list.listed(account, one["InstanceType"])
        state = one["State"]["Name"]
        runs = state in ("running", "pending")
        what = f"instance {one['InstanceId']} ({one['InstanceType']}, {state})"
        yield what, prices.instance(listed, runs)
        if runs and not there.addresses and one.get("PublicIpAddress"):
            yield f"its public address {one['PublicIpAddress']}", prices.address()
    listed = price_list.listed(account, "") if disks else {}
    for id, one in disks.items():
        yield f"disk {id}, {one['Size']} GB", prices.disk(listed, one["Size"], one["VolumeType"])
    for one in there.addresses:
        yield f"Elastic IP address {one['PublicIp']}", prices.address()


def free(there: Remains) -> Iterator[str]:
    """Yield what goes and was never paid for."""
    yield from (f"security group {id}" for id in there.groups)
    if there.key:
        yield "key pair, and its private half on this machine"
    if there.role:
        yield "role and instance profile"


def warn(there: Remains, going: tuple[str, ...], settings: Settings) -> None:
    """Say what is lost that no bucket holds."""
    if there.instances and not going:
        typed_first = typed(settings.unit, settings.environment, "backup")
        console.warn(f"What was logged since the newest backup is lost. First: {typed_first}")
    if going:
        console.warn("No artifact and no backup is left then, of other environments there neither.")


def agree(unit: str, name: str) -> None:
    """Raise Exit unless the server's name was typed."""
    if name and name != unit:
        raise Exit(f"--name is {name!r}, and this server is {unit}. Nothing was removed.")
    if not name and not interactive():
        raise Exit(f"Nobody can be asked here. To go on without a terminal: --name {unit}")
    if not name and not confirm("Remove that for good?", False, name=unit):
        raise Exit("Nothing was removed.")


# -- removing ------------------------------------------------------------------------------------


def remove(account: Account, names: Names, there: Remains, going: tuple[str, ...]) -> None:
    """Remove everything, what is paid for first; what is gone already is fine."""
    for one in there.instances:
        with console.step(f"terminate {one['InstanceId']}"):
            instance.terminate(account, one["InstanceId"])
    for one in there.addresses:
        with console.step(f"release {one['PublicIp']}"):
            instance.release(account, one)
    # Disks go with their instance; what is left of them hung on one that went before.
    awaited(lambda: not remains.volumes(account, names), seconds=60)
    for one in remains.volumes(account, names):
        if one["State"] == "available":
            with console.step(f"delete disk {one['VolumeId']}"):
                remains.remove_volume(account, one["VolumeId"])
    for id in there.groups:
        with console.step(f"delete security group {id}"):
            group.remove(account, id)
    if there.key:
        key_pair.remove(account, names)
    for what in role.remove(account, names):
        console.say(f"✓ delete {what}", style="green")
    for name in going:
        with console.step(f"delete bucket {name}"):
            count = bucket.remove(account, name)
        console.say(f"  {counted(count, 'version')} of objects were in it")


def forget(settings: Settings, there: Remains, names: Names) -> None:
    """Take the host out of this clone, and the key that opened it off this machine."""
    aliases = [alias for one in there.instances for alias in entry.forget(one["InstanceId"])]
    key_pair.forget(names)
    file = paths.PROJECT / "fabric.yaml"
    former = file.read_text() if file.is_file() else ""
    hosts = hosts_in(former, settings.environment)
    if not hosts or not set(hosts) <= {*aliases, names.unit}:
        return
    try:
        if settings.environment:
            text = filled_below(former, settings.environment, [], {})
        else:
            text = filled(former, [], {})
    except Exit:
        console.warn(f"fabric.yaml still names {', '.join(hosts)} in `hosts:`: take it out.")
    else:
        replace(file, text)
        console.say("✓ fabric.yaml names no host any more", style="green")


def verdict(account: Account, names: Names, left: Remains, emptied: bool) -> None:
    """Say what is still paid for, of all that can be found; raises Exit where that is unwanted."""
    bills = [f"{what} ({price})" for what, price in costs(account, left)]
    if bills:
        raise Exit(f"This still bills: {'; '.join(bills)}. Run the same command again in a minute.")
    kept = (*left.buckets, *left.theirs)
    if emptied and left.buckets:
        raise Exit(
            f"The bucket {left.buckets[0]} is still there. Run the same command again in a minute."
        )
    for one in kept:
        console.say(f"still bills: bucket {one}, {prices.USE}")
    if not kept:
        console.say(NOTHING, style="green")
    else:
        console.say("✓ nothing else of this server bills any more", style="green")
