"""Take an instance and a bucket that somebody made into care: a role instead of keys, closed."""

from __future__ import annotations

import json as serialised
import re
import time
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.changes import operator_policy
from tasks.changes.bucket import aws_changes, backup_changes
from tasks.changes.role import proving_role, rights, taking_keys
from tasks.engine import credentials
from tasks.engine.account_parts import TAG, Names, differing
from tasks.engine.facts import is_deployed
from tasks.engine.shell import sh
from tasks.engine.task import remote, run_by_name
from tasks.findings.aws import bucket as findings_of_bucket
from tasks.findings.aws.case import AccountCase, AccountFinding
from tasks.findings.aws.network import is_for_ssh, network
from tasks.findings.diagnosis import Area, diagnose
from tasks.laptop.account import access, adopted, entry, instance, mend, role
from tasks.laptop.account import look as looking
from tasks.laptop.account.adopted import Case
from tasks.laptop.account.look import Look
from tasks.laptop.account.refusals import in_our_words
from tasks.laptop.account.session import PROFILE, sign_in
from tasks.laptop.account.steps import Step, carry_out
from tasks.laptop.account.way import way_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.engine.server import Server
    from tasks.engine.task import Host
    from tasks.laptop.account.session import Account

NAMESPACE = "aws"

# A server's own units beside it: the others in this form are other servers.
UNITS = "ls /etc/systemd/system | grep -E '^mlflow-server(-[a-z0-9-]+)?\\.service$' || true"

# What stands beside a server under its name.
COMPANION = re.compile(r"-(backup|backup-verify|stream)\.service$")


def away(profile: str) -> str:
    """Spell what tells whether a turn that was cut off has left a profile's keys taken away."""
    return f"if [ -e ~/.aws/{sh(f'credentials.{profile}.away')} ]; then echo away; fi"


def check(servers: list[Server], **_: Any) -> None:
    """Refuse what makes no sense before any connection."""
    if len(servers) > 1:
        raise Exit("aws.adopt changes how hosts are reached: one at a time, each with -H.")
    for server in servers:
        if server.rehearsal:
            raise Exit(f"{server.name} is a rehearsal host: no AWS account knows it.")
        server.settings.require_bucket()
        if where := server.settings.endpoint_url:
            raise Exit(f"The bucket is at {where}, not at AWS: no role leads there.")


@remote(
    check=check,
    help={
        "profile": PROFILE,
        "yes": "do not ask",
    },
)
def adopt(c: Host, profile: str | None = None, yes: bool = False) -> None:
    """Take an instance and a bucket that you made into care.

    A role instead of keys: made, attached, and proved from the host before the keys go. SSH from
    your address instead of everybody's, the bucket set up as aws.audit wants it, and an entry by
    which this clone reaches the host. Shows all of it, and asks; a part that fails is undone.

    Example: fab -H ec2 aws.adopt
    """
    server = c.server
    refuse_unready(server)
    with in_our_words(operator_policy.action):
        account = sign_in(server.settings, profile)
        server.say(f"looking at {account.described()}")
        case = looked_at(c, account)
        parts = {
            "role": [*role_steps(case), *key_steps(case)],
            "bucket": bucket_steps(case),
            **way_steps(case),
        }
        if not any(parts.values()):
            server.say("aws.adopt: nothing to change")
            return
        ask(server, parts, yes)
        for steps in parts.values():
            carry_out(steps, server.say, operator_policy.action)
        server.say("✓ adopted", "green")
        tell_what_is_left(case)


def refuse_unready(server: Server) -> None:
    """Raise Exit where the host cannot prove a role yet."""
    if server.facts.guide or not server.facts.complete:
        server_is = "the guide's" if server.facts.guide else "not installed"
        raise Exit(
            f"The server on {server.name} is {server_is} yet. Type: "
            f"{server.fab('install configure deploy')}"
        )


def ask(server: Server, parts: Mapping[str, Sequence[Step]], yes: bool) -> None:
    """Show what would be done, and ask; raises Exit where the answer is no."""
    server.say("aws.adopt would, each part undone where it fails:")
    for name, steps in parts.items():
        for step in steps:
            server.say(f"  {name}: {step.what}")
    if not server.confirm(f"Do this for {server.place}?", yes):
        raise Exit("Nothing was changed.")


