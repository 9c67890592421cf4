"""Take an instance and a bucket that somebody made into care: a role instead of keys, closed."""

from __future__ import annotations

import json as serialised
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.changes import operator_policy
from tasks.changes.bucket import aws_changes, backup_changes
from tasks.changes.role import proving_role, rights, taking_keys
from tasks.engine import backup_keys, credentials, session_manager
from tasks.engine.account_parts import TAG, Names, differing
from tasks.engine.facts import is_deployed
from tasks.engine.hosts import server_on
from tasks.engine.task import remote, run_by_name
from tasks.findings.aws import bucket as findings_of_bucket
from tasks.findings.aws.case import AccountCase, AccountFinding
from tasks.findings.aws.network import is_for_ssh, network
from tasks.findings.diagnosis import Area, diagnose
from tasks.laptop.account import before, entry, instance, mend, role
from tasks.laptop.account import bucket as bucket_part
from tasks.laptop.account import look as looking
from tasks.laptop.account.look import Look
from tasks.laptop.account.refusals import in_our_words
from tasks.laptop.account.session import sign_in
from tasks.laptop.account.steps import Step, carry_out
from tasks.laptop.account.way import host_key, way_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.engine.account_parts import Role
    from tasks.engine.server import Server
    from tasks.engine.task import Host
    from tasks.laptop.account.session import Account

NAMESPACE = "aws"

# A server's own units beside it: the others in this form are other servers.
UNITS = "ls /etc/systemd/system | grep -E '^mlflow-server(-[a-z0-9-]+)?\\.service$' || true"

# What stands beside a server under its name.
COMPANION = re.compile(r"-(backup|backup-verify|stream)\.service$")


# Ubuntu's images have the agent as a snap; without the role it went to sleep, for up to an hour.
AGENT = """for unit in snap.amazon-ssm-agent.amazon-ssm-agent amazon-ssm-agent; do
  if systemctl cat "$unit" > /dev/null 2>&1; then sudo -n systemctl restart "$unit"; exit; fi
done
echo "There is no amazon-ssm-agent here. Ubuntu: sudo snap install amazon-ssm-agent --classic" >&2
exit 3"""

BEAT = 5  # seconds between two logins that are tried


@dataclass
class Case:
    """One host, and what of the account is its own."""

    c: Host
    account: Account
    names: Names
    instance: Mapping[str, Any]
    role: Role | None
    key: str | None = field(default=None)

    @property
    def server(self) -> Server:
        return self.c.server

    @property
    def id(self) -> str:
        return str(self.instance["InstanceId"])

    @property
    def profile(self) -> str:
        """Name the instance profile that is attached, or ''."""
        return str(self.instance.get("IamInstanceProfile", {}).get("Arn", "")).rpartition("/")[2]


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
        "profile": "which profile of your ~/.aws to ask with (else AWS_PROFILE, or the variables)",
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
    return Case(c, account, names, found, role.look(account, names))


# -- a role instead of keys ----------------------------------------------------------------------


def role_steps(case: Case) -> list[Step]:
    """Return what gives the instance a role of ours, and proves it from the host.

    Another role stays: others than the server may live on it. It is only proved.
    """
    steps, wanted = [], rights(case.server.settings)
    if TAG not in {one["Key"] for one in case.instance.get("Tags", [])}:
        steps.append(tagging(case))
    if case.profile in ("", case.names.role):
        if case.role is None or differing(role.wanted(case.names, wanted), case.role):
            steps.append(making_role(case, wanted))
        if not case.profile:
            steps.append(attaching(case))
    elif case.server.facts.credentials:
        case.server.warn(
            f"the instance has a role of others ({case.profile}), which stays: it is only proved"
        )
    if steps or case.server.facts.credentials:
        steps.append(Step("prove from the host that the role can use the bucket",
                          lambda: prove(case)))  # fmt: skip
    return steps


def tagging(case: Case) -> Step:
    """Have instance and groups bear the tag, by which rights to change them are given."""
    ec2, ids = case.account.client("ec2"), [case.id, *instance.groups(case.instance)]
    tags = [{"Key": TAG, "Value": case.names.unit}]
    return Step(
        f"tag {', '.join(ids)} with {TAG}={case.names.unit}",
        lambda: ec2.create_tags(Resources=ids, Tags=tags),
        lambda: ec2.delete_tags(Resources=ids, Tags=tags),
    )


def making_role(case: Case, wanted: Mapping[str, Any]) -> Step:
    """Have the role be there with what the server needs and nothing else of ours."""
    name, former = case.names.role, case.role

    def undo() -> None:
        if former is None:
            role.remove(case.account, case.names)
            return
        iam, kept = case.account.client("iam"), dict(former.policies)
        for policy in wanted:
            if policy not in kept:
                iam.delete_role_policy(RoleName=name, PolicyName=policy)
        for policy, text in kept.items():
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=text)

    what = "make the role" if former is None else "give the role what the server needs:"
    return Step(f"{what} {name}", lambda: role.settle(case.account, case.names, wanted), undo)


