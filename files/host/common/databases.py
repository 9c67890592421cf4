"""Copy, check and count the server's two SQLite databases.

Runs on the host, beside the programs that import it.
"""

import glob
import itertools
import os
import re
import sqlite3
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress

from fenced import fenced

TRACKING, AUTH = "mlflow.db", "basic_auth.db"
NAMES = (TRACKING, AUTH)
REVISIONS = {TRACKING: "alembic_version", AUTH: "alembic_version_auth"}
# MLflow before 3.6 wrote no revision into its database of users, and later ones take it for this
# one (mlflow/server/auth/db/utils.py).
FIRST_OF_USERS = "8606fa83a998"
# Where a release keeps its migrations.
MIGRATIONS = {TRACKING: "store/db_migrations/versions", AUTH: "server/auth/db/migrations/versions"}
# What names each in a server.env, where it is one of PostgreSQL's.
VARIABLES = {TRACKING: "MLFLOW_BACKEND_STORE_URI", AUTH: "AUTH_STORE_URI"}
# A file belongs to its database as long as one of these lies beside it.
COMPANIONS = ("", "-wal", "-shm", "-journal")
LEAST = 19  # the niceness of what others may overtake
BLOCK = 1 << 20  # bytes that are copied at once
PATIENCE = 5  # seconds to wait for the instant of a copy; a stream's checkpoint waits for 1
AT_ONCE = 2  # checks of one database; each takes a core
PAGES = 16 << 10  # kB of a database that each keeps: with SQLite's 2 MB it reads most of them again
# How many rows of a table refer to what another lacks.
MISSING = """
    select coalesce(sum(held.n), 0)
    from (select {of} as value, count(*) as n from {table} where {of} is not null group by {of})
        as held
    where not exists (select 1 from {parent} as other where other.{to} = held.value)
"""
# So SQLite says that it has an index for that; before 3.36 it named the table as well.
LOOKED_UP = r"SEARCH (TABLE .* AS )?other USING (?!AUTOMATIC)"


class Damaged(Exception):
    """A database that must not be used, and why."""


def addresses(folder):
    """Return where both databases of a state are: what its server.env names, or files beside it."""
    found = {name: "sqlite:///" + os.path.join(folder, name) for name in NAMES}
    values = {}
    with suppress(FileNotFoundError), open(os.path.join(folder, "server.env")) as stream:
        values = dict(line.strip().split("=", 1) for line in stream if "=" in line)
    for name, variable in VARIABLES.items():
        uri = values.get(variable, "").strip("'\"")
        if uri and not uri.startswith("sqlite:"):
            found[name] = uri
    return found


def rows(root, name, query):
    """Return the rows of a query; raises postgres.Refused or sqlite3.Error.

    PostgreSQL's are asked in MLflow's environment alone, with the variables of server.env.
    """
    uri = addresses(root)[name]
    if uri.startswith("postgres"):
        import postgres

        with postgres.connected(uri) as base:
            return [tuple(row) for row in base.exec_driver_sql(query)]
    with closing(opened(path(root, name))) as base:
        return base.execute(query).fetchall()


def has_table(root, name, table):
    """Tell whether a database has a table; raises as `rows` does."""
    known = f"select 1 from sqlite_master where type = 'table' and name = '{table}'"
    if addresses(root)[name].startswith("postgres"):
        known = f"select 1 where to_regclass('{table}') is not null"
    return bool(rows(root, name, known))


def path(folder, name):
    """Return the file of a state's database: below data/ where it is linked to that.

    The server's process can write there: no other link is followed, and what is no file is none.
    """
    place = os.path.join(folder, name)
    return os.path.join(folder, "data", name) if os.path.islink(place) else place


