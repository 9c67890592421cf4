"""A database of PostgreSQL's that is to be filled: what it holds, whose it is, how its rows come.

Runs on the host, beside the programs that import it. A mark in the database's comment says that
what is in it was put there by a move: under way, or ended with a hash of all that it left. Such a
database is replaced without a question as long as nobody else wrote to it.
"""

import contextlib
import hashlib
import json
import re

import postgres
import psycopg2
import talk
from rows import Column, Lines, names, nth, of_postgres, quoted
from sqlalchemy import make_url

NAME = "remote-mlflow move"  # as which its sessions are seen
MARK = "remote-mlflow: "
# Memory for building an index on a host with 2 GB, and for the joins that check references.
SETTINGS = """
set client_encoding = 'UTF8'; set datestyle = 'ISO'; set extra_float_digits = 3;
set lock_timeout = '60s'; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0;
set maintenance_work_mem = '128MB'; set work_mem = '64MB'
"""

# What the schema holds beside what extensions brought. Functions count as well: MLflow makes some.
THINGS = """
select relname, 'table' from pg_class
where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')
and not exists (select from pg_depend where objid = pg_class.oid and deptype = 'e')
union all
select proname, 'function' from pg_proc
where pronamespace = current_schema()::regnamespace
and not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e')
order by 2 desc, 1
"""
ABOUT = """
select current_user, pg_has_role(datdba, 'usage'), pg_get_userbyid(datdba),
pg_encoding_to_char(encoding), shobj_description(oid, 'pg_database'), current_schema()
from pg_database where datname = current_database()
"""
OTHERS = """
select pid, application_name from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and usename is not null
"""
COLUMNS = """
select relname, attname, format_type(atttypid, atttypmod), attgenerated <> ''
from pg_class join pg_attribute on attrelid = pg_class.oid
where relnamespace = current_schema()::regnamespace and relkind = 'r'
and attnum > 0 and not attisdropped order by relname, attnum
"""
# First what refers, then what is referred to; made again in the opposite order.
CONSTRAINTS = """
select quote_ident(relname), quote_ident(conname), pg_get_constraintdef(pg_constraint.oid)
from pg_constraint join pg_class on conrelid = pg_class.oid
where connamespace = current_schema()::regnamespace and contype in ('f', 'p', 'u')
order by contype = 'f' desc, relname, conname
"""
INDEXES = """
select quote_ident(relname), pg_get_indexdef(indexrelid)
from pg_index join pg_class on indexrelid = pg_class.oid
where relnamespace = current_schema()::regnamespace
and not exists (select from pg_constraint where conindid = indexrelid and contype in ('p', 'u'))
order by relname
"""
SEQUENCES = """
select relname, attname, pg_get_serial_sequence(quote_ident(relname), attname)
from pg_class join pg_attribute on attrelid = pg_class.oid
where relnamespace = current_schema()::regnamespace and relkind = 'r' and attnum > 0
and not attisdropped and pg_get_serial_sequence(quote_ident(relname), attname) is not null
"""


class Refused(postgres.Refused):
    """Why a database is not used, or what went wrong in it; one line."""


