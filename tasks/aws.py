"""What AWS must allow for a server, and whoever looks after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.console import console
from tasks.engine.task import local

if TYPE_CHECKING:
    from tasks.engine.task import Local

NAMESPACE = "aws"


@local(
    help={
        "role": "artifacts, backups or both (default): which of the host's credentials it is for",
        "operator": "instead, what whoever types aws.* needs",
    }
)
def policy(c: Local, role: str = "both", operator: bool = False) -> None:
    """Print the least policy that a server needs, as JSON.

    From the calls that the host makes, and nothing else; needs no account. Bucket and prefixes are
    the settings'; without a bucket there is a placeholder. artifacts is for the server alone where
    backups have credentials of their own.

    Example: fab aws.policy --role both
    """
    from tasks.changes import operator_policy
    from tasks.changes import policy as host_policy

    settings, _ = c.place()
    if operator:
        console.answer(host_policy.text(operator_policy.document(settings)))
        return
    chosen = next((one for one in host_policy.ROLES if one == role), None)
    if chosen is None:
        raise Exit(f"--role is {role!r}. Give one of: {', '.join(host_policy.ROLES)}")
    console.answer(host_policy.text(host_policy.document(settings, chosen)))