def looked_at(c: Host, account: Account) -> Case:
    """Find the host's instance; raises Exit where there is none, and botocore's exceptions."""
    server = c.server
    name = server.connection.target.hostname
    found = looking.find(account, name)
    if found is None:
        raise Exit(
            f"{account.region} has no instance at {name} in account {account.caller.account}. Set "
            "`region:` in fabric.yaml, or choose another account with --profile."
        )
    names = Names(server.settings.unit, account.caller.account, account.region)
    has_keys = bool(server.facts.credentials or server.read(away(server.settings.profile)))
    return Case(c, account, names, found, role.look(account, names), has_keys)


# -- a role instead of keys ----------------------------------------------------------------------


def role_steps(case: Case) -> list[Step]:
    """Return what gives the instance a role of ours, and proves it from the host.

    Another role stays: others than the server may live on it. It is only proved.
    """
    steps, wanted = [], rights(case.server.settings)
    if TAG not in {one["Key"] for one in case.instance.get("Tags", [])}:
        steps.append(adopted.tagging(case))
    if case.profile in ("", case.names.role):
        if case.role is None or differing(role.wanted(case.names, wanted), case.role):
            steps.append(adopted.making_role(case, wanted))
        if not case.profile:
            steps.append(adopted.attaching(case))
    elif case.server.facts.credentials:
        case.server.warn(
            f"the instance has a role of others ({case.profile}), which stays: it is only proved"
        )
    if steps or case.has_keys:
        steps.append(Step("prove from the host that the role can use the bucket",
                          lambda: prove(case)))  # fmt: skip
    return steps


def prove(case: Case) -> None:
    """Use the bucket from the host with the role alone; raises Exit where that fails."""
    step = proving_role(case.server.settings, case.server.facts)
    case.server.look("aws.adopt", [step], timeout=600)


def key_steps(case: Case) -> list[Step]:
    """Return what takes the keys off the host, once the role is proved."""
    server = case.server
    if not case.has_keys:
        return []
    if others := other_servers(server):
        server.warn(
            f"the keys stay on the host: {', '.join(others)} may live on them as well. Give each "
            "server a `profile:` of its own first"
        )
        return []
    steps = [Step("take the keys off the host, and configure it without",
                  lambda: go_without(case), lambda: bring_back(case))]  # fmt: skip
    if is_deployed(server.settings, server.facts):
        steps.append(
            Step("have the server live on the role", lambda: run_by_name(case.c, "deploy"))
        )
    return [*steps, Step("forget the keys", lambda: taken(case, "forget"))]


def other_servers(server: Server) -> list[str]:
    """Name the servers on the host beside this one."""
    units = [unit for unit in server.read(UNITS).split() if not COMPANION.search(unit)]
    found = [unit.removesuffix(".service") for unit in units]
    return [unit for unit in found if unit != server.settings.unit]


def go_without(case: Case) -> None:
    """Take the keys away, and prove the bucket as the server will use it; raises Exit."""
    case.key = taken(case, "away")
    settings, facts = case.server.settings, case.server.facts
    needed = aws_changes(settings, facts, None) + backup_changes(
        settings, facts, credentials.backup_keys(case.server)
    )
    case.server.apply("aws.adopt", needed)


def bring_back(case: Case) -> None:
    """Put the keys back, and have the server live on them again; raises Exit."""
    taken(case, "back")
    server = case.server
    server.apply("aws.adopt", aws_changes(server.settings, server.facts, None))
    if is_deployed(server.settings, server.facts):
        run_by_name(case.c, "deploy")


def taken(case: Case, action: str) -> str | None:
    """Have the host do that with its keys, and return the key's id where it is one."""
    step = taking_keys(case.server.settings, action)
    reports = case.server.apply("aws.adopt", [step], decided=False)
    id = str(serialised.loads(reports[-1])["id"] or "")
    # It becomes a part of a command to be pasted (IAM API: at most 128 word characters).
    return id if re.fullmatch(r"\w{16,128}", id, re.ASCII) else None


