"""Have SQLite's databases write ahead before MLflow makes their tables: it never sets that.

Runs on the host's own Python.
"""

import dataclasses
import os
import sqlite3

import databases
import talk


@dataclasses.dataclass(frozen=True)
class Request:
    root: str


def main(root):
    for name, uri in databases.addresses(root).items():
        if uri.startswith("sqlite:"):
            try:
                base = sqlite3.connect(os.path.join(root, name), timeout=20)
                base.execute("pragma journal_mode=wal")
            except sqlite3.Error as error:
                talk.fail(f"{name} cannot be used: {error}. What to do about it says: ./fab doctor")


main(talk.request(Request).root)
