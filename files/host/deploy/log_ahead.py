"""Have SQLite's databases write ahead before MLflow makes their tables: it never sets that.

Runs on the host's own Python.
"""

import dataclasses
import os
import sqlite3
from contextlib import closing

import databases
import talk
from fenced import fenced


@dataclasses.dataclass(frozen=True)
class Request:
    root: str


def main(root):
    for name, uri in databases.addresses(root).items():
        if uri.startswith("sqlite:"):
            try:
                path = databases.path(root, name)
                fenced([os.path.dirname(path)], lambda path=path: log_ahead(path))
            except sqlite3.Error as error:
                talk.fail(f"{name} cannot be used: {error}. See what to do: ./fab doctor")


def log_ahead(path):
    with closing(databases.opened(path, "rwc", timeout=20)) as base:
        base.execute("pragma journal_mode=wal")


main(talk.request(Request).root)
