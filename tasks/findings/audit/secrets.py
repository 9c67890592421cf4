"""Secrets that others may read, or that stand where they should not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.findings.case import Remedy
from tasks.findings.server import readable_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.case import Case, Finding


def secrets(case: Case) -> Iterator[Finding]:
    yield from readable_secrets(case)
    for line in case.audited.secrets:
        kind, _, place = line.partition(" in ")
        yield case.finding(
            "secret-astray",
            f"{kind[:1].upper()}{kind[1:]} stands in {place}.",
            "the host looked for it; it is not shown",
            Remedy(
                "Take it out there, and give the server another: whoever has read it can use it."
            ),
        )
