"""The security group of a server: who may try to log in, and with a public name, who reaches it."""

from __future__ import annotations

import ipaddress
import re
import time
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.engine.account_parts import TAG, Group, Rule
from tasks.laptop.account.mend import SSH, allow, permission
from tasks.laptop.account.patience import awaited, patiently
from tasks.laptop.account.refusals import code_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tasks.engine.account_parts import Names
    from tasks.laptop.account.session import Account

WEB = (80, 443)  # with a public name: 80 is for the certificate's proof

EVERYBODY = ("0.0.0.0/0", "::/0")

FOREIGN = (
    "There is a security group {name} in {vpc} that is none of ours: it lacks the tag "
    "remote-mlflow. Rename or delete that one, or use another environment (./fab use NAME …)."
)

CHECK = "https://checkip.amazonaws.com"

UNKNOWN = (
    f"Your own address cannot be had from {CHECK}. Give the network that you come from: "
    "--allow 203.0.113.9/32"
)


def own_network() -> str:
    """Return the operator's own address as a network, as AWS sees it; raises Exit without one."""
    import urllib.request

    try:
        with urllib.request.urlopen(CHECK, timeout=10) as answer:
            return network(answer.read(100).decode().strip())
    except (OSError, ValueError):
        raise Exit(UNKNOWN) from None


def network(text: str) -> str:
    """Spell a network as AWS keeps it, without host bits; raises ValueError where it is none."""
    return str(ipaddress.ip_network(text.strip(), strict=False))


def allowed(word: str) -> str:
    """Return a network that was given with --allow; raises Exit where it is none, or everybody."""
    try:
        found = network(word)
    except ValueError:
        raise Exit(f"--allow is {word!r}. Give an address or network: 203.0.113.9/32") from None
    if found in EVERYBODY:
        raise Exit(f"--allow {found} lets everybody try to log in. Give your own network.")
    return found


def wanted(name: str, vpc: str, networks: Iterable[str], public: bool) -> Group:
    """Return the group as it should be: SSH from these networks, the web with a public name."""
    rules = {Rule(one, SSH) for one in networks}
    if public:
        rules |= {Rule(one, port) for one in EVERYBODY for port in WEB}
    return Group(name, vpc, frozenset(rules))


# -- looking -----------------------------------------------------------------------------------


def look(account: Account, names: Names, vpc: str) -> tuple[str, Group] | None:
    """Return the group of a server's name in a VPC with its id; None where there is none.

    Raises Exit where that is somebody else's, and botocore's exceptions.
    """
    filters = [{"Name": "group-name", "Values": [names.unit]}, {"Name": "vpc-id", "Values": [vpc]}]
    found = account.client("ec2").describe_security_groups(Filters=filters)["SecurityGroups"]
    for one in found:
        if not names.owns(one.get("Tags")):
            raise Exit(FOREIGN.format(name=names.unit, vpc=vpc))
        id = str(one["GroupId"])
        return id, Group(names.unit, vpc, frozenset(map(_rule, inbound(account, id))))
    return None


def tagged(account: Account, names: Names) -> list[str]:
    """Return the ids of the groups that bear this server's tag, in any VPC."""
    found = account.client("ec2").describe_security_groups(Filters=names.bears())
    return [str(one["GroupId"]) for one in found["SecurityGroups"]]


def inbound(account: Account, id: str) -> list[dict[str, Any]]:
    """Return the inbound rules of a group, one an address range, as EC2 describes them."""
    pages = account.client("ec2").get_paginator("describe_security_group_rules")
    asked = pages.paginate(Filters=[{"Name": "group-id", "Values": [id]}])
    return [rule for page in asked for rule in page["SecurityGroupRules"] if not rule["IsEgress"]]


def _rule(rule: Mapping[str, Any]) -> Rule:
    return Rule(_source(rule), int(rule.get("FromPort", -1)))


