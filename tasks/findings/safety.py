"""What the audit's look at a host tells, as frozen values; beside the symptoms, and of one exec."""

from __future__ import annotations

import json
from dataclasses import field
from typing import TYPE_CHECKING

from tasks.engine.change import Change
from tasks.engine.records import dataclass
from tasks.engine.templates import requested, source, staged
from tasks.findings.reports import Reports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.engine.settings import Settings

PASSWORDS = 0.4  # of the seconds that a part may take, what goes to trying passwords


@dataclass(frozen=True)
class Audited:
    """One server's safety at one moment; which parts were looked at is among the symptoms.

    `sshd` is what `sshd -T` says, `passworded` the accounts that have a password, `site` the lines
    of nginx's site that matter, `keys` private keys of certificates (mode, owner, path),
    `exposures` systemd's own figure for each unit, `packages` what is installed for MLflow, by
    name, `unseen` the users that nginx's logs of so many `days` do not know, and `places` what lies
    where no login may put it: for each kind a count and the first of them.
    """

    sshd: Mapping[str, str] = field(default_factory=dict)
    passworded: tuple[str, ...] = ()
    firewall: bool = False
    upgrades: bool = False
    site: tuple[str, ...] = ()
    keys: tuple[tuple[str, str, str], ...] = ()
    exposures: Mapping[str, float] = field(default_factory=dict)
    loose: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    weak: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    days: int = 0
    places: Mapping[str, Any] = field(default_factory=dict)


def auditing(settings: Settings, patience: int) -> Change:
    """Build the look that follows that of `doctor` in the same exec, as patient as that one."""
    files = staged("audit_secrets.py", "audit_users.py")
    files |= requested("audit_passwords.py", patience=PASSWORDS * patience)
    files |= requested(
        "audit_places.py", bucket=settings.bucket or "", prefix=settings.artifact_prefix
    )
    return Change("audit", f"unit={settings.unit}\n{source('audit.sh')}", files)


def parse(reports: Sequence[str]) -> Audited:
    """Read the reports of the look; those that are the symptoms' are passed over."""
    # What the host could not tell is an empty word.
    found = Reports(line for line in reports if line.partition("\t")[2].strip())
    passwords, users = found.data("passwords", {}), found.data("users", {})
    return Audited(
        sshd=dict(found.pairs("sshd")),
        passworded=tuple(" ".join(found.all("passworded")).split()),
        firewall="firewall" in found,
        upgrades="upgrader" in found and found.all("upgrades") == ["1"],
        site=tuple(found.all("site")),
        keys=tuple(_key(line) for line in found.all("key")),
        exposures=dict(_exposure(line) for line in found.all("exposure")),
        loose=tuple(found.all("loose")),
        secrets=tuple(dict.fromkeys(map(json.loads, found.all("secret")))),
        packages=dict(_package(line) for line in found.all("package")),
        weak=tuple(passwords.get("weak", ())),
        unseen=tuple(users.get("unseen", ())),
        days=users.get("days", 0),
        places=found.data("places", {}),
    )


def _key(line: str) -> tuple[str, str, str]:
    mode, owner, path = line.split(" ", 2)
    return mode, owner, path


def _exposure(line: str) -> tuple[str, float]:
    figure, _, name = line.rpartition(" ")
    return name, float(figure) if figure else 10.0  # a unit that systemd cannot judge is open


def _package(line: str) -> tuple[str, str]:
    name, _, version = line.rpartition("-")
    return name.lower().replace("_", "-"), version