def attaching(case: Case) -> Step:
    """Have the instance lend the role to the host."""
    name = case.names.role

    def undo() -> None:
        ec2 = case.account.client("ec2")
        asked = [{"Name": "instance-id", "Values": [case.id]}]
        found = ec2.describe_iam_instance_profile_associations(Filters=asked)
        for one in found["IamInstanceProfileAssociations"]:
            ours = one["IamInstanceProfile"]["Arn"].endswith(f"/{name}")
            if ours and one["State"] in ("associating", "associated"):
                ec2.disassociate_iam_instance_profile(AssociationId=one["AssociationId"])

    return Step(
        f"attach it to {case.id}", lambda: instance.attach(case.account, case.id, name), undo
    )


def prove(case: Case) -> None:
    """Use the bucket from the host with the role alone; raises Exit where that fails."""
    step = proving_role(case.server.settings, case.server.facts)
    case.server.look("aws.adopt", [step], timeout=600)


def key_steps(case: Case) -> list[Step]:
    """Return what takes the keys off the host, once the role is proved."""
    server = case.server
    if not server.facts.credentials:
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
    """Have the host do that with its keys, and return the key's id."""
    step = taking_keys(case.server.settings, action)
    reports = case.server.apply("aws.adopt", [step], decided=False)
    return serialised.loads(reports[-1])["id"]


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
        steps += setting_up(case, name, [one.key for one in safe(case, name, look, area)])
    if steps:
        steps.append(Step("prove from the host that the bucket can be used like that",
                          lambda: prove(case)))  # fmt: skip
    return steps


# What each of the repairs is for, in a plan.
SAID = {
    "versioning-off": "keep versions of what is deleted or overwritten",
    "encryption-off": "encrypt by default",
    "public-access": "block public access",
    "tls-not-required": "deny requests without TLS",
    "lifecycle-parts": "remove uploads that were cut off, after a week",
}


def setting_up(case: Case, name: str, keys: Sequence[str]) -> list[Step]:
    """Return a step for each setting that is to change, each with the one that was there."""
    if not keys:
        return []
    account, was = case.account, before.kept(case.account, name)
    steps = [
        Step(
            f"{name}: {SAID[key]}",
            lambda key=key: mend.MENDS[key](account, name, None),  # type: ignore[misc]
            lambda key=key: before.put_back(account, name, was, key),  # type: ignore[misc]
        )
        for key in keys
    ]
    if "versioning-off" in keys:
        # Nothing old is kept yet, so that a rule deletes nothing that somebody counts on.
        settings = case.server.settings
        rules = bucket_part.rules(settings.label, settings.artifact_prefix, settings.backup_prefix)
        steps.append(
            Step(
                f"{name}: keep old versions for 30 days",
                lambda: mend.merge_rules(account, name, rules),
                lambda: before.put_back(account, name, was, "lifecycle-parts"),
            )
        )
    return steps


def safe(
    case: Case, name: str, look: Look, areas: Mapping[str, Area[AccountCase]]
) -> list[AccountFinding]:
    """Return what aws.audit would mend by itself."""
    seen = AccountCase(name, case.server.settings, look.parts, look.blind, time.time(),
                       on_host=True)  # fmt: skip
    found = diagnose(seen, areas).found
    return [one for one in found if isinstance(one, AccountFinding) and one.safe]


def entry_steps(case: Case) -> list[Step]:
    """Return what has this clone know the host by its instance, whatever address that has.

    Where that is another way than now, through Session Manager or no more, it is proved.
    """
    target = case.server.connection.target
    if target.port != 22:
        case.server.warn(f"no entry is made for a host with the port {target.port}")
        return []
    own, former = wanted_entry(case), entry.blocks().get(case.names.unit)
    if former == own.text() and entry.is_trusted(case.id):
        return []
    steps = []
    if by_session(case) and not session_manager.is_used(target.proxy_command):
        session_manager.refuse_without_programs(own.proxy_command)
        steps.append(Step("start Session Manager's agent anew, which then has the role",
                          lambda: case.server.run(AGENT)))  # fmt: skip
    steps.append(
        Step(
            f"keep an entry {own.alias} for ssh in this clone",
            lambda: enter(case, own),
            lambda: entry.put_back(own.alias, former),
        )
    )
    if by_session(case) != session_manager.is_used(target.proxy_command):
        steps.append(Step(f"reach the host by {own.alias}", lambda: reach(case)))
    return steps


def by_session(case: Case) -> bool:
    """Tell whether the host is to be reached through Session Manager."""
    return case.server.settings.access == "ssm"


