"""Make all that a server needs in the AWS account: shown with its price first, and made once."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import operator_policy, prices
from tasks.changes import provision as wishes
from tasks.engine import paths, session_manager
from tasks.engine.account_parts import TAG as MARK
from tasks.engine.account_parts import Instance, KeyPair, Names, Parts
from tasks.engine.chain import run_on
from tasks.engine.console import confirm, console
from tasks.engine.fabric_yaml import difference, filled, filled_below, hosts_in
from tasks.engine.fabric_yaml import replace as write
from tasks.engine.records import dataclass
from tasks.engine.task import local
from tasks.engine.typed import here, typed
from tasks.laptop.account import (
    bucket,
    entry,
    group,
    host_key,
    instance,
    key_pair,
    price_list,
    role,
)
from tasks.laptop.account import place as places
from tasks.laptop.account.refusals import code_of, in_our_words
from tasks.laptop.account.session import PROFILE, names_of, sign_in
from tasks.laptop.account.survey import There, survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.changes.provision import Line
    from tasks.engine.settings import Settings
    from tasks.engine.task import Local
    from tasks.laptop.account.place import Image, Place
    from tasks.laptop.account.session import Account

NAMESPACE = "aws"

CHAIN = ("install", "configure", "deploy", "verify")

# EC2 guide, "Tag your resources": what a key and a value may hold.
TAG = re.compile(r"(?!aws:)[A-Za-z0-9 _.:/=+@-]{1,128}?=[A-Za-z0-9 _.:/=+@-]{0,256}")

KEYLESS = (
    "The key of {unit} is not on this machine ({file}), so this entry tries your own ones. Copy it "
    "from where the instance was made."
)

SILENT = (
    "The host has not printed its SSH key on its console yet, and without that nobody knows "
    "whether it is the one. Run the same command again to go on: {again}"
)


@dataclass(frozen=True)
class Order:
    """What was asked for, and where it is made."""

    c: Local
    settings: Settings
    account: Account
    names: Names
    networks: tuple[str, ...]
    again: str


@local(
    iterable=["tag", "allow"],
    help={
        "profile": PROFILE,
        "allow": "network that SSH is open to (default: your own address); may be repeated",
        "tag": "a tag of your own on everything, as KEY=VALUE; may be repeated",
        "deploy": "run install configure deploy verify on it as well",
        "yes": "do not ask",
    },
)
def provision(
    c: Local,
    profile: str | None = None,
    allow: Sequence[str] = (),
    tag: Sequence[str] = (),
    deploy: bool = False,
    yes: bool = False,
) -> None:
    """Make instance, bucket and rights, after showing prices.

    Bucket, role, security group, key pair and one instance with Ubuntu 24.04: looked up first by
    name and tag, so that typing it again makes nothing twice, and mends what is not as it should
    be. Nothing is made before you have said yes to the plan. The host's SSH key is learned from
    its console, and `hosts:` is set in fabric.yaml.

    Example: fab aws.provision --deploy
    """
    settings, _ = c.place()
    refuse_unready(settings, allow)
    own = tuple(tag_of(word) for word in tag)
    given = [group.allowed(word) for word in allow]
    more = ["--deploy"] if deploy else []
    again = typed_again(settings, profile, allow, tag, more)
    with in_our_words(operator_policy.action):
        account = sign_in(settings, profile)
        console.say(account.described())
        names = names_of(account, settings.unit, own)
        networks = () if by_session(settings) else tuple(given or [group.own_network()])
        order = Order(c, settings, account, names, networks, again)
        settings = carry_out(order, yes)
    chain(order, settings, deploy)


# -- what was typed ------------------------------------------------------------------------------


def by_session(settings: Settings) -> bool:
    """Tell whether the host is to be reached through Session Manager, without an open port."""
    return settings.access == "ssm"


def refuse_unready(settings: Settings, allow: Sequence[str]) -> None:
    """Raise Exit where settings and options do not fit what is made."""
    if by_session(settings):
        session_manager.refuse_without_programs(session_manager.START)
        if allow:
            raise Exit("`access:` is ssm, which opens no port to anybody. Leave --allow out.")
    if settings.endpoint_url:
        raise Exit(
            f"`endpoint_url:` is {settings.endpoint_url}, and the bucket of an instance is at AWS. "
            "Take that setting out, or use an environment without it (./fab use NAME …)."
        )


def tag_of(word: str) -> tuple[str, str]:
    """Return key and value of a tag; raises Exit where it is none."""
    if not TAG.fullmatch(word):
        raise Exit(f"--tag is {word!r}. Give KEY=VALUE, such as --tag team=research")
    key, _, value = word.partition("=")
    if key in ("Name", MARK):
        raise Exit(f"The tag {key} is the server's own. Give another key to --tag.")
    return key, value


def typed_again(
    settings: Settings,
    profile: str | None,
    allow: Sequence[str],
    tag: Sequence[str],
    more: Sequence[str],
) -> str:
    """Spell the same command once more."""
    words = ["--profile", profile] if profile else []
    words += [word for one in allow for word in ("--allow", one)]
    words += [word for one in tag for word in ("--tag", one)]
    return here(settings.environment, "aws.provision", shlex.join([*words, *more])).rstrip()


# -- the plan ----------------------------------------------------------------------------------


def carry_out(order: Order, yes: bool) -> Settings:
    """Plan, ask and make; return the settings as they are from then on.

    Raises Exit where the answer is no or something is foreign, and botocore's exceptions.
    """
    wanted, there, image, place = planned(order)
    listed = price_list.listed(order.account, wanted.instance.type if wanted.instance else "")
    lines = wishes.plan(wanted, there.parts, listed, there.theirs)
    show(lines, prices.source(listed))
    if wishes.changes(lines):
        if not there.instance:
            look_ahead(order, wanted, image, place)
        if not confirm("Make that?" if not there.instance else "Do that?", yes):
            raise Exit("Nothing was made.")
        make(order, wanted, there, image, place)
    else:
        console.say("nothing to change in the account")
    id = reachable(order)
    settings = written(order, wanted.buckets[0].name)
    say_host(order, id)
    return settings


def planned(order: Order) -> tuple[Parts, There, Image | None, Place | None]:
    """Return what is wanted and what there is; of an instance that is to be made also where."""
    settings, account, names = order.settings, order.account, order.names
    buckets = wishes.buckets(settings, names)
    found = instance.find(account, names)
    image = place = None
    if not found:
        type = wishes.type_for(settings.workers)
        kind = places.kind(account, type)
        place = places.place(account, type, settings.vpc, settings.subnet)
        parameter = wishes.IMAGE.format(release=wishes.RELEASE, arch=kind.architecture)
        image = places.image(account, parameter)
    vpc = place.vpc if place else str((found or {}).get("VpcId", ""))
    there = survey(account, names, buckets, vpc)
    if there.parts.instance:
        machine = wishes.as_it_is(there.parts.instance, names)
    else:
        assert image and place
        machine = wishes.instance(names, type, image.id, place.subnets[0])
        size = max(machine.gigabytes, image.gigabytes)
        machine = replace(machine, gigabytes=size)
    rules = lifecycle(settings, names)
    role_wanted = role.wanted(names, wishes.policies(settings, names))
    group_wanted = group.wanted(names.unit, vpc, order.networks, bool(settings.public_name))
    # An instance that was taken over goes on with what others made for it.
    of_ours = not found or machine.profile == names.role
    wanted = Parts(
        buckets=tuple(bucket.wanted(name, rules) for name in buckets),
        role=role_wanted if of_ours else None,
        group=group_wanted if there.parts.group or not found else None,
        key=wanted_key(names, there),
        instance=machine,
        address=wishes.address(settings),
    )
    return wanted, there, image, place


def lifecycle(settings: Settings, names: Names) -> list[dict[str, object]]:
    """Return the lifecycle rules of the settings' prefixes."""
    return bucket.rules(settings.label, settings.artifact_prefix, settings.backup_prefix)


