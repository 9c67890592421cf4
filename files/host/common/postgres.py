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
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

INTO = ("--no-owner", "--exit-on-error")  # how a dump is put into an empty database
CREATE = """create database "{}" template "{}" encoding 'UTF8' lc_collate '{}' lc_ctype '{}'"""
END_SESSIONS = (
    "select pg_terminate_backend(pid) from pg_stat_activity "
    "where datname = :name and usename = current_user"
)
# Of PostgreSQL's error codes: object_in_use, insufficient_privilege.
IN_USE, FORBIDDEN = "55006", "42501"
CLOSED = "too many connections for database"  # what it says where nobody is let in


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


def run(program, *words, uri, stdin=None):
    """Run one of PostgreSQL's programs; raises Refused with what it says."""
    if shutil.which(program) is None:
        raise Refused(f"the host lacks {program} (apt install postgresql-client)")
    command = [program, "--no-password", *words]
    done = subprocess.run(
        command, env=environment(uri), stdin=stdin, capture_output=True, text=True
    )
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()
        raise Refused(f"{program} says: {said[-1]}")


def size(uri):
    """Return the bytes of the database on the server."""
    return ask(uri, "select pg_database_size(current_database())")


def change(uri, statement, values):
    """Run one statement, its values in psycopg's own %s."""
    with connected(uri) as connection:
        connection.exec_driver_sql(statement, values)
        connection.commit()


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
        raise Refused(f"PostgreSQL cannot be asked: {said.splitlines()[0]}") from None


def dump(uri, name, folder):
    """Dump a database as it is at one moment; returns the file and what it holds.

    `name` is what its SQLite file would be called. The counts come from the dump's own snapshot.
    """
    path = os.path.join(folder, dump_name(name))
    with connected(uri, isolation_level="REPEATABLE READ") as connection:
        snapshot = connection.execute(text("select pg_export_snapshot()")).scalar()
        words = ("-Fc", "-Z", "1", "--snapshot", snapshot, "--file", path)
        run("pg_dump", *words, uri=uri)
        seen = described(connection, name)
    # A dump that cannot be listed cannot be restored.
    run("pg_restore", "--list", "--file", os.devnull, path, uri=uri)
    return path, seen | {"bytes": os.path.getsize(path)}


def dump_name(name):
    """Return what a database's dump is called, by what its SQLite file would be."""
    return name.replace(".db", ".dump")


def restore(path, uri):
    """Fill an empty database from a dump; whom it belonged to on the other server is left out."""
    words = (*INTO, "--no-privileges", "--jobs", "2", "--dbname", name_of(uri))
    run("pg_restore", *words, path, uri=uri)


def copy(uri, target):
    """Fill an empty database on the same server with what another holds at one moment."""
    command = ["pg_dump", "--no-password", "-Fc", "-Z", "0"]
    with subprocess.Popen(
        command, env=environment(uri), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as dumping:
        run("pg_restore", *INTO, "--dbname", name_of(target), uri=target, stdin=dumping.stdout)
    if dumping.returncode:
        raise Refused(f"pg_dump ended with {dumping.returncode}")


def make(uri, present, like=None):
    """Make a database on the server where `present` is, sorted as that is; empty, or like another.

    Returns whether it was made: another cannot be taken as a pattern while anybody uses it.
    """
    pattern = name_of(like) if like else "template0"
    with administered(present) as connection:
        query = "select datcollate, datctype from pg_database where datname = :name"
        sorted_by = connection.execute(text(query), {"name": name_of(present)}).one()
        try:
            connection.execute(text(CREATE.format(name_of(uri), pattern, *sorted_by)))
        except DBAPIError as error:
            if like and error.orig.pgcode == IN_USE:
                return False
            if error.orig.pgcode == FORBIDDEN:
                role = connection.execute(text("select current_user")).scalar()
                raise Refused(
                    f"the role {role} may not make databases. As an administrator: alter role "
                    f'"{role}" createdb'
                ) from None
            raise
        connection.execute(text(f'revoke all on database "{name_of(uri)}" from public'))
    return True


def drop(uri):
    """Drop a database; raises Refused while anybody uses it."""
    with administered(uri) as connection:
        connection.execute(text(f'drop database if exists "{name_of(uri)}"'))


def is_apart(uri):
    """Tell whether a database is reached by an address, so that other hosts may use it too."""
    url = make_url(uri)
    host = url.host or url.query.get("host", "")
    local = not host or host in ("localhost", "127.0.0.1", "::1") or host.startswith("/")
    return url.drivername.startswith("postgres") and not local


def close(uri):
    """Have a database let nobody in, and end the sessions of those who were: MLflow answers 503."""
    _let_in(uri, 0)
    with administered(uri) as connection:
        connection.execute(text(END_SESSIONS), {"name": name_of(uri)})


def open_again(uri):
    """Undo `close`."""
    _let_in(uri, -1)


def _let_in(uri, count):
    with administered(uri) as connection:
        connection.execute(text(f'alter database "{name_of(uri)}" connection limit {count}'))


@contextlib.contextmanager
def administered(uri):
    """Connect where databases are made, closed and dropped: to the one that every server has."""
    elsewhere = make_url(uri).set(database="postgres").render_as_string(hide_password=False)
    with connected(elsewhere, isolation_level="AUTOCOMMIT") as connection:
        yield connection


def name_of(uri):
    return make_url(uri).database


def run_ids(uri):
    """Return the ids of all runs; one that is closed lets us in for that, and nobody else."""
    try:
        return _run_ids(uri)
    except Refused as error:
        if CLOSED not in str(error):
            raise
    _let_in(uri, 1)
    try:
        return _run_ids(uri)
    finally:
        _let_in(uri, 0)


def _run_ids(uri):
    with connected(uri) as connection:
        return set(connection.execute(text("select run_uuid from runs")).scalars())


def present(uri):
    """Count what a server has now, as databases.present does; None where nothing can be counted."""
    try:
        with connected(uri) as connection:
            query = "select count(*), max(start_time) from runs"
            runs, newest = connection.execute(text(query)).one()
            return {"runs": runs, "newest_run": newest}
    except Refused:
        return None


def examine(uri, name):
    """Say what a database holds, as databases.examine does of one of SQLite's."""
    with connected(uri) as connection:
        return described(connection, name)


def described(connection, name):
    """Say what a database holds: revision, rows of every table, the newest run's start."""
    tables = connection.execute(
        text("select tablename from pg_tables where schemaname = current_schema()")
    ).scalars()
    counts = {
        table: connection.execute(text(f'select count(*) from "{table}"')).scalar()
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
