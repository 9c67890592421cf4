"""Say what of a server's instance, rights and bucket in the AWS account is not safe."""

from __future__ import annotations

import json as serialised
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import operator_policy
from tasks.engine.account_parts import TAG
from tasks.engine.console import confirm, console
from tasks.engine.records import dataclass
from tasks.engine.task import local
from tasks.engine.typed import typed, using
from tasks.findings.aws.bucket import bucket
from tasks.findings.aws.case import AccountCase, AccountFinding
from tasks.findings.aws.instance import instance as of_instance
from tasks.findings.aws.network import network
from tasks.findings.aws.rights import rights
from tasks.findings.diagnosis import Area, Diagnosis, diagnose, tell, verdict
from tasks.laptop.account import look as looking
from tasks.laptop.account.look import Look
from tasks.laptop.account.mend import MENDS
from tasks.laptop.account.refusals import in_our_words
from tasks.laptop.account.session import PROFILE, sign_in
from tasks.laptop.account.way import host, key_ids, way_to

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.engine.server import Server
    from tasks.engine.settings import Settings
    from tasks.engine.task import Local
    from tasks.laptop.account.session import Account
    from tasks.laptop.account.way import Way

NAMESPACE = "aws"

# Each with the parts of the look that it needs.
INSTANCE = {
    "network": Area(network, "rules"),
    "instance": Area(of_instance, "instance", "protection", "user data", "volumes", "type"),
    "rights": Area(rights, "role", "keys"),
}

BUCKET = {"bucket": Area(bucket, *looking.BUCKET)}

Found = list[tuple[AccountCase, Diagnosis]]


@dataclass(frozen=True)
class Where:
    """What is looked at: hosts or an instance's id, none for ours; and what mends what is found."""

    c: Local
    settings: Settings
    names: Sequence[str]
    fixing: str


@local(
    help={
        "instance": "the instance's id, where no host says which (i-0123456789abcdef0)",
        "profile": PROFILE,
        "json": "print JSON instead of lines",
        "fix": "do the safe repairs, after asking",
        "yes": "do not ask",
    }
)
def audit(
    c: Local,
    instance: str | None = None,
    profile: str | None = None,
    json: bool = False,
    fix: bool = False,
    yes: bool = False,
) -> None:
    """Look for what in the AWS account is not safe.

    Security groups, metadata, disks and user data of the instance; what its role or the keys on it
    may do; the bucket's versions, encryption, policy and lifecycle. Reads only, and needs no right:
    what may not be looked at is said. Exit code 1 where a problem was found, 2 where none was and
    not all was looked at; notes do not count. --fix does the repairs that cut nobody off.

    Example: fab aws.audit --fix
    """
    settings, hosts = c.place()
    names = [instance] if instance else hosts
    where = Where(c, settings, names, fixing(settings, hosts, instance, profile))
    with in_our_words(operator_policy.action):
        account = sign_in(settings, profile)
        console.say(f"looking at {account.described()}")
        found = examined(account, where)
        if fix and (safe := [one for _, each in found for one in each.found if _is_safe(one)]):
            show(found, json)
            repair(account, safe, where, yes)
            console.say("looked again:")
            found = examined(account, where)
        show(found, json)
    answer(found, settings, json)


def fixing(
    settings: Settings, hosts: Sequence[str], instance: str | None, profile: str | None
) -> str:
    """Spell what does the safe repairs where this looks."""
    named = ["--instance", instance] if instance else []
    asked = ["--profile", profile] if profile else []
    words = ["aws.audit", *named, *asked, "--fix"]
    if hosts:
        return typed(",".join(hosts), settings.environment, *words)
    return f"./fab {using(settings.environment)}{' '.join(words)}"


