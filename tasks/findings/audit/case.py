"""All that was seen of one server's safety."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.advisories import Advisories
from tasks.audited import Audited
from tasks.findings.case import Case


@dataclass(frozen=True)
class Audit(Case):
    """What doctor sees, and what the audit's own look adds."""

    audited: Audited = field(default_factory=Audited)
    advisories: Advisories = field(default_factory=lambda: Advisories((), "nothing"))
