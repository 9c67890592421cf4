"""Copy a server's two SQLite databases into two databases of PostgreSQL, and compare every row.

Runs in the environment of the server's release. Reports {"tables": {database: {table: rows}},
"runs": n, "users": n, "bytes": n, "replaced": n, "seconds": n, "seconds_compare": n}.

The SQLite files are only read. Cut off here, the same command is run again: a database that this
server has filled before, wholly or not, is filled anew unless somebody else wrote to it.
"""

import ctypes
import dataclasses
import multiprocessing
import os
import signal
import sqlite3
import sys
import time
from collections import Counter

import databases
import postgres
import schemas
import talk
from rows import Unfit, of_sqlite, quoted, read_only
from target import Refused, Target, fingerprint

OFTEN = 5  # seconds between two lines of progress
# Litestream's own tables, which backup.stream leaves in a database.
PASSED_OVER = ("_litestream_seq", "_litestream_lock")
KEPT = "The SQLite files were only read, and nothing is switched"


@dataclasses.dataclass(frozen=True)
class Request:
    """What is moved, and where to."""

    folder: str  # with mlflow.db and basic_auth.db, which nobody writes meanwhile
    tracking: str  # SQLAlchemy URIs, whose password libpq finds by itself (PGPASSFILE)
    users: str
    server: str  # a word of the server's own, such as its id
    replace_nul: bool = False  # whether NUL characters in text may become U+FFFD


class Store:
    """One database: where it comes from and where it goes."""

    def __init__(self, folder, name, uri):
        self.name, self.path = name, databases.path(folder, name)
        self.target = Target(uri)
        self.counts = {}

    def refuse_unfit(self, server):
        """Raise Refused or Damaged before anything is changed."""
        _, newest = databases.revisions(sys.prefix, self.name)
        with read_only(self.path) as database:
            revision = databases.revision(database, self.name)
            if revision != newest:
                raise Refused(
                    f"{self.name} is of the schema {revision}, and MLflow here makes {newest}. "
                    "Start the server once, or type ./fab upgrade"
                )
            self.counts = databases.counts(database)
            _refuse_dangling(database)
        self.target.refuse_unfit(server)

    def refuse_other_schema(self):
        """Raise Refused where the tables are not those that the release has made in PostgreSQL."""
        with read_only(self.path) as database:
            for table, columns in self.target.tables.items():
                # table_xinfo, for generated columns too.
                info = database.execute(f"pragma table_xinfo({quoted(table)})").fetchall()
                ours, theirs = {row[1] for row in info}, {column.name for column in columns}
                if ours != theirs:
                    raise Refused(
                        f"{self.name} has the table {table} with other columns than MLflow makes: "
                        + ", ".join(sorted(ours ^ theirs))
                    )
        for table, count in self.counts.items():
            if table not in self.target.tables and table not in PASSED_OVER and count:
                talk.warn(
                    f"{table} is no table of MLflow's: it stays behind, with "
                    f"{talk.counted(count, 'row')}"
                )

    def fill(self, replace):
        moved = {table: self.counts[table] for table in self.target.tables}
        total = sum(moved.values())
        talk.say(f"copy {talk.counted(total, 'row')} of {self.name}")
        progress = Progress(moved)
        with read_only(self.path) as database:
            return self.target.fill(database, replace, progress.say)

    def digests(self, replace):
        """Yield the same of SQLite's side as Target.digests does of PostgreSQL's."""
        with read_only(self.path) as database:
            for table, columns in self.target.tables.items():
                yield (table, *of_sqlite(database, table, columns, replace))

    def stamp(self):
        """Return what changes where somebody writes."""
        ends = [end for end in databases.COMPANIONS if end != "-shm"]
        found = [state for _, state in databases.existing(self.path, ends)]
        return [(state.st_size, state.st_mtime_ns) for state in found if state.st_size]


class Progress:
    """Say now and then how far a long table is."""

    def __init__(self, counts):
        self._counts, self._next = counts, time.monotonic() + OFTEN

    def say(self, table, rows):
        count = self._counts[table]
        if rows < count and time.monotonic() >= self._next:
            self._next = time.monotonic() + OFTEN
            talk.say(f"{table}: {rows:,} of {talk.counted(count, 'row')}")


def _refuse_dangling(database):
    """Raise Refused where rows refer to what does not exist, which PostgreSQL does not allow."""
    found = database.execute("pragma foreign_key_check")
    dangling = Counter((table, parent, number) for table, _, parent, number in found)
    for (table, parent, number), count in dangling.items():
        keys = [
            (ours, theirs)
            for id, _, _, ours, theirs, *_ in database.execute(
                f"pragma foreign_key_list({quoted(table)})"
            )
            if id == number
        ]
        joined = " and ".join(f"{parent}.{b} = {table}.{a}" for a, b in keys)
        raise Refused(
            f"{table} refers to what {parent} does not hold, in {talk.counted(count, 'row')} that "
            f"MLflow shows nowhere. With the server stopped: delete from {table} where not "
            f"exists (select 1 from {parent} where {joined})"
        )


