"""Print Python's version and what SQLite holds; facts.sh runs this with root and both addresses."""

import contextlib
import os
import stat
import sys
import time

until = time.time() + 20


def ask(path, key, query):
    if not os.path.exists(path):
        return
    import sqlite3  # Debian's smallest Python has none, nor a server

    try:
        if found := strange(os.path.realpath(path)):
            raise sqlite3.OperationalError(f"{found} is no file")
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)
        # The server's process may have written anything there.
        database.execute("pragma trusted_schema=off")
        database.set_progress_handler(lambda: time.time() > until, 9999)
        value = database.execute(query).fetchone()[0]
    except (sqlite3.Error, TypeError) as error:
        key, value = key + "_error", error
    line = "".join(letter if " " <= letter <= "~" else " " for letter in str(value))
    print(f"{key}\t{line[:300]}")


def strange(path):
    """Name what lies beside a database and is no file: SQLite would wait for a pipe."""
    for end in ("-wal", "-shm", "-journal"):
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.lstat(path + end).st_mode):
                return os.path.basename(path) + end
    return None


def sizes_of(*paths):
    """Yield the bytes of the files that are there.

    SQLite may remove its own at any time, and the server's process lay links that lead nowhere.
    """
    for path in paths:
        with contextlib.suppress(OSError):
            yield os.path.getsize(path)


def main(root, store, auth_store):
    print("python\t{}.{}.{}".format(*sys.version_info))
    tracking = os.path.realpath(os.path.join(root, "mlflow.db"))
    if not auth_store:
        ask(os.path.join(root, "basic_auth.db"), "users", "select count(*) from users")
    if store.startswith("postgres"):
        return
    ask(tracking, "schema", "select version_num from alembic_version")
    # What lies in MLflow's bin is nobody's any more.
    for table in ("runs", "experiments"):
        ask(tracking, table, f"select count(*) from {table} where lifecycle_stage = 'active'")
    sizes = [*sizes_of(tracking, tracking + "-wal")]
    if sizes:
        print(f"database_bytes\t{sum(sizes)}")


main(*sys.argv[1:])
