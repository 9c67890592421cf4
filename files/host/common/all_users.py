"""Read the users of the server, whatever they are kept in, and change nothing.

Runs on the host in MLflow's environment, beside the programs that import it.
"""

import sqlite3
from contextlib import closing

from databases import AUTH, addresses


def rows(root, columns):
    """Return these columns of all users, admins first; raises postgres.Refused or sqlite3.Error."""
    query = f"select {columns} from users order by is_admin desc, username"
    uri = addresses(root)[AUTH]
    if uri.startswith("postgres"):
        import postgres

        with postgres.connected(uri) as base:
            return [tuple(row) for row in base.exec_driver_sql(query)]
    file = uri[len("sqlite:///") :]
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as base:
        return base.execute(query).fetchall()