# -- work beside this process ----------------------------------------------------------------------


class Beside:
    """A generator that runs in a process of its own, which ends with this one.

    MLflow's code takes 250 MB, which the copying then does without; and two sides are compared on
    two cores.
    """

    def __init__(self, work, *arguments):
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_told, args=(os.getpid(), sender, work, arguments), daemon=True
        )
        sys.stdout.flush()
        self._process.start()
        sender.close()

    def __iter__(self):
        while True:
            try:
                kind, value = self._receiver.recv()
            except EOFError:
                raise Refused("a part of the work was killed (is the memory full?)") from None
            if kind == "failed":
                raise Refused(value)
            if kind == "done":
                return
            yield value

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.join()


def _told(parent, sender, work, arguments):
    end_with(parent)
    try:
        for value in work(*arguments):
            sender.send(("value", value))
        sender.send(("done", None))
    except Exception as error:  # noqa: BLE001 (whatever it is, the other process says it)
        lines = (str(error).strip() or type(error).__name__).splitlines()
        sender.send(("failed", lines[0]))


def end_with(parent):
    """Have the kernel kill this process when its parent is gone; prctl(2), PR_SET_PDEATHSIG."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def of_all(sides):
    """Yield what each of several generators does, one after the other."""
    for digests in sides:
        yield from digests()


# -- the move --------------------------------------------------------------------------------------


def compare(stores, replace):
    """Read all rows of both sides again; raises Refused at the first table that differs.

    Returns for each database the counts and hashes of its tables.
    """
    found = {store.name: {} for store in stores}
    named = [(store, table) for store in stores for table in store.target.tables]
    ours = Beside(of_all, [lambda s=store: s.digests(replace) for store in stores])
    theirs = Beside(of_all, [store.target.digests for store in stores])
    with ours, theirs:
        for (store, table), here, there in zip(named, ours, theirs, strict=True):
            _, rows, hash = here
            _, their_rows, their_hash = there
            if rows != their_rows:
                raise Refused(
                    f"{table} of {store.name} has {talk.counted(rows, 'row')} in SQLite and "
                    f"{their_rows:,} in PostgreSQL"
                )
            if hash != their_hash:
                raise Refused(f"the rows of {table} of {store.name} are not the same there")
            found[store.name][table] = rows, hash
    return found


def moved(stores, server, replace):
    """Fill and compare both databases; returns what is reported."""
    talk.say("make the schema of MLflow in PostgreSQL")
    for store in stores:
        store.target.claim(server)
    with Beside(schemas.make, *(store.target.uri for store in stores)) as making:
        list(making)
    for store in stores:
        store.target.describe()
        store.refuse_other_schema()
    replaced = sum(store.fill(replace) for store in stores)
    began = time.monotonic()
    total = sum(sum(store.counts[table] for table in store.target.tables) for store in stores)
    talk.say(f"compare {talk.counted(total, 'row')}")
    found = compare(stores, replace)
    seconds = time.monotonic() - began
    for store in stores:
        holds = fingerprint(found[store.name])
        store.target.mark(server=server, state="whole", holds=holds)
    tables = {name: {table: rows for table, (rows, _) in of.items()} for name, of in found.items()}
    return {
        "tables": tables,
        "runs": tables[databases.TRACKING]["runs"],
        "users": tables[databases.AUTH]["users"],
        "bytes": sum(store.target.size() for store in stores),
        "replaced": replaced,
        "seconds_compare": round(seconds, 1),
    }


def given_up(stores):
    """Empty what this move has begun to fill; tells whether that could be done."""
    try:
        for store in stores:
            store.target.clear()
            store.target.mark()
        return True
    except postgres.Refused:
        return False  # its mark stays, so that the next move replaces it


def main(asked):
    began = time.monotonic()
    uris = asked.tracking, asked.users
    stores = [
        Store(asked.folder, name, uri) for name, uri in zip(databases.NAMES, uris, strict=True)
    ]
    if stores[0].target.uri == stores[1].target.uri:
        raise Refused("tracking and users need two databases, and one was given for both")
    for store in stores:
        store.refuse_unfit(asked.server)
    before = [store.stamp() for store in stores]
    done = False
    try:
        report = moved(stores, asked.server, asked.replace_nul)
        if [store.stamp() for store in stores] != before:
            raise Refused("somebody wrote to the SQLite files meanwhile. Stop the server first")
        done = True
    finally:
        if not done and not given_up(stores):
            talk.warn("PostgreSQL keeps what was copied so far; the next move replaces it")
    report["seconds"] = round(time.monotonic() - began, 1)
    talk.report(report)


try:
    main(talk.request(Request))
except (Refused, postgres.Refused, databases.Damaged, Unfit, sqlite3.Error, OSError) as error:
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    talk.fail(f"{text[:1].upper() + text[1:]}. {KEPT}. Then type ./fab postgres.migrate again.")
