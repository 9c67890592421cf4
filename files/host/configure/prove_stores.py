"""Prove that both PostgreSQL databases can be reached, and that the server's role may make tables.

Runs on the host with the variables of server.env that name them. MLflow itself would try for
minutes, and say little.
"""

import os

import postgres
from talk import fail

TABLES = "has_schema_privilege(current_schema(), 'create')"

for variable in ("MLFLOW_BACKEND_STORE_URI", "AUTH_STORE_URI"):
    name = postgres.make_url(os.environ[variable]).database
    try:
        may = postgres.ask(os.environ[variable], "select " + TABLES)
    except postgres.Refused as error:
        fail(
            f"{error}. Fix `backend_store_uri:` in fabric.yaml, or give the role's password in "
            "PGPASSWORD, then type ./fab configure again. No database yet? ./fab postgres.install"
        )
    if not may:
        fail(
            f"The role may not make tables in the database {name}. Have its administrator type: "
            f"ALTER DATABASE {name} OWNER TO the role; then type ./fab configure again."
        )