def wanted_entry(case: Case) -> entry.Entry:
    """Return the entry as it should be: as the operator reaches the host now, or as `access` says.

    Raises Exit where the way back from Session Manager has no address.
    """
    target = case.server.connection.target
    hostname, proxy = target.hostname, (target.proxy_command or "").replace("%", "%%") or None
    if by_session(case):
        hostname, proxy = case.id, session_manager.proxy(case.account.region)
    elif session_manager.is_used(target.proxy_command):
        hostname, proxy = str(case.instance.get("PublicIpAddress", "")), None
        if not hostname:
            raise Exit(f"{case.id} has no public address. Set `access: ssm` in fabric.yaml.")
    return entry.Entry(
        alias=case.names.unit,
        hostname=hostname,
        user=target.user,
        instance=case.id,
        identity=Path(target.identities[0])
        if target.identities_only and target.identities
        else None,
        proxy_command=proxy,
    )


def enter(case: Case, own: entry.Entry) -> None:
    """Write the entry with the key that the host has shown, and copies of what is kept here."""
    server = case.server
    entry.trust(case.id, host_key(server))
    entry.write(own)
    known = server_on(own.alias, server.settings, server.client, case.c.config)
    if (login := credentials.kept(server)) and credentials.kept(known) is None:
        credentials.keep(known, login)
    if (key := backup_keys.kept(server)) and backup_keys.kept(known) is None:
        backup_keys.keep(known, key)


def reach(case: Case, patience: float = 180) -> None:
    """Log in by the entry anew, as an agent takes minutes to call AWS; raises Exit if in vain."""
    until = time.monotonic() + patience
    while True:
        known = server_on(case.names.unit, case.server.settings, case.server.client, case.c.config)
        try:
            known.read("true")
            return
        except Exit:
            if time.monotonic() > until:
                raise
        finally:
            known.connection.close()
        time.sleep(BEAT)


def way_steps(case: Case) -> dict[str, list[Step]]:
    """Return what has the host be reached as `access` says; by a port, or without one."""
    if by_session(case):
        # A port closes only where the other way is there.
        return {"entry": entry_steps(case), "SSH": closing_steps(case)}
    return {"SSH": group_steps(case), "entry": entry_steps(case)}


def closing_steps(case: Case) -> list[Step]:
    """Return what takes the rules for SSH away, once Session Manager leads to the host."""
    ec2 = case.account.client("ec2")
    steps = []
    for group in instance.groups(case.instance):
        rules = [one for one in looking.rules(case.account, [group]) if is_for_ssh(one)]
        if rules and (others := sharing(case, group)):
            case.server.warn(f"SSH stays open in {group}: {', '.join(others)} have it as well")
            continue
        steps += [
            Step(
                f"take {one['SecurityGroupRuleId']} away (SSH from {mend.source(one)})",
                lambda one=one: ec2.revoke_security_group_ingress(  # type: ignore[misc]
                    GroupId=one["GroupId"], SecurityGroupRuleIds=[one["SecurityGroupRuleId"]]
                ),
                lambda one=one: mend.let_in_again(case.account, one),  # type: ignore[misc]
            )
            for one in rules
        ]
    if steps:
        steps.append(Step("reach the host without an open port", lambda: reach(case)))
    return steps


def sharing(case: Case, group: str) -> list[str]:
    """Name the instances that have a group beside ours."""
    filters = [{"Name": "instance.group-id", "Values": [group]}]
    pages = case.account.client("ec2").get_paginator("describe_instances")
    found = [
        one["InstanceId"]
        for page in pages.paginate(Filters=filters)
        for each in page["Reservations"]
        for one in each["Instances"]
        if one["State"]["Name"] not in instance.GONE
    ]
    return [id for id in found if id != case.id]


def tell_what_is_left(case: Case) -> None:
    """Say which key can go, and how the host is reached from now on."""
    server = case.server
    if case.key:
        user, last = last_use(case.account, case.key)
        server.say(f"the key {case.key} is not on the host any more{last}")
        if user:
            server.say(
                "once nothing else uses it: aws iam update-access-key --status Inactive "
                f"--user-name {user} --access-key-id {case.key}"
            )
    if entry.is_trusted(case.id):
        server.say(f"from now on: ./fab -H {case.names.unit} … (or `hosts: [{case.names.unit}]`)")
    server.say(f"what else there is to do: {server.fab('aws.audit')}")


def last_use(account: Account, key: str) -> tuple[str, str]:
    """Return whose a key is, and in words when it was used last; nothing where none may know."""
    from botocore.exceptions import ClientError

    try:
        found = account.client("iam").get_access_key_last_used(AccessKeyId=key)
    except ClientError:
        return "", ""
    used = found.get("AccessKeyLastUsed", {})
    when = used.get("LastUsedDate")
    last = f"; used last on {when:%Y-%m-%d} for {used.get('ServiceName')}" if when else ""
    return str(found.get("UserName") or ""), last