def opened(path, mode="ro", **options):
    """Open a database, which is data of anybody's making; raises sqlite3.Error.

    It is never made where it is missing: an empty one would pass for a good one.
    """
    for end in COMPANIONS:
        with suppress(OSError):
            if not stat.S_ISREG(os.lstat(path + end).st_mode):
                raise sqlite3.OperationalError(f"{os.path.basename(path)}{end} is no file")
    database = sqlite3.connect(f"file:{path}?mode={mode}", uri=True, **options)
    # Nothing that stands in its schema runs more than SQL's own functions.
    database.execute("pragma trusted_schema=off")
    return database


def write_whole(path, text):
    """Write a file whole or not at all, for its owner alone."""
    with open(os.open(path + ".part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as part:
        part.write(text)
        part.flush()
        os.fsync(part.fileno())
    os.replace(path + ".part", path)


def on_postgres(folder):
    """Tell whether a state's databases are PostgreSQL's."""
    return addresses(folder)[TRACKING].startswith("postgres")


def size(root, name):
    """Return the bytes that a database takes, what is only in its log included."""
    return sum(state.st_size for _, state in existing(path(root, name), COMPANIONS))


def existing(stem, ends):
    """Yield path and os.stat of the files that are there.

    SQLite may remove its own at any time, and the server's process lay links that lead nowhere.
    """
    for end in ends:
        with suppress(OSError):
            yield stem + end, os.stat(stem + end)


def copy(root, names, folder, niceness=0):
    """Copy databases as they are at one and the same moment, while others write.

    Each becomes one file without a log. The process is nicer by `niceness` from then on: not
    before, for writers would wait for it.
    """
    beside = {os.path.dirname(path(root, name)) for name in names}
    fenced([*beside, folder], lambda: _copied(root, names, folder, niceness))
    os.nice(niceness)


def _copied(root, names, folder, niceness):
    with ExitStack() as held:
        gates, sources = (
            {name: held.enter_context(closing(_opened(path(root, name)))) for name in names}
            for _ in range(2)
        )
        with _shut(gates):
            for source in sources.values():
                source.execute("begin")
                source.execute("select count(*) from sqlite_master").fetchone()
        logged = all(map(_has_log, sources.values()))
        if not logged or not _copied_by_files(root, folder, gates, niceness):
            os.nice(niceness)
            for name, source in sources.items():
                _copy_pages(source, os.path.join(folder, name))
    for name in names:
        _without_log(os.path.join(folder, name))


def _opened(path):
    return opened(path, "rw", timeout=60, isolation_level=None)


@contextmanager
def _shut(gates):
    """Keep the writers of all databases from committing meanwhile."""
    try:
        for gate in gates.values():
            gate.execute("begin immediate")
        yield
    finally:
        for gate in gates.values():
            if gate.in_transaction:
                gate.execute("rollback")


def _has_log(source):
    return source.execute("pragma journal_mode").fetchone() == ("wal",)


def _copied_by_files(root, folder, gates, niceness):
    """Copy the files of databases of which each has a write-ahead log, and a reader.

    As long as a reader is there, either all that is written to the file stands in the log as well,
    and the log only grows; or the file had all of it when the reader came, and stays as it is.
    Either way the log completes a file that was copied while others wrote. All logs are copied in
    one instant in which nobody commits: that is the moment of the copies. Returns False where that
    is not to be had: a checkpoint, say, holds the writers back until all readers have ended.
    """
    copies = {path(root, name): os.path.join(folder, name) for name in gates}
    try:
        for source, copy in copies.items():
            _copy_file(source, copy, niceness)
        for gate in gates.values():
            gate.execute(f"pragma busy_timeout={PATIENCE * 1000}")
        with _shut(gates):
            for source, copy in copies.items():
                _copy_file(source + "-wal", copy + "-wal")
    except (sqlite3.OperationalError, OSError):
        for copy, end in itertools.product(copies.values(), ("", "-wal")):
            with suppress(FileNotFoundError):
                os.remove(copy + end)
        return False
    return True


def _copy_file(source, target, niceness=0):
    """Copy a file, both halves of a large one at once; raises OSError."""
    # In processes of their own: by the rules of POSIX, one that closes a file loses all its locks
    # on it, SQLite's among them. And the server's process can have laid a link there.
    command = ["nice", "-n", str(niceness), "dd", f"if={source}", f"of={target}", f"bs={BLOCK}",
               "iflag=nofollow,nonblock,fullblock", "conv=notrunc"]  # fmt: skip
    half = os.path.getsize(source) // BLOCK // 2
    parts = ([f"count={half}"], [f"skip={half}", f"seek={half}"]) if half else ([],)
    copying = [subprocess.Popen([*command, *part], stderr=subprocess.DEVNULL) for part in parts]
    ended = [each.wait() for each in copying]
    if any(ended):
        raise OSError(f"{os.path.basename(source)} could not be copied")


def _copy_pages(source, path):
    """Copy a database without a write-ahead log by SQLite's online backup."""
    with closing(sqlite3.connect(path, isolation_level=None)) as target:
        target.execute("pragma synchronous=off")
        target.execute("pragma journal_mode=off")
        source.backup(target)


def _without_log(path):
    """Make a copy one file, whatever mode the server uses."""
    with closing(sqlite3.connect(path, isolation_level=None)) as target:
        target.execute("pragma synchronous=off")
        target.execute("pragma journal_mode=delete")


def sync(path):
    """Have the disk hold a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def examine(path):
    """Check a database that nobody writes and say what is in it; raises Damaged.

    Returns its revision, the rows of every table, the newest run's start (ms since 1970, or None),
    its bytes, and how many rows refer to nothing.
    """
    name = os.path.basename(path)
    try:
        with closing(opened(path)) as database:
            seen = {
                "kind": "sqlite",
                "revision": revision(database, name),
                "counts": counts(database),
                "newest_run": newest_run(database),
                "bytes": os.path.getsize(path),
            }
        seen["dangling"] = _checked(path, seen["counts"])
        return seen
    except sqlite3.Error as error:
        raise Damaged(f"the database {name} cannot be read: {error}") from error


def _checked(path, counts):
    """Do the whole of SQLite's integrity check, in parts that need not wait for each other.

    A table's part compares it with its indexes, the quick one looks at the file as a whole. Returns
    how many rows refer to nothing; raises Damaged.
    """
    first, *others = sorted(counts, key=counts.get, reverse=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        longest = pool.submit(_asked, path, _integrity(first))
        verdicts = [longest, pool.submit(_aside, path, "quick_check(1)")]
        verdicts += [pool.submit(_aside, path, _integrity(table)) for table in others]
        dangling = pool.submit(_dangling, path)
        for verdict in verdicts:
            if verdict.result() != [("ok",)]:
                name, found = os.path.basename(path), verdict.result()[0][0]
                raise Damaged(f"the database {name} is damaged: {found}")
        return dangling.result()


def _integrity(table):
    return f"integrity_check({quoted(table)})"


def quoted(name):
    """Spell a name that stands in a database, whatever it is, for a statement."""
    return '"' + name.replace('"', '""') + '"'


def _asked(path, pragma):
    with closing(_at_hand(path)) as database:
        return database.execute("pragma " + pragma).fetchall()


def _at_hand(path):
    database = opened(path)
    database.execute(f"pragma cache_size=-{PAGES}")
    return database


def _aside(path, pragma):
    """Ask in a thread that leaves the core to the longest part, which all others wait for."""
    stand_back()
    return _asked(path, pragma)


def _dangling(path):
    """Count the rows of all tables that refer to nothing, aside as well."""
    stand_back()
    with closing(_at_hand(path)) as database:
        known = set(tables(database))
        return sum(_dangling_of(database, table, known) for table in known)


def _dangling_of(database, table, known):
    """Count a table's references to nothing, for each value once that many rows have in common.

    SQLite looks for what it refers to anew for each row: of a million metrics, that is their runs.
    Where there is no index for both sides, and for keys of several columns, that is the quicker.
    """
    keys = database.execute(f"pragma foreign_key_list({quoted(table)})").fetchall()
    asked = [
        MISSING.format(table=quoted(table), parent=quoted(parent), of=quoted(of), to=quoted(to))
        for _, place, parent, of, to, *_ in keys
        if not place and parent in known and to
    ]
    if len(asked) < len(keys) or not all(_by_index(database, query) for query in asked):
        return len(database.execute(f"pragma foreign_key_check({quoted(table)})").fetchall())
    return sum(database.execute(query).fetchone()[0] for query in asked)


def _by_index(database, query):
    """Tell whether SQLite sorts nothing for a query, and finds in an index what it looks for."""
    steps = "; ".join(row[3] for row in database.execute("explain query plan " + query))
    return "TEMP B-TREE" not in steps and re.search(LOOKED_UP, steps) is not None


def stand_back():
    """Have this thread, and those that it begins, leave the cores to all others."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST)


def revision(database, name):
    """Return the schema's revision; raises Damaged where there is none."""
    table = REVISIONS[name]
    if not _has(database, table):
        if name == AUTH and _has(database, "users"):
            return FIRST_OF_USERS
        raise Damaged(f"{name} holds no MLflow schema: the table {table} is missing")
    found = database.execute(f"select version_num from {table}").fetchall()
    if len(found) != 1:
        raise Damaged(f"{name} has {len(found)} schema revisions, where one is right")
    return found[0][0]


def tables(database):
    """Name every table but SQLite's own."""
    found = database.execute("select name from sqlite_master where type = 'table'").fetchall()
    return [name for (name,) in found if not name.startswith("sqlite_")]


def counts(database):
    """Count the rows of every table."""
    return {
        table: database.execute(f"select count(*) from {quoted(table)}").fetchone()[0]
        for table in tables(database)
    }


def newest_run(database):
    """Return when the newest run began, in ms since 1970."""
    if not _has(database, "runs"):
        return None
    return database.execute("select max(start_time) from runs").fetchone()[0]


def present(root, since=None):
    """Count what a server has now; None where nothing can be counted.

    Returns its runs, when the newest began (ms since 1970, or None), and under "younger" how many
    began after `since` (the same), where that is given.
    """
    try:
        with closing(opened(path(root, TRACKING), timeout=10)) as base:
            found = {"runs": _count(base), "newest_run": newest_run(base)}
            if since is not None:
                found["younger"] = _count(base, f" where start_time > {int(since)}")
            return found
    except sqlite3.Error:
        return None


def _count(database, where=""):
    return database.execute("select count(*) from runs" + where).fetchone()[0]


def revisions(venv, name):
    """Return the schema revisions that an environment's MLflow knows, and the newest of them."""
    known, former = set(), set()
    pattern = f"{venv}/lib/python3*/site-packages/mlflow/{MIGRATIONS[name]}/*.py"
    for file in glob.glob(pattern):
        with open(file) as stream:
            text = stream.read()
        known.update(re.findall(r"^revision = [\"'](\w+)", text, re.M))
        former.update(re.findall(r"^down_revision = [\"'](\w+)", text, re.M))
    newest = known - former
    return known, newest.pop() if len(newest) == 1 else None


def release(root):
    """Name the release that serves a root; that of a server which the guide made ends in -guide."""
    venv = os.path.realpath(os.path.join(root, "venv"))
    if os.path.basename(venv) != "venv":
        return os.path.basename(venv)
    made = glob.glob(venv + "/lib/python3*/site-packages/mlflow-*.dist-info")
    versions = [re.sub(r".*/mlflow-(.*)\.dist-info$", r"\1", path) for path in made]
    return (versions or ["unknown"])[0] + "-guide"


def _has(database, table):
    query = "select 1 from sqlite_master where type = 'table' and name = ?"
    return database.execute(query, (table,)).fetchone() is not None
