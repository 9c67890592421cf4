"""Read the users of the server, whatever they are kept in, and change nothing.

Staged beside the programs that import it; PostgreSQL is read in MLflow's environment alone.
"""

import databases


def rows(root, columns):
    """Return these columns of all users, admins first; raises postgres.Refused or sqlite3.Error."""
    query = f"select {columns} from users order by is_admin desc, username"
    return databases.rows(root, databases.AUTH, query)
