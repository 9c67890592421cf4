"""Who can reach the host: SSH, firewall, listeners, updates of the system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.findings.case import Remedy
from tasks.findings.proxy import SERVERS, is_wide, open_doors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.engine.facts import Listener
    from tasks.findings.case import Case, Finding

RELOAD = "sudo systemctl reload ssh"

# In front of what the distribution's own files say: sshd goes by the first word that it reads.
DROP_IN = "/etc/ssh/sshd_config.d/00-remote-mlflow.conf"


def access(case: Case) -> Iterator[Finding]:
    yield from open_doors(case)
    yield from _ssh(case)
    yield from _listeners(case)
    # What is missing can be told only of what was looked at.
    if "doors" in case.looked:
        yield from _missing(case)


def _missing(case: Case) -> Iterator[Finding]:
    audited = case.audited
    if not audited.firewall:
        yield case.finding(
            "firewall-none",
            "The host has no firewall of its own.",
            "neither nft list ruleset nor iptables -S refuses anything",
            Remedy(
                "On EC2 the security group is one: open port 22 there, to your own address, and "
                "nothing else."
            ),
            severity="note",
        )
    if not audited.upgrades:
        yield case.finding(
            "upgrades-off",
            "Nothing installs the system's security updates by itself.",
            "apt-config: APT::Periodic::Unattended-Upgrade",
            Remedy(
                "It restarts no server of ours for an update of its own.",
                type=(
                    case.ssh(
                        "sudo apt-get install -y unattended-upgrades && "
                        'echo \'APT::Periodic::Update-Package-Lists "1";'
                        'APT::Periodic::Unattended-Upgrade "1";\' | '
                        "sudo tee /etc/apt/apt.conf.d/20auto-upgrades"
                    ),
                ),
            ),
            severity="note",
        )


def _ssh(case: Case) -> Iterator[Finding]:
    sshd, names = case.audited.sshd, ", ".join(case.audited.passworded)
    if sshd.get("permitrootlogin") == "yes":
        yield case.finding(
            "ssh-root",
            "root may log in by SSH, with a password too.",
            "sshd -T: permitrootlogin yes",
            Remedy(
                "Log in as another user who may sudo, before you type it.",
                type=(case.ssh(_drop_in("PermitRootLogin prohibit-password")),),
            ),
        )
    if sshd.get("passwordauthentication") == "yes" or sshd.get("permitemptypasswords") == "yes":
        yield case.finding(
            "ssh-password",
            f"SSH takes passwords{f', and there are some: {names}' if names else ''}.",
            "sshd -T: passwordauthentication yes; /etc/shadow",
            Remedy(
                "Everybody's key must be on the host before you type it.",
                type=(case.ssh(_drop_in("PasswordAuthentication no")),),
            ),
            # Without any account that has one there is nothing to guess yet.
            severity="problem" if names else "note",
        )


def _drop_in(line: str) -> str:
    return f"echo '{line}' | sudo tee -a {DROP_IN} && sudo sshd -t && {RELOAD}"


def _listeners(case: Case) -> Iterator[Finding]:
    for one in case.symptoms.listeners:
        if not is_wide(one) or one.program in (*SERVERS, "sshd") or _is_ours(case, one):
            continue
        yield case.finding(
            "listener-open",
            f"{one.program or 'A program'} (process {one.pid}) listens beyond the host, on "
            f"{one.address}.",
            "ss -ltnp",
            Remedy(
                "If nobody needs it from outside, have it listen on 127.0.0.1, or end it.",
                type=(case.ssh(f"ps -o user,lstart,args -p {one.pid}"),),
            ),
            severity="problem" if one.program in DATABASES else "note",
        )


# What keeps data and is rarely meant for a whole network.
DATABASES = ("postgres", "mysqld", "mariadbd", "redis-server", "mongod")


def _is_ours(case: Case, one: Listener) -> bool:
    ports = [str(case.settings.port), *(["80", "443"] if case.settings.public_name else [])]
    return one.program == "nginx" and one.address.rpartition(":")[2] in ports