class Target:
    """One database, by its SQLAlchemy URI; the password comes from where libpq looks for it."""

    def __init__(self, uri):
        url = make_url(uri)
        added = {"application_name": NAME}
        if "connect_timeout" not in url.query:
            added["connect_timeout"] = "10"  # seconds
        self.uri = url.update_query_dict(added).render_as_string(hide_password=False)
        host = url.host or url.query.get("host") or "this host"
        self.label = f"the database {url.database} on {host}"
        self.tables = {}  # name: its columns

    @contextlib.contextmanager
    def session(self):
        """Give a cursor of psycopg2's, and commit at the end; raises Refused."""
        with postgres.connected(self.uri) as connection:
            driver = connection.connection.driver_connection
            try:
                with driver, driver.cursor() as cursor:
                    cursor.execute(SETTINGS)
                    yield cursor
            except psycopg2.Error as error:
                raise Refused(f"{self.label}: {said(error)}") from None

    # -- before anything is changed ---------------------------------------------------------------

    def refuse_unfit(self, server):
        """Raise Refused where it cannot be filled, or holds what this server did not put there."""
        with self.session() as cursor:
            cursor.execute(ABOUT)
            role, owns, owner, encoding, comment, schema = cursor.fetchone()
            if not owns:
                mend = f"alter database {self._database(cursor)} owner to {quoted(role)}"
                raise Refused(
                    f"{self.label} belongs to the role {owner}, not to {role}. As an "
                    f"administrator: {mend}"
                )
            if encoding != "UTF8":
                raise Refused(
                    f"{self.label} keeps text as {encoding}. Make it anew with encoding UTF8"
                )
            cursor.execute("select has_schema_privilege(%s, 'create')", (schema,))
            if schema is None or cursor.fetchone() != (True,):
                raise Refused(f"{self.label} has no schema where {role} may create")
            mark = _mark(comment)
            cursor.execute(THINGS)
            there = cursor.fetchall()
            if there and (mark is None or mark.get("server") != server):
                raise Refused(f"{self.label} is not empty: it holds {_listed(cursor, there)}")
            if mark is None:
                return
            cursor.execute(OTHERS)
            strangers = [pid for pid, name in cursor.fetchall() if name != NAME]
            if strangers:
                raise Refused(
                    f"{self.label} is in use by {len(strangers)} other sessions. End them"
                )
        if there and mark.get("state") != "filling" and self.held() != mark.get("holds"):
            raise Refused(f"{self.label} was filled by a former move and written to since")

    def _database(self, cursor):
        cursor.execute("select current_database()")
        return quoted(cursor.fetchone()[0])

    def held(self):
        """Return a hash of all rows of all tables."""
        self.describe()
        return fingerprint({table: found for table, *found in self.digests()})

    # -- its mark and schema ----------------------------------------------------------------------

    def claim(self, server):
        """Mark it as being filled, then take away what a former move left."""
        self.mark(server=server, state="filling")
        self.clear()

    def mark(self, **data):
        """Note in the database's comment what a move does with it; nothing takes the note away."""
        with self.session() as cursor:
            cursor.execute(ABOUT)
            others = [line for line in (cursor.fetchone()[4] or "").splitlines() if not _ours(line)]
            lines = [*others, MARK + json.dumps(data)] if data else others
            name = self._database(cursor).replace("%", "%%")
            query = f"comment on database {name} is %s"
            cursor.execute(query, ("\n".join(lines) or None,))

    def clear(self):
        """Drop all that is in it, and end the sessions of a move that was killed."""
        with self.session() as cursor:
            cursor.execute(OTHERS)
            for pid, name in cursor.fetchall():
                if name == NAME:
                    cursor.execute("select pg_terminate_backend(%s)", (pid,))
            cursor.execute(THINGS)
            there = cursor.fetchall()
            tables = [quoted(name) for name, kind in there if kind == "table"]
            if tables:
                cursor.execute(f"drop table {', '.join(tables)} cascade")
            for name, kind in there:
                if kind == "function":
                    cursor.execute(f"drop function {quoted(name)} cascade")

    def describe(self):
        """Learn which tables and columns it has; raises Refused where a type is unknown here."""
        self.tables = {}
        with self.session() as cursor:
            cursor.execute(COLUMNS)
            for table, name, type, generated in cursor.fetchall():
                column = Column(name, type, generated)
                if not column.known:
                    raise Refused(
                        f"{self.label} has a column of the unknown type {type}: {name} of {table}. "
                        "Remote MLflow cannot move this release's databases"
                    )
                self.tables.setdefault(table, []).append(column)

    # -- its rows ---------------------------------------------------------------------------------

    def fill(self, database, replace, say):
        """Copy all tables of a database of SQLite's, in one transaction; returns NULs replaced.

        Constraints and indexes are made anew after the rows, as they were: many times faster than
        keeping them up row by row. `say` gets a table and the rows that are copied so far.
        """
        replaced = 0
        with self.session() as cursor:
            again = _without_constraints(cursor)
            everything = ", ".join(map(quoted, self.tables))
            cursor.execute(f"truncate {everything}")
            for table in self.tables:
                replaced += self._copy(cursor, database, table, replace, say)
            for statement in again:
                cursor.execute(statement)
            _set_sequences(cursor)
            cursor.execute(f"analyze {everything}")
        return replaced

    def _copy(self, cursor, database, table, replace, say):
        columns = [column for column in self.tables[table] if not column.generated]
        lines = Lines(database, table, columns, replace, lambda rows: say(table, rows))
        # Truncated in the same transaction, its rows need no second visit to be frozen.
        query = f"copy {quoted(table)} ({names(columns)}) from stdin with (freeze)"
        try:
            cursor.copy_expert(query, lines)
        except psycopg2.Error as error:
            if lines.unfit:
                raise lines.unfit from None
            place = re.search(r"COPY \S+, line (\d+)", error.diag.context or "")
            if not place:
                raise
            row = nth(database, table, columns, int(place[1]) - 1)
            column = re.search(r", column (\w+)", error.diag.context)
            where = f"{row}, {column[1]}" if column else row
            raise Refused(f"{where}: {said(error)}") from None
        return lines.replaced

    def digests(self):
        """Yield of each table its name, how many rows it has, and a hash of them all."""
        with self.session() as cursor:
            for table, columns in self.tables.items():
                yield (table, *of_postgres(cursor, table, columns))

    def size(self):
        """Return its bytes on the server."""
        return postgres.size(self.uri)


