"""Look for webhooks whose secret the server cannot read.

Runs on the host in MLflow's environment, with the variables of server.env. Reports `webhooks`:
{"count": n, "first": [{"id", "name"}]}; never a secret.
"""

import dataclasses

import talk
import webhooks

FIRST = 5  # enough to know them by; `webhooks.reset` names all


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's folder."""

    root: str


found = webhooks.unreadable(talk.request(Request).root)
report = {"count": len(found), "first": webhooks.named(found[:FIRST])}
talk.report(report, key="webhooks")
