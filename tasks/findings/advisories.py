"""Which of the packages that serve have known vulnerabilities."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tasks.engine.console import console
from tasks.engine.records import dataclass
from tasks.engine.templates import read

if TYPE_CHECKING:
    from collections.abc import Mapping

# The database that pip-audit asks with `-s osv`; one request for all packages.
# https://google.github.io/osv.dev/post-v1-querybatch/
DATABASE = "https://api.osv.dev/v1/querybatch"

PATIENCE = 5.0  # seconds

FLOORS = "advisories.txt"


@dataclass(frozen=True)
class Advisory:
    """One package that serves, and what is known of its version."""

    package: str
    version: str
    name: str
    words: str = ""


@dataclass(frozen=True)
class Advisories:
    """What was found, and by which source."""

    found: tuple[Advisory, ...] = ()
    source: str = "nothing"


def advisories(packages: Mapping[str, str]) -> Advisories:
    """Look packages (name to version) up, or go by the floors where no database is reached."""
    if not packages:
        return Advisories((), "nothing is installed")
    try:
        return Advisories(tuple(asked(packages)), "osv.dev")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)  # urllib's own hides it
        console.head(f"no database of advisories was reached ({reason}); going by files/{FLOORS}")
        return Advisories(tuple(below_floors(packages)), f"files/{FLOORS}")


def asked(packages: Mapping[str, str]) -> list[Advisory]:
    """Ask the database; raises OSError or ValueError where it gives no answer."""
    import urllib.request

    queries = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
        for name, version in packages.items()
    ]
    request = urllib.request.Request(
        DATABASE, json.dumps({"queries": queries}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        results = json.load(answer)["results"]
    return [
        Advisory(name, version, one["id"])
        for (name, version), result in zip(packages.items(), results, strict=True)
        for one in dict(result).get("vulns", [])
    ]


def below_floors(packages: Mapping[str, str]) -> list[Advisory]:
    """Compare with the floors that are known here."""
    return [
        Advisory(name, packages[name], advisory, words)
        for name, floor, advisory, words in floors()
        if name in packages and number(packages[name]) < number(floor)
    ]


def floors() -> list[tuple[str, str, str, str]]:
    """Read the floors: package, version, advisory, words."""
    rows = [
        line.split("\t") for line in read(FLOORS).splitlines() if line and not line.startswith("#")
    ]
    return [(name, version, advisory, words) for name, version, advisory, words in rows]


def number(version: str) -> tuple[int, ...]:
    """Read a version's leading numbers, for comparing releases."""
    parts = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)
