"""Who on the internet reaches the instance: its security groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.findings.aws.case import AccountCase
    from tasks.findings.case import Finding

SSH = 22

Rule = dict[str, Any]


def network(case: AccountCase) -> Iterator[Finding]:
    for rule in case.parts.get("rules", []):
        if world := open_to(rule):
            yield from _open(case, rule, world)
        elif case.settings.access == "ssm" and is_for_ssh(rule):
            yield _needless(case, rule)


def open_to(rule: Mapping[str, Any]) -> str:
    """Return the range of everybody that an inbound rule lets in; nothing for any other rule."""
    if rule.get("IsEgress"):
        return ""
    wanted = (rule.get("CidrIpv4"), rule.get("CidrIpv6"))
    return next((str(one) for one in wanted if one in ("0.0.0.0/0", "::/0")), "")


def covers(rule: Mapping[str, Any], port: int) -> bool:
    """Tell whether an inbound rule lets TCP through to a port."""
    if rule["IpProtocol"] == "-1":
        return True
    return rule["IpProtocol"] == "tcp" and rule["FromPort"] <= port <= rule["ToPort"]


def alone(rule: Mapping[str, Any], port: int) -> bool:
    """Tell whether it is for this port and no other."""
    return rule["IpProtocol"] == "tcp" and rule["FromPort"] == rule["ToPort"] == port


def is_for_ssh(rule: Mapping[str, Any]) -> bool:
    """Tell whether an inbound rule is for SSH and nothing else."""
    return not rule.get("IsEgress") and alone(rule, SSH)


def ports(rule: Mapping[str, Any]) -> str:
    """Name what a rule opens."""
    if rule["IpProtocol"] == "-1":
        return "everything"
    first, last = rule["FromPort"], rule["ToPort"]
    return f"{rule['IpProtocol']} {first if first == last else f'{first}-{last}'}"


def revoking(rule: Mapping[str, Any]) -> str:
    """Spell what takes an inbound rule away."""
    return (
        f"aws ec2 revoke-security-group-ingress --group-id {rule['GroupId']} "
        f"--security-group-rule-ids {rule['SecurityGroupRuleId']}"
    )


def _needless(case: AccountCase, rule: Rule) -> Finding:
    source = rule.get("CidrIpv4") or rule.get("CidrIpv6") or "another group"
    return case.finding(
        "ssh-needless",
        "With `access: ssm` nobody needs a rule for SSH.",
        f"rule {rule['SecurityGroupRuleId']} of {rule['GroupId']}: tcp 22 from {source}",
        Remedy(
            "./fab aws.adopt takes it away once Session Manager is proved; or by hand:",
            type=(revoking(rule),),
            safe=False,
        ),
        severity="note",
        resource=rule["SecurityGroupRuleId"],
    )


def _narrowing(case: AccountCase, rule: Rule, revoke: str) -> Remedy:
    if not alone(rule, SSH):
        words = "It opens more than SSH: let your own address in first, then take it away."
        return Remedy(words, type=(revoke,))
    words = "Let your own address in instead."
    if not case.on_host:
        return Remedy(f"{words} --fix does it where the host is named with -H.", safe=False)
    return Remedy(f"{words} {case.mends}")


def _open(case: AccountCase, rule: Rule, world: str) -> Iterator[Finding]:
    id, group, port = rule["SecurityGroupRuleId"], rule["GroupId"], case.settings.port
    seen = f"rule {id} of {group}: {ports(rule)} from {world}"
    revoke = revoking(rule)
    ours = [SSH, port, *((80, 443) if case.settings.public_name else ())]
    if covers(rule, SSH):
        yield case.finding(
            "ssh-open",
            "Everybody may try to log in by SSH.",
            seen,
            _narrowing(case, rule, revoke),
            resource=id,
            check="ec2_instance_port_ssh_exposed_to_internet",
        )
    if covers(rule, port):
        # What serves there may be a server of the guide's that listens on all addresses.
        yield case.finding(
            "server-open",
            f"Everybody reaches port {port}, past TLS and the tunnel.",
            seen,
            Remedy(
                "Clients use ./fab tunnel or tls.enable; then nobody needs the rule.",
                type=(revoke,),
                safe=False,
            ),
            resource=id,
        )
    if not any(covers(rule, one) for one in ours):
        web = any(alone(rule, one) for one in (80, 443))
        why = "Only a server with a `public_name` needs it." if web else "If nobody needs it:"
        yield case.finding(
            "port-open",
            f"Everybody reaches {ports(rule)}.",
            seen,
            Remedy(why, type=(revoke,), safe=False),
            severity="note",
            resource=id,
        )
