"""What can be wrong with a server: each finding says what, how it was seen, and what to type.

Pure functions of what was seen, one module a topic: every fault is a row in a table of tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tasks.findings.bucket import backup, bucket
from tasks.findings.case import Case, Finding, Here
from tasks.findings.client import client
from tasks.findings.database import database, users
from tasks.findings.host import host
from tasks.findings.proxy import nginx
from tasks.findings.server import environment, server, settings

__all__ = ["AREAS", "PARTS", "Case", "Finding", "Here", "diagnose", "unseen", "well"]

Look = Callable[[Case], Iterator[Finding]]
# In the order in which an operator would look: what others follow from comes first.
AREAS: dict[str, Look] = {
    "host": host,
    "environment": environment,
    "database": database,
    "nginx": nginx,
    "server": server,
    "users": users,
    "bucket": bucket,
    "backup": backup,
    "settings": settings,
    "client": client,
}

# Which part of the look an area needs; the others need none.
PARTS = {
    "host": "system",
    "environment": "environment",
    "database": "databases",
    "nginx": "nginx",
    "server": "service",
    "users": "databases",
    "bucket": "bucket",
    "backup": "bucket",
}


def diagnose(case: Case) -> list[Finding]:
    """List all that is wrong, problems first; within them what other things may follow from."""
    found = [finding for area, look in AREAS.items() for finding in look(replace(case, area=area))]
    return sorted(found, key=lambda finding: finding.severity == "note")


def well(case: Case, found: list[Finding]) -> list[str]:
    """Name the areas that were looked at and have no finding."""
    ill = {finding.area for finding in found}
    return [area for area in AREAS if area not in ill and not unseen(case, area)]


def unseen(case: Case, area: str) -> bool:
    """Tell whether an area could not be looked at."""
    if area == "database" and not case.sqlite:
        return case.facts.schema is None and case.facts.schema_error is None
    return area in PARTS and PARTS[area] not in case.symptoms.looked
