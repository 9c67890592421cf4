"""Have the instance run only when it is wanted, and its door open to where you are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import operator_policy, prices
from tasks.engine.chain import run_on
from tasks.engine.console import console
from tasks.engine.task import local
from tasks.engine.typed import here, typed
from tasks.laptop.account import entry, group, instance, price_list, remains
from tasks.laptop.account.refusals import in_our_words
from tasks.laptop.account.session import PROFILE, names_of, sign_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tasks.engine.account_parts import Names
    from tasks.engine.settings import Settings
    from tasks.engine.task import Local
    from tasks.laptop.account.session import Account

NAMESPACE = "aws"

HELP = {"profile": PROFILE}


@local(help={**HELP, "backup": "--no-backup stops it without one"})
def stop(c: Local, profile: str | None = None, backup: bool = True) -> None:
    """Stop the instance after a backup; disk and data stay.

    Its disk is still paid for, and an Elastic IP address; the instance itself is not. Without such
    an address it has another one after aws.start, which the host's entry follows.

    Example: fab aws.stop
    """
    settings, _ = c.place()
    with in_our_words(operator_policy.action):
        account, names, found = server(settings, profile)
        id, state = str(found["InstanceId"]), found["State"]["Name"]
        if state == "stopped":
            console.say(f"{id} is stopped already")
        else:
            if backup and state == "running":
                back_up(c, settings, id)
            with console.step(f"stop {id}"):
                instance.stop(account, id)
        say_bills(account, names)


@local(help=HELP)
def start(c: Local, profile: str | None = None) -> None:
    """Start the instance; the host's entry follows its address.

    The server on it starts by itself. The host's SSH key stays the same, whatever its address is.

    Example: fab aws.start
    """
    settings, _ = c.place()
    with in_our_words(operator_policy.action):
        account, _, found = server(settings, profile)
        id = str(found["InstanceId"])
        if found["State"]["Name"] == "running":
            console.say(f"{id} runs already")
        else:
            with console.step(f"start {id}"):
                found = instance.start(account, id)
        address = found.get("PublicIpAddress", "")
        if not address:
            raise Exit(f"{id} runs without a public address, so nothing leads there from here.")
        aliases = entry.moved(id, address)
        console.say(f"✓ {', '.join(aliases) or id} is at {address}", style="green")
        if not aliases:
            making = here(settings.environment, "aws.provision")
            console.say(f"  no entry of this clone leads there; {making} makes one")
    say_next(settings, aliases)


@local(help={**HELP, "allow": "the network that you come from (default: your own address)"})
def allow_me(c: Local, profile: str | None = None, allow: str = "") -> None:
    """Open SSH to your address, instead of your former one.

    For when your own address has changed, and the host does not answer any more. Yours is the rule
    that bears your name; those of others stay.

    Example: fab aws.allow-me
    """
    settings, _ = c.place()
    if settings.access == "ssm":
        raise Exit("`access:` is ssm: no port is open, whatever your address is.")
    with in_our_words(operator_policy.action):
        account = sign_in(settings, profile)
        console.say(account.described())
        names = names_of(account, settings.unit)
        network = group.allowed(allow) if allow else group.own_network()
        groups = group.tagged(account, names)
        if not groups:
            raise Exit(
                f"{account.region} has no security group of {names.unit}. {nothing(settings)}"
            )
        for id in groups:
            former = group.admit(account, names, id, network)
            instead = f", and no longer to {former}" if former else ""
            console.say(f"✓ {id}: SSH is open to {network}{instead}", style="green")


# -- the parts of it ---------------------------------------------------------------------------


def server(settings: Settings, profile: str | None) -> tuple[Account, Names, Mapping[str, Any]]:
    """Return account, names and the server's instance; raises Exit where there is none."""
    account = sign_in(settings, profile)
    console.say(account.described())
    names = names_of(account, settings.unit)
    found = instance.find(account, names)
    if found is None:
        raise Exit(f"{account.region} has no instance of {names.unit}. {nothing(settings)}")
    return account, names, found


def nothing(settings: Settings) -> str:
    """Say what to do where nothing of a server is there."""
    return (
        f"Make one: {here(settings.environment, 'aws.provision')}; one that others made needs the "
        f"tag remote-mlflow={settings.unit}. Or it is in another `region:`."
    )


def back_up(c: Local, settings: Settings, id: str) -> None:
    """Back the server up; raises Exit that says how to stop without."""
    _, hosts = c.place()
    host = next(iter([*entry.of_instance(id), *hosts]), settings.unit)
    try:
        run_on([host], [c.tasks["backup"]], c.config, settings, c.client())
    except Exit as error:
        reason = (error.message or "the backup failed").rstrip(".")
        command = here(settings.environment, "aws.stop --no-backup")
        raise Exit(f"{reason}. It was not stopped; without a backup: {command}") from None


def say_bills(account: Account, names: Names) -> None:
    """Say what a stopped instance still costs."""
    listed = price_list.listed(account, "")
    lines = [
        (f"disk {one['VolumeId']}", prices.disk(listed, one["Size"], one["VolumeType"]))
        for one in remains.volumes(account, names)
    ]
    lines += [
        (f"address {one['PublicIp']}", prices.address())
        for one in instance.addresses(account, names)
    ]
    if lines:
        console.say(f"still bills: {prices.summed(lines)} ({', '.join(name for name, _ in lines)})")


def say_next(settings: Settings, aliases: list[str]) -> None:
    """Say how to see whether the server answers."""
    if aliases:
        console.say(f"Next: {typed(aliases[0], settings.environment, 'status')}")
