"""Print Python's version and what SQLite holds; facts.sh runs this with root and both addresses."""

import contextlib
import os
import sys
import time

until = time.time() + 20


def ask(path, key, query):
    if not os.path.exists(path):
        return
    import sqlite3  # Debian's smallest Python has none, nor a server

    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)
        # The server's process may have written anything there.
        database.execute("pragma trusted_schema=off")
        database.set_progress_handler(lambda: time.time() > until, 9999)
        value = database.execute(query).fetchone()[0]
    except (sqlite3.Error, TypeError) as error:
        key, value = key + "_error", error
    line = "".join(letter if " " <= letter <= "~" else " " for letter in str(value))
    print(f"{key}\t{line[:300]}")


def sizes_of(*paths):
    """Yield the bytes of the files that are there: SQLite may remove its own at any time."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
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
