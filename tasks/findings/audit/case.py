"""All that was seen of one server's safety."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.findings.advisories import Advisories
from tasks.findings.case import Case
from tasks.findings.safety import Audited


@dataclass(frozen=True)
class Audit(Case):
    """What doctor sees, and what the audit's own look adds."""

    audited: Audited = field(default_factory=Audited)
    advisories: Advisories = field(default_factory=lambda: Advisories((), "nothing"))
