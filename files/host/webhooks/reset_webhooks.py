"""Name the webhooks whose secret the server cannot read, and take these secrets away.

Runs on the host in MLflow's environment, with the variables of server.env; MLflow itself answers
every question about such a webhook with an error. One without its secret would call unsigned, so it
is disabled until it has another. Reports {"webhooks": [{"id", "name"}]}.
"""

import dataclasses
import os
import sqlite3
from contextlib import closing

import databases
import postgres
import talk
import webhooks
from fenced import fenced

# Only what was looked at: a new secret may have come in between.
TAKE = (
    "update webhooks set secret = null, status = 'DISABLED' where webhook_id = %s and secret = %s"
)


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's folder; the ids of those that are meant, where anything is to be changed."""

    root: str
    ids: list


def take(root, id, secret):
    uri = databases.addresses(root)[databases.TRACKING]
    if uri.startswith("postgres"):
        postgres.change(uri, TAKE, (id, secret))
        return
    file = databases.path(root, databases.TRACKING)
    fenced([os.path.dirname(file)], lambda: update(file, (id, secret)))


def update(file, values):
    with closing(databases.opened(file, "rw", timeout=20)) as base, base:
        base.execute(TAKE.replace("%s", "?"), values)


def main(root, ids):
    found = webhooks.unreadable(root)
    for id, _, secret in found:
        if id in ids:
            take(root, id, secret)
    talk.report({"webhooks": webhooks.named(found)})


if __name__ == "__main__":
    asked = talk.request(Request)
    try:
        main(asked.root, asked.ids)
    except (postgres.Refused, sqlite3.Error) as error:
        talk.fail(f"The database cannot be asked: {error}. See what is wrong: ./fab doctor")