def wanted_key(names: Names, there: There) -> KeyPair | None:
    """Return the key pair: this machine's, but the one that an instance was born with."""
    public = key_pair.public_half(names)
    if there.instance and there.instance.get("KeyName") != names.unit:
        return None
    if there.instance and there.parts.key:
        return there.parts.key
    return KeyPair(names.unit, public or "")


def show(lines: Sequence[Line], source: str) -> None:
    """Print the plan: + made, ~ changed, = there already, each with its price."""
    console.say(f"prices: {source}")
    for line in lines:
        console.say(f"  {line.sign} {line.what}: {line.price}")
    console.say(f"  sum: {prices.summed([(line.name, line.price) for line in lines])}")


def look_ahead(order: Order, wanted: Parts, image: Image | None, place: Place | None) -> None:
    """Raise Exit or botocore's exceptions where making the instance is bound to fail."""
    from botocore.exceptions import ClientError

    assert image and place and wanted.instance
    asked = {"ImageId": image.id, "InstanceType": wanted.instance.type}
    free = places.free_types(order.account)
    try:
        places.refuse_without_rights(order.account, order.names, place, asked, bool(wanted.address))
    except ClientError as error:
        if "Free Tier" not in str(error):
            raise
        raise Exit(free_plan(wanted.instance.type, free)) from None
    if wanted.instance.type not in free:
        console.say(
            f"  {wanted.instance.type} is no type for accounts on AWS's free plan; those may have "
            f"{', '.join(free)}"
        )


def free_plan(type: str, free: Sequence[str]) -> str:
    """Say what an account on the free plan can do."""
    return (
        f"This account is on AWS's free plan, which may not launch {type} but "
        f"{', '.join(free)}. Set fewer `workers:`, or upgrade the plan in the AWS console."
    )


