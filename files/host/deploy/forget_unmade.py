"""Remove databases that hold nothing yet, before a server that was never seen well starts.

A host that loses power while MLflow makes its first tables is left with some of them, with which
MLflow does not go on. Runs on the host's own Python, while the server is stopped.
"""

import dataclasses
import os
import sqlite3
from contextlib import closing, suppress

import databases
import talk
from fenced import fenced

# What MLflow's migrations write down by themselves.
OWN = ("workspaces", *databases.REVISIONS.values())


@dataclasses.dataclass(frozen=True)
class Request:
    root: str


def main(root):
    for name, uri in databases.addresses(root).items():
        path = databases.path(root, name)
        if uri.startswith("sqlite:") and os.path.exists(path):
            # Why one cannot be read says whoever needs it next.
            with suppress(sqlite3.Error):
                fenced([os.path.dirname(path)], lambda path=path: forget_unmade(path))


def forget_unmade(path):
    with closing(databases.opened(path, "rw", timeout=20)) as base:
        if any(holds_rows(base, table) for table in databases.tables(base) if table not in OWN):
            return
    for end in reversed(databases.COMPANIONS):
        with suppress(FileNotFoundError):
            os.unlink(path + end)


def holds_rows(base, table):
    query = f"select 1 from {databases.quoted(table)} limit 1"
    return base.execute(query).fetchone() is not None


main(talk.request(Request).root)
