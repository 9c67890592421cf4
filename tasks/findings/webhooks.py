"""Findings about webhooks whose secrets the server cannot read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.facts import SECRET_KEY, WEBHOOK_KEY
from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.case import Case, Finding


def webhooks(case: Case) -> Iterator[Finding]:
    """Find a key that is not there, and secrets that another one made."""
    keyless = WEBHOOK_KEY not in case.facts.server_env
    if keyless and SECRET_KEY in case.facts.server_env:
        yield case.finding(
            "webhook-key-missing",
            "The server makes another key for webhooks' secrets at each start: those that are "
            "written now cannot be read after the next one.",
            f"{case.facts.root}/server.env names no {WEBHOOK_KEY}",
            Remedy(tasks=("deploy",)),
            "note",
        )
    count = case.symptoms.webhooks.get("count", 0)
    if count:
        first = [f"{hook['name']} ({hook['id']})" for hook in case.symptoms.webhooks["first"]]
        more = f" and {count - len(first)} more" if count > len(first) else ""
        yield case.finding(
            "unreadable-webhooks",
            f"MLflow lists no webhooks, and calls none of these events: the secret of "
            f"{', '.join(first)}{more} was written under another key.",
            f"the signatures in the database, checked with {WEBHOOK_KEY} of server.env",
            Remedy(
                f"Where you have the former key, put it into server.env ({WEBHOOK_KEY}=…) and "
                "restart. Where not:",
                tasks=("deploy", "webhooks.reset") if keyless else ("webhooks.reset",),
                safe=False,
            ),
        )
