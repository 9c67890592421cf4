"""Print Python's version and what SQLite holds; facts.sh runs this with root and both addresses."""

import os
import stat
import sys
import time

until = time.time() + 20
LONGEST = 1_000_000  # bytes of a value or row; what is asked for has less than a hundred


def ask(path, **questions):
    """Print the answers; a database is opened once, for to read its schema takes longest."""
    if not os.path.exists(path):
        return
    import sqlite3  # Debian's smallest Python has none, nor a server

    database = None
    for key, question in questions.items():
        try:
            database = database or opened(sqlite3, path)
            value = database.execute(question).fetchone()[0]
        except (sqlite3.Error, TypeError) as error:
            key, value = key + "_error", error
        print(f"{key}\t{line(value)}")


def line(value):
    """Return what a database says as one short line, without spelling all of what is long."""
    if isinstance(value, (str, bytes)):
        value = value[:300]
    return "".join(letter if " " <= letter <= "~" else " " for letter in str(value)[:300])


def opened(sqlite3, path):
    if found := strange(os.path.realpath(path)):
        raise sqlite3.OperationalError(f"{found} is no file")
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)
    # The server's process may have written anything there.
    database.execute("pragma trusted_schema=off")
    if hasattr(database, "setlimit"):  # from Python 3.11
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    database.set_progress_handler(lambda: time.time() > until, 9999)
    return database


def strange(path):
    """Name a database, or what lies beside it, that is no file: SQLite would wait for a pipe."""
    for end in ("", "-wal", "-shm", "-journal"):
        try:
            mode = os.lstat(path + end).st_mode
        except OSError:
            continue
        if not stat.S_ISREG(mode):
            return os.path.basename(path) + end
    return None


def sizes_of(*paths):
    """Yield the bytes of the files that are there.

    SQLite may remove its own at any time, and the server's process lay links that lead nowhere.
    """
    for path in paths:
        try:
            yield os.path.getsize(path)
        except OSError:
            continue


def main(root, store, auth_store):
    print("python\t{}.{}.{}".format(*sys.version_info))
    tracking = os.path.realpath(os.path.join(root, "mlflow.db"))
    if not auth_store:
        ask(os.path.join(root, "basic_auth.db"), users="select count(*) from users")
    if store.startswith("postgres"):
        return
    # What lies in MLflow's bin is nobody's any more.
    active = "select count(*) from {} where lifecycle_stage = 'active'"
    ask(
        tracking,
        schema="select version_num from alembic_version",
        runs=active.format("runs"),
        experiments=active.format("experiments"),
    )
    sizes = [*sizes_of(tracking, tracking + "-wal")]
    if sizes:
        print(f"database_bytes\t{sum(sizes)}")


main(*sys.argv[1:])