def _without_constraints(cursor):
    """Drop references, keys and indexes; returns the statements that make them again."""
    cursor.execute(CONSTRAINTS)
    constraints = cursor.fetchall()
    cursor.execute(INDEXES)
    indexes = cursor.fetchall()
    gone = [f"alter table {table} drop constraint {name}" for table, name, _ in constraints]
    gone += [f"drop index {name}" for name, _ in indexes]
    if gone:
        cursor.execute("; ".join(gone))
    again = [
        f"alter table {table} add constraint {name} {definition}"
        for table, name, definition in reversed(constraints)
    ]
    return [definition for _, definition in indexes] + again


def _set_sequences(cursor):
    """Have every sequence go on after the largest number that its column holds."""
    cursor.execute(SEQUENCES)
    for table, column, sequence in cursor.fetchall():
        last = f"coalesce(max({quoted(column)}), 0)"
        query = f"select setval(%s, {last} + 1, false) from {quoted(table)}"
        cursor.execute(query, (sequence,))


def fingerprint(digests):
    """Put the hashes of all tables into one."""
    text = json.dumps({table: list(found) for table, found in digests.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def said(error):
    """Return what PostgreSQL says in one line."""
    text = error.diag.message_primary or str(error).strip() or type(error).__name__
    lines = [text.splitlines()[0]]
    if error.diag.message_detail:
        lines.append(error.diag.message_detail.splitlines()[0])
    return ": ".join(line.rstrip(".") for line in lines)[:300]


def _ours(line):
    return line.startswith(MARK)


def _mark(comment):
    """Read the mark in a database's comment; None where there is none."""
    for line in (comment or "").splitlines():
        if _ours(line):
            with contextlib.suppress(ValueError):
                return json.loads(line[len(MARK) :])
    return None


def _listed(cursor, there):
    """Say which tables are there, with the rows of those that people made."""
    found = [name for name, _ in there]
    text = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    if "runs" in found:
        cursor.execute("select has_table_privilege('runs', 'select')")
        if cursor.fetchone()[0]:
            cursor.execute("select count(*) from runs")
            text += f"; {talk.counted(cursor.fetchone()[0], 'run')}"
    return text
