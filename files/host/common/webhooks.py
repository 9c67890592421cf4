"""Tell which secrets of webhooks the server can read, and decrypt none of them.

Runs on the host in MLflow's environment, beside the programs that import it. MLflow encrypts them
by Fernet (https://github.com/fernet/spec), which puts a signature behind each: the first half of
the key that made it verifies that. One that it cannot read keeps MLflow from listing any webhook,
and from calling those of the same event.
"""

import base64
import hashlib
import hmac
import os

import databases
import talk

KEY = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
SIGNATURE = 32  # bytes
LONGEST = 80  # characters of a name that are told
LIVING = (
    "select webhook_id, name, secret from webhooks "
    "where deleted_timestamp is null and secret is not null order by name, webhook_id"
)


def unreadable(root):
    """Return id, name and secret, still encrypted, of each that this server's key did not make.

    Needs the variables of server.env. Raises postgres.Refused or sqlite3.Error.
    """
    if not databases.has_table(root, databases.TRACKING, "webhooks"):
        return []  # MLflow before 3.3
    key = os.environ.get(KEY, "")
    rows = databases.rows(root, databases.TRACKING, LIVING)
    return [row for row in rows if not is_readable(str(row[2]), key)]


def is_readable(secret, key):
    """Tell whether a key made what a secret became."""
    try:
        token, key = base64.urlsafe_b64decode(secret), base64.urlsafe_b64decode(key)
    except ValueError:
        return False
    made = hmac.new(key[:16], token[:-SIGNATURE], hashlib.sha256).digest()
    return hmac.compare_digest(made, token[-SIGNATURE:])


def named(rows):
    """Return id and name of each for people: what stands in a database may be anything."""
    return [
        {"id": talk.printable(id, longest=LONGEST), "name": talk.printable(name, longest=LONGEST)}
        for id, name, _ in rows
    ]
