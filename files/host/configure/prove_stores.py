"""Prove that both PostgreSQL databases can be reached, and that the server's role may make tables.

Runs on the host with the variables of server.env that name them. MLflow itself would try for
minutes, and say little.
"""

import os
import sys

import postgres

TABLES = "has_schema_privilege(current_schema(), 'create')"

for variable in ("MLFLOW_BACKEND_STORE_URI", "AUTH_STORE_URI"):
    name = postgres.make_url(os.environ[variable]).database
    try:
        may = postgres.ask(os.environ[variable], "select " + TABLES)
    except postgres.Refused as error:
        print(
            "@fail %s. Mend `backend_store_uri:` in fabric.yaml, or give the role's password in "
            "PGPASSWORD, then type configure again. No database yet? ./fab postgres.install" % error
        )
        sys.exit(1)
    if not may:
        print(
            "@fail The role may not make tables in the database %s. Have its administrator type: "
            "ALTER DATABASE %s OWNER TO the role; then type configure again." % (name, name)
        )
        sys.exit(1)
