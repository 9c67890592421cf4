"""What is not as safe as it could be: each finding says what, how it was seen, and a remedy.

What `doctor` finds as well is found by its own functions, so that it has one key and one remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tasks.findings.audit.access import access
from tasks.findings.audit.case import Audit
from tasks.findings.audit.secrets import secrets
from tasks.findings.audit.tls import tls
from tasks.findings.audit.units import units
from tasks.findings.audit.users import users
from tasks.findings.audit.versions import versions
from tasks.findings.bucket import backup
from tasks.findings.case import Finding

__all__ = ["AREAS", "PARTS", "Audit", "examine", "unseen", "well"]

Look = Callable[[Audit], Iterator[Finding]]
AREAS: dict[str, Look] = {
    "access": access,
    "tls": tls,
    "units": units,
    "secrets": secrets,
    "versions": versions,
    "users": users,
    "backup": backup,
}
# Which parts of the look an area needs, those of the doctor's look among them.
PARTS = {
    "access": ("doors", "system"),
    "tls": ("site",),
    "units": ("units",),
    "secrets": ("secrets", "system"),
    "versions": ("packages",),
    "users": ("passwords", "users", "databases"),
    "backup": ("bucket",),
}


def examine(case: Audit) -> list[Finding]:
    """List all findings, problems first."""
    found = [finding for area, look in AREAS.items() for finding in look(replace(case, area=area))]
    return sorted(found, key=lambda finding: finding.severity == "note")


def unseen(case: Audit, area: str) -> list[str]:
    """Name the parts of an area that could not be looked at."""
    looked = case.symptoms.looked | case.audited.looked
    return [part for part in PARTS[area] if part not in looked]


def well(case: Audit, found: list[Finding]) -> list[str]:
    """Name the areas that were looked at and have no finding."""
    ill = {finding.area for finding in found}
    return [area for area in AREAS if area not in ill and not unseen(case, area)]
