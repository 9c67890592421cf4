"""Let one server of a PostgreSQL database make its tables and its first user while others wait.

Runs on the host in MLflow's environment, with the variables of server.env. Prints "first" and holds
the database's lock for as long as its standard input is open; "there" where all is made already;
"wait" before it waits. The lock goes with the process, whatever becomes of it.
"""

import os
import sys

import postgres
from sqlalchemy import text
from talk import fail

LOCK = 0x6D6C6673  # "mlfs"


def made(database):
    """Tell whether the database of users has one."""
    if database.execute(text("select to_regclass('users')")).scalar() is None:
        return False
    return bool(database.execute(text("select count(*) from users")).scalar())


def main():
    with postgres.connected(os.environ["AUTH_STORE_URI"], isolation_level="AUTOCOMMIT") as database:
        if not database.execute(text(f"select pg_try_advisory_lock({LOCK})")).scalar():
            print("wait", flush=True)
            database.execute(text(f"select pg_advisory_lock({LOCK})"))
        if made(database):
            print("there", flush=True)
            return
        print("first", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    try:
        main()
    except postgres.Refused as error:
        fail(str(error))
