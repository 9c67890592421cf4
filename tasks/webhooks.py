"""Have webhooks be listed and called again whose secrets a lost key left unreadable."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.presence import refuse_absent
from tasks.changes.webhooks import resetting
from tasks.engine.task import remote

if TYPE_CHECKING:
    from tasks.engine.task import Host

NAMESPACE = "webhooks"

CONSEQUENCE = (
    "MLflow lists and calls webhooks again; these are disabled until they have another secret."
)


@remote(once=True, help={"yes": "do not ask"})
def reset(c: Host, yes: bool = False) -> None:
    """Take secrets off webhooks that no key can read.

    A webhook's secret can be read with the key of server.env that it was written under alone; with
    another one MLflow lists no webhook at all. Where you still have that key, put it into
    server.env and restart instead. Without, this takes the secret of just these webhooks away, and
    disables them: they would call unsigned.

    Example: fab -H ec2 webhooks.reset
    """
    server = c.server
    refuse_absent(server)
    found = json.loads(server.look("webhooks.reset", [resetting()])[-1])["webhooks"]
    if not found:
        server.say("webhooks.reset: nothing to change, every secret can be read")
        return
    for hook in found:
        server.say(f"  {hook['name']} ({hook['id']})")
    secrets = "its secret" if len(found) == 1 else "their secrets"
    if not server.confirm(f"Take {secrets} away on {server.place}?", yes, CONSEQUENCE):
        raise Exit("Nothing was changed.")
    ids = [hook["id"] for hook in found]
    server.apply("webhooks.reset", [resetting(ids)], decided=False)
    server.say("✓ done. A new secret, by an admin, in Python:", "green")
    for id in ids:
        server.say(f'  mlflow.MlflowClient().update_webhook("{id}", secret="…", status="ACTIVE")')
