"""How an instance that was taken into care is reached: by a port, or through Session Manager."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import backup_keys, credentials, session_manager
from tasks.engine.hosts import server_on
from tasks.laptop.account import entry, instance
from tasks.laptop.account.steps import Step
from tasks.laptop.account.way import host_key

if TYPE_CHECKING:
    from tasks.laptop.account.adopted import Case

# Ubuntu's images have the agent as a snap; without the role it went to sleep, for up to an hour.
AGENT = """for unit in snap.amazon-ssm-agent.amazon-ssm-agent amazon-ssm-agent; do
  if systemctl cat "$unit" > /dev/null 2>&1; then sudo -n systemctl restart "$unit"; exit; fi
done
echo "There is no amazon-ssm-agent here. Ubuntu: sudo snap install amazon-ssm-agent --classic" >&2
exit 3"""


BEAT = 5  # seconds between two logins that are tried


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