def answer(found: Found, settings: Settings, json: bool) -> None:
    """Print JSON where that is wanted; raises Exit where there is a problem."""
    rows = [
        {"host": case.name, "environment": settings.label, **plain(row)}
        for case, each in found
        for row in each.rows
    ]
    if json:
        console.answer(serialised.dumps(rows, indent=2))
    if refusal := verdict(rows):
        raise refusal


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave away of a finding what only doctor has."""
    return {key: value for key, value in row.items() if key not in ("script", "tasks")}


def show(found: Found, quiet: bool) -> None:
    """Print what was found, what was not looked at, and what is well."""
    console.tagged = True
    for case, diagnosis in found:
        if not quiet:
            tell(case.name, diagnosis, "in the account")


# -- looking -----------------------------------------------------------------------------------


def examined(account: Account, where: Where) -> Found:
    """Look at the hosts' instances and at the buckets; where no host is named, at ours by its tag.

    Raises Exit where a host is a rehearsal one, and botocore's exceptions.
    """
    cases = [instance_case(account, where, name) for name in where.names or [""]]
    named = (where.settings.bucket, where.settings.backup_bucket)
    buckets = [bucket_case(account, where, name) for name in dict.fromkeys(filter(None, named))]
    return [
        *((case, diagnose(case, INSTANCE)) for case in cases),
        *((case, diagnose(case, BUCKET)) for case in buckets or [bucket_case(account, where)]),
    ]


def instance_case(account: Account, where: Where, name: str) -> AccountCase:
    """Look at one instance, and from the host itself at the keys on it."""
    look, settings, server = Look(operator_policy.action), where.settings, host(where.c, name)
    address = server.connection.target.hostname if server else name
    if found := look.at("instance", lambda: _instance(account, settings, address)):
        looking.at_instance(account, look, found)
    else:
        look.parts.pop("instance", None)
        who = f"at {address}" if address else f"with the tag {TAG}={settings.unit}"
        missing = f"{account.region} has no instance {who}"
        look.cannot(look.blind.get("instance", missing), *looking.INSTANCE)
    if server:
        look_at_keys(account, look, server)
    look.cannot("which keys lie on a host, only the host knows: name it with -H", "keys")
    case = case_of(where, name or settings.unit, look)
    return replace(case, on_host=server is not None)


def case_of(where: Where, name: str, look: Look) -> AccountCase:
    """Put together what was seen under a name."""
    return AccountCase(
        name, where.settings, look.parts, look.blind, time.time(), fixing=where.fixing
    )


def _instance(account: Account, settings: Settings, address: str) -> dict[str, Any] | None:
    if address:
        return looking.find(account, address)
    return looking.tagged(account, TAG, settings.unit)


def look_at_keys(account: Account, look: Look, server: Server) -> None:
    """Note the keys that lie on the host; that needs SSH, and is no reason to end without it."""
    try:
        ids = key_ids(server)
    except Exit:
        look.cannot(f"./fab -H {server.name} status cannot reach the host either", "keys")
    else:
        looking.at_keys(account, look, ids)


def bucket_case(account: Account, where: Where, name: str = "") -> AccountCase:
    """Look at a bucket; one of another store than AWS is none of the account's."""
    look, settings = Look(operator_policy.action), where.settings
    if settings.endpoint_url:
        look.cannot(f"it is at {settings.endpoint_url}, not at AWS", *looking.BUCKET)
    elif not name:
        look.cannot("no `bucket:` is named in fabric.yaml", *looking.BUCKET)
    else:
        looking.at_bucket(account, look, name)
        look.parts.update(account=account.caller.account, home=account.region)
    return case_of(where, name or "the bucket", look)


# -- mending -----------------------------------------------------------------------------------


def _is_safe(finding: Any) -> bool:
    return isinstance(finding, AccountFinding) and finding.safe


def repair(account: Account, safe: Sequence[Any], where: Where, yes: bool) -> None:
    """Do the safe repairs, after saying which; one that is refused does not stop the others.

    Raises Exit where the answer is no.
    """
    console.say("--fix would do:")
    for finding in safe:
        console.say(f"  - {finding.key}: {finding.resource}")
    if not confirm("Do that?", yes):
        raise Exit("Nothing was changed.")
    way = _way(where) if any(finding.key == "ssh-open" for finding in safe) else None
    for finding in safe:
        try:
            with in_our_words(operator_policy.action):
                MENDS[finding.key](account, finding.resource, way)
        except Exit as error:
            console.warn(f"{finding.key}: {error.message}")
        else:
            console.say(f"✓ {finding.key}: {finding.resource}", style="green")


def _way(where: Where) -> Way | None:
    """Return how the operator gets to the first host that can be reached."""
    servers = [server for name in where.names if (server := host(where.c, name))]
    return next((way for server in servers if (way := way_to(server))), None)