# -- the group, the bucket, the entry ------------------------------------------------------------


def group_steps(case: Case) -> list[Step]:
    """Return what narrows SSH from everybody to the operator: the new rule before the old goes."""
    look = Look(operator_policy.action)
    look.at("rules", lambda: looking.rules(case.account, instance.groups(case.instance)))
    look.parts["instance"] = case.instance
    found = safe(case, case.server.name, look, {"network": Area(network, "rules")})
    if not found:
        return []
    way = way_to(case.server)
    if way is None:
        case.server.warn(
            "SSH stays open to everybody: behind a jump host your own address is not known. See "
            "./fab aws.audit"
        )
        return []
    return [
        Step(
            f"let in {way.address} alone instead of everybody ({one.resource})",
            lambda one=one: mend.narrow_ssh(case.account, one.resource, way),  # type: ignore[misc]
        )
        for one in found
    ]


def bucket_steps(case: Case) -> list[Step]:
    """Return what sets the buckets up, and proves from the host that the server gets on with it."""
    settings = case.server.settings
    steps: list[Step] = []
    for name in dict.fromkeys((settings.require_bucket(), settings.require_backup_bucket())):
        look = Look(operator_policy.action)
        looking.at_bucket(case.account, look, name)
        look.parts["account"] = case.account.caller.account
        area = {"bucket": Area(findings_of_bucket.bucket, *looking.BUCKET)}
        if look.blind:
            why = next(iter(look.blind.values()))
            case.server.warn(f"the bucket {name} stays as it is: {why}")
            continue
        steps += adopted.setting_up(case, name, [one.key for one in safe(case, name, look, area)])
    if steps:
        steps.append(Step("prove from the host that the bucket can be used like that",
                          lambda: prove(case)))  # fmt: skip
    return steps


def safe(
    case: Case, name: str, look: Look, areas: Mapping[str, Area[AccountCase]]
) -> list[AccountFinding]:
    """Return what aws.audit would mend by itself."""
    seen = AccountCase(name, case.server.settings, look.parts, look.blind, time.time(),
                       on_host=True)  # fmt: skip
    found = diagnose(seen, areas).found
    return [one for one in found if isinstance(one, AccountFinding) and one.safe]


def way_steps(case: Case) -> dict[str, list[Step]]:
    """Return what has the host be reached as `access` says; by a port, or without one."""
    if access.by_session(case):
        # A port closes only where the other way is there.
        return {"entry": access.entry_steps(case), "SSH": closing_steps(case)}
    return {"SSH": group_steps(case), "entry": access.entry_steps(case)}


def closing_steps(case: Case) -> list[Step]:
    """Return what takes the rules for SSH away, once Session Manager leads to the host."""
    steps = []
    for group in instance.groups(case.instance):
        rules = [one for one in looking.rules(case.account, [group]) if is_for_ssh(one)]
        if rules and (others := access.sharing(case, group)):
            case.server.warn(f"SSH stays open in {group}: {', '.join(others)} have it as well")
            continue
        steps += [
            Step(
                f"take {one['SecurityGroupRuleId']} away (SSH from {mend.source(one)})",
                lambda one=one: mend.revoke(case.account, one),  # type: ignore[misc]
                lambda one=one: mend.let_in_again(case.account, one),  # type: ignore[misc]
            )
            for one in rules
        ]
    if steps:
        steps.append(Step("reach the host without an open port", lambda: access.reach(case)))
    return steps


def tell_what_is_left(case: Case) -> None:
    """Say which key can go, and how the host is reached from now on."""
    server = case.server
    if case.key:
        user, last = adopted.last_use(case.account, case.key)
        server.say(f"the key {case.key} is not on the host any more{last}")
        if user:
            server.say(
                "once nothing else uses it: aws iam update-access-key --status Inactive "
                f"--user-name {user} --access-key-id {case.key}"
            )
    if entry.is_trusted(case.id):
        server.say(f"from now on: ./fab -H {case.names.unit} … (or `hosts: [{case.names.unit}]`)")
    server.say(f"what else there is to do: {server.fab('aws.audit')}")
