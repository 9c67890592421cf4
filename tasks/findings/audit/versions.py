"""Releases with known vulnerabilities."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.case import Case, Finding


def versions(case: Case) -> Iterator[Finding]:
    source = case.advisories.source
    found = sorted(case.advisories.found, key=lambda one: one.package)
    for package, group in groupby(found, key=lambda one: one.package):
        known = list(group)
        names = ", ".join(f"{one.name}{f' ({one.words})' if one.words else ''}" for one in known)
        ours = package == "mlflow"
        yield case.finding(
            "vulnerable",
            f"{package} {known[0].version} has known vulnerabilities: {names}.",
            f"the packages in {case.facts.root}/venv, looked up in {source}",
            Remedy(
                "" if ours else "A newer release of MLflow here brings a newer set of packages.",
                type=(case.fab("upgrade", "--check"),),
            ),
            # A package beside MLflow may have what the server never uses.
            severity="problem" if ours else "note",
        )
