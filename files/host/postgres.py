"""Dump, restore and count a PostgreSQL backend store by its own tools.

Runs on the host. The password travels in the programs' environment, which only their user and
root can read, never in a command line.
"""

import contextlib
import os
import shutil
import subprocess

import databases
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError


class Refused(Exception):
    """What PostgreSQL or its tools say."""


def environment(uri):
    """Spell a SQLAlchemy URI, with its options such as sslmode, in libpq's own variables."""
    url = make_url(uri)
    values = {
        "PGHOST": url.host,
        "PGPORT": url.port and str(url.port),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        **{"PG" + key.upper(): value for key, value in url.query.items()},
    }
    return os.environ | {key: value for key, value in values.items() if value}


def run(program, *words, uri):
    """Run one of PostgreSQL's programs; raises Refused with what it says."""
    if shutil.which(program) is None:
        raise Refused("the host lacks %s (apt install postgresql-client)" % program)
    done = subprocess.run(
        [program, "--no-password", *words], env=environment(uri), capture_output=True, text=True
    )
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()
        raise Refused("%s says: %s" % (program, said[-1]))


def size(uri):
    """Return the bytes of the database on the server."""
    return ask(uri, "select pg_database_size(current_database())")


def ask(uri, query):
    with connected(uri) as connection:
        return connection.execute(text(query)).scalar()


@contextlib.contextmanager
def connected(uri, **options):
    """Connect as MLflow does; raises Refused with what PostgreSQL says."""
    try:
        engine = create_engine(uri, **options)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        raise Refused("PostgreSQL cannot be asked: %s" % said.splitlines()[0]) from None


def dump(uri, name, folder):
    """Dump a database as it is at one moment; returns the file and what it holds.

    `name` is what its SQLite file would be called. The counts come from the dump's own snapshot.
    """
    path = os.path.join(folder, name.replace(".db", ".dump"))
    with connected(uri, isolation_level="REPEATABLE READ") as connection:
        snapshot = connection.execute(text("select pg_export_snapshot()")).scalar()
        words = ("-Fc", "-Z", "1", "--snapshot", snapshot, "--file", path)
        run("pg_dump", *words, uri=uri)
        seen = described(connection, name)
    # A dump that cannot be listed cannot be restored.
    run("pg_restore", "--list", "--file", os.devnull, path, uri=uri)
    return path, seen | {"bytes": os.path.getsize(path)}


def described(connection, name):
    """Say what a database holds: revision, rows of every table, the newest run's start."""
    tables = connection.execute(
        text("select tablename from pg_tables where schemaname = current_schema()")
    ).scalars()
    counts = {
        table: connection.execute(text('select count(*) from "%s"' % table)).scalar()
        for table in tables
    }
    ask = lambda query: connection.execute(text(query)).scalar()  # noqa: E731
    return {
        "kind": "postgresql",
        "revision": ask("select version_num from " + databases.REVISIONS[name]),
        "counts": counts,
        "newest_run": ask("select max(start_time) from runs") if "runs" in counts else None,
        "dangling": 0,
    }
