"""What the audit's look at a host tells, as frozen values; beside the symptoms, and of one exec."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.engine.change import Change
from tasks.engine.templates import source, staged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.engine.settings import Settings

PROGRAMS = (
    "audit_secrets.py", "audit_passwords.py", "audit_users.py", "all_users.py", "databases.py",
    "postgres.py",
)  # fmt: skip


@dataclass(frozen=True)
class Audited:
    """One server's safety at one moment.

    `sshd` is what `sshd -T` says, `passworded` the accounts that have a password, `site` the lines
    of nginx's site that matter, `keys` private keys of certificates (mode, owner, path),
    `exposures` systemd's own figure for each unit, `packages` what is installed for MLflow, by
    name, and `unseen` the users that nginx's logs of so many `days` do not know.
    """

    looked: frozenset[str] = frozenset()
    blind: Mapping[str, str] = field(default_factory=dict)
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
    untried: int = 0
    unseen: tuple[str, ...] = ()
    days: int = 0


def auditing(settings: Settings) -> Change:
    """Build the look that follows that of `doctor` in the same exec."""
    files = staged(*PROGRAMS)
    return Change("audit", f"unit={settings.unit}\n{source('audit.sh')}", files)


def parse(reports: Sequence[str]) -> Audited:
    """Read the reports of the look; those that are the symptoms' are passed over."""
    found: dict[str, list[str]] = {}
    for report in reports:
        key, _, value = report.partition("\t")
        if value.strip():
            found.setdefault(key, []).append(value.strip())

    def data(key: str) -> Any:
        return json.loads(found[key][-1]) if key in found else {}

    passwords, users = data("passwords"), data("users")
    return Audited(
        looked=frozenset(found.get("looked", [])),
        blind=dict(_pair(line) for line in found.get("blind", [])),
        sshd=dict(_pair(line) for line in found.get("sshd", [])),
        passworded=tuple(" ".join(found.get("passworded", [])).split()),
        firewall="firewall" in found,
        upgrades="upgrader" in found and found.get("upgrades") == ["1"],
        site=tuple(found.get("site", [])),
        keys=tuple(_key(line) for line in found.get("key", [])),
        exposures=dict(_exposure(line) for line in found.get("exposure", [])),
        loose=tuple(found.get("loose", [])),
        secrets=tuple(dict.fromkeys(found.get("secret", []))),
        packages=dict(_package(line) for line in found.get("package", [])),
        weak=tuple(passwords.get("weak", ())),
        untried=passwords.get("of", 0) - passwords.get("tried", 0),
        unseen=tuple(users.get("unseen", ())),
        days=users.get("days", 0),
    )


def _pair(line: str) -> tuple[str, str]:
    first, _, rest = line.partition(" ")
    return first, rest


def _key(line: str) -> tuple[str, str, str]:
    mode, owner, path = line.split(" ", 2)
    return mode, owner, path


def _exposure(line: str) -> tuple[str, float]:
    figure, _, name = line.rpartition(" ")
    return name, float(figure) if figure else 10.0  # a unit that systemd cannot judge is open


def _package(line: str) -> tuple[str, str]:
    name, _, version = line.rpartition("-")
    return name.lower().replace("_", "-"), version
