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

# The rows that count; what MLflow's migrations write down by themselves does not.
ANY = "select 1 from {} limit 1"
OTHERS = {
    "workspaces": "select 1 from {} where name is not 'default' limit 1",
    **dict.fromkeys(databases.REVISIONS.values(), "select 1 from {} where false"),
}


@dataclasses.dataclass(frozen=True)
class Request:
    root: str


def main(root):
    for name, uri in databases.addresses(root).items():
        path = databases.path(root, name)
        if uri.startswith("sqlite:") and os.path.exists(path):
            # Why one cannot be read or removed says whoever needs it next.
            with suppress(sqlite3.Error, OSError):
                fenced([os.path.dirname(path)], lambda path=path: forget_unmade(path))


def forget_unmade(path):
    with closing(databases.opened(path, "rw", timeout=20)) as base:
        if any(holds_rows(base, table) for table in databases.tables(base)):
            return
    talk.say(f"make {os.path.basename(path)} anew, which holds nothing yet")
    for end in reversed(databases.COMPANIONS):
        with suppress(FileNotFoundError):
            os.unlink(path + end)


def holds_rows(base, table):
    query = OTHERS.get(table, ANY).format(databases.quoted(table))
    return base.execute(query).fetchone() is not None


main(talk.request(Request).root)