def _source(rule: Mapping[str, Any]) -> str:
    """Return where a rule lets somebody in from: a network, or another group."""
    text = rule.get("CidrIpv4") or rule.get("CidrIpv6")
    return network(text) if text else str(rule.get("ReferencedGroupInfo", {}).get("GroupId", ""))


# -- making ------------------------------------------------------------------------------------


def settle(account: Account, names: Names, wanted: Group) -> str:
    """Have a group be there with these rules at least, and return its id."""
    found = look(account, names, wanted.vpc)
    id = found[0] if found else make(account, names, wanted.vpc)
    there = found[1].rules if found else frozenset()
    for rule in sorted(wanted.rules - there):
        if rule.port == SSH:
            admit(account, names, id, rule.network)
        else:
            open_port(account, names, id, rule)
    return id


def make(account: Account, names: Names, vpc: str) -> str:
    """Make a group without an inbound rule, and return its id; one that is there is as good."""
    from botocore.exceptions import ClientError

    try:
        made = account.client("ec2").create_security_group(
            GroupName=names.unit,
            Description=f"remote-mlflow: {names.unit}",
            VpcId=vpc,
            TagSpecifications=names.tagging("security-group"),
        )
        return str(made["GroupId"])
    except ClientError as error:
        if code_of(error) != "InvalidGroup.Duplicate":
            raise
    again = awaited(lambda: look(account, names, vpc), seconds=30)
    if again is None:
        raise Exit(FOREIGN.format(name=names.unit, vpc=vpc))
    return again[0]


def admit(account: Account, names: Names, id: str, network: str) -> str | None:
    """Let the operator in to SSH from a network; return the one that its rule said before.

    A rule of the same operator's is changed in one call, so that there is no moment without one.
    """
    ours = own_rules(account, id)
    if any(_source(rule) == network for rule in ours.values()):
        return None
    ec2, text = account.client("ec2"), description(account)
    for rule, one in ours.items():
        if one.get("Description", "").rpartition(" ")[0] == text.rpartition(" ")[0]:
            word = "CidrIpv4" if "." in network else "CidrIpv6"
            changed = {
                "IpProtocol": "tcp", "FromPort": SSH, "ToPort": SSH, word: network,
                "Description": text,
            }  # fmt: skip
            ec2.modify_security_group_rules(
                GroupId=id,
                SecurityGroupRules=[{"SecurityGroupRuleId": rule, "SecurityGroupRule": changed}],
            )
            return _source(one)
    open_port(account, names, id, Rule(network, SSH), text)
    return None


def own_rules(account: Account, id: str) -> dict[str, dict[str, Any]]:
    """Return the rules for SSH alone that bear our tag, by their ids."""
    return {
        rule["SecurityGroupRuleId"]: rule
        for rule in inbound(account, id)
        if rule.get("FromPort") == rule.get("ToPort") == SSH
        and any(one["Key"] == TAG for one in rule.get("Tags", []))
    }


def description(account: Account) -> str:
    """Say in a rule who is let in, and since when; other characters EC2 does not take."""
    who = re.sub(r"[^A-Za-z0-9 ._\-:/()#,@\[\]+=&;{}!$*]", "_", account.caller.name)
    return f"remote-mlflow: {who[:200]} {time.strftime('%Y-%m-%d', time.gmtime())}"


def open_port(account: Account, names: Names, id: str, rule: Rule, text: str = "") -> None:
    """Add an inbound rule; one that is there is as good."""
    one = permission(rule.network, text or f"remote-mlflow: {names.unit}", rule.port)
    tags = names.tagging("security-group-rule")
    patiently(lambda: allow(account, id, one, TagSpecifications=tags))


def remove(account: Account, id: str) -> None:
    """Remove a group, once nothing is attached to it any more."""
    from botocore.exceptions import ClientError

    try:
        patiently(
            lambda: account.client("ec2").delete_security_group(GroupId=id),
            seconds=120,
            ends=lambda error: code_of(error) == "DependencyViolation",
        )
    except ClientError as error:
        if code_of(error) not in ("InvalidGroup.NotFound", "InvalidGroupId.NotFound"):
            raise