# -- making ------------------------------------------------------------------------------------


def make(
    order: Order, wanted: Parts, there: There, image: Image | None, place: Place | None
) -> None:
    """Make or mend all that differs; the role first, since EC2 hears of it late."""
    account, names, settings = order.account, order.names, order.settings
    assert wanted.instance
    if wanted.role:
        with console.step(f"role {names.role}"):
            role.settle(account, names, wishes.policies(settings, names))
    for one in wanted.buckets:
        if one.name not in there.theirs:
            with console.step(f"bucket {one.name}"):
                bucket.make(account, names, one.name)
                bucket.set_up(account, one.name, lifecycle(settings, names))
    id = ""
    if wanted.group:
        with console.step(f"security group {names.unit}"):
            id = group.settle(account, names, wanted.group)
    if wanted.key and not (there.instance and there.parts.key):
        with console.step(f"key pair {names.unit}"):
            key_pair.settle(account, names)
    machine = wishes.settled(wanted.instance, id)
    if there.instance:
        made = there.id
    else:
        assert image and place
        with console.step(f"instance {machine.type}"):
            made = launched(order, machine, place, image)
            instance.await_state(account, made, "running")
    instance.settle(account, made, machine)
    if wanted.address:
        with console.step("Elastic IP address"):
            instance.settle_address(account, names, made)


def launched(order: Order, machine: Instance, place: Place, image: Image) -> str:
    """Make the instance, and return its id; raises Exit where the free plan forbids the type."""
    from botocore.exceptions import ClientError

    try:
        return instance.launch(order.account, order.names, machine, place.subnets, image.root)
    except ClientError as error:
        if code_of(error) != "InvalidParameterCombination" or "Free Tier" not in str(error):
            raise
        raise Exit(free_plan(machine.type, places.free_types(order.account))) from None


# -- reaching it -------------------------------------------------------------------------------


def reachable(order: Order) -> str:
    """Have this clone reach the host by its name, and return the instance's id.

    Raises Exit where the host has not said its key yet.
    """
    found = instance.find(order.account, order.names)
    if found is None:
        raise Exit(f"The instance of {order.names.unit} is gone again. Type {order.again}")
    id, file = str(found["InstanceId"]), key_pair.file_of(order.names)
    if found["State"]["Name"] == "pending":
        found = instance.await_state(order.account, id, "running")
    if found["State"]["Name"] != "running":
        starting = here(order.settings.environment, "aws.start")
        console.say(f"the instance is {found['State']['Name']}; {starting} starts it")
        return id
    address = found.get("PublicIpAddress", "")
    if not address:
        raise Exit(f"{id} has no public address. Give it one in the console, or make a new one.")
    if not entry.moved(id, address):
        identity = file if file.is_file() else None
        if identity is None:
            console.warn(KEYLESS.format(unit=order.names.unit, file=paths.shown(file)))
        unit, proxy = order.settings.unit, None
        if by_session(order.settings):
            address, proxy = id, session_manager.proxy(order.account.region)
        entry.write(entry.Entry(unit, address, wishes.USER, id, identity, proxy))
    if not entry.is_trusted(id):
        with console.waiting("the host prints its SSH key on its console"):
            key = host_key.learned(order.account, id)
        if key is None:
            raise Exit(SILENT.format(again=order.again))
        entry.trust(id, key)
    return id


def say_host(order: Order, id: str) -> None:
    """Say what the server's host is called from now on."""
    for alias in entry.of_instance(id):
        console.say(f"✓ {id} is the host {alias}", style="green")


def written(order: Order, bucket: str) -> Settings:
    """Write host, bucket and region into fabric.yaml where it lacks them; return the settings."""
    settings, unit = order.settings, order.settings.unit
    missing = {}
    if not settings.bucket:
        missing["bucket"] = bucket
    if not settings.region:
        missing["region"] = order.account.region
    file = paths.PROJECT / "fabric.yaml"
    former = file.read_text() if file.is_file() else ""
    hosts = hosts_in(former, settings.environment)
    if hosts and unit not in hosts:
        console.warn(f"fabric.yaml names {', '.join(hosts)}: this host is -H {unit}")
    if missing or not hosts:
        named = hosts or [unit]
        if settings.environment:
            text = filled_below(former, settings.environment, named, missing)
        else:
            text = filled(former, named, missing)
        if text != former:
            console.say("\n".join(difference(former, text)))
            write(file, text)
    return settings.model_copy(update={"region": order.account.region, **missing})


def chain(order: Order, settings: Settings, deploy: bool) -> None:
    """Run the chain on the new host, or say how it is typed."""
    if deploy:
        tasks = [order.c.tasks[name] for name in CHAIN]
        run_on([settings.unit], tasks, order.c.config, settings, order.c.client())
        return
    console.say(f"Next: {typed(settings.unit, settings.environment, *CHAIN)}")
