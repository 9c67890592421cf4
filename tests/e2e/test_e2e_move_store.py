"""Both SQLite databases moved to a real PostgreSQL by MLflow's own release, whole or not at all."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from host_side import HOST

from tasks.engine.settings import Settings
from tasks.engine.templates import FILES

NAMES = ("mlflow.db", "basic_auth.db")
SERVER = "0a1b2c3d"
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=")
# Who may come without a password; the others need one.
ACCESS = "local all guarded scram-sha-256\nlocal all all trust\n"


# -- a PostgreSQL, and a release ---------------------------------------------------------------


class Cluster:
    """A PostgreSQL on a socket in a folder of its own; it ends with the tests, however they end."""

    def __init__(self) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        found = str(programs[-1]) if programs else shutil.which("initdb")
        assert found, "PostgreSQL is not installed on this machine. Type: apt install postgresql"
        self.bin = Path(found).parent
        # A socket's path must be short; and PostgreSQL's user must get there.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.user = "nobody" if os.getuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user)
        self.data = self.folder / "data"
        self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                  "--locale=C", "--no-sync", "--no-instructions")  # fmt: skip
        (self.data / "pg_hba.conf").write_text(ACCESS)
        options = [word for option in (*FAST, f"unix_socket_directories={self.folder}")
                   for word in ("-c", option)]  # fmt: skip
        words = [str(self.bin / "postgres"), "-D", str(self.data), *options]
        with (self.folder / "log").open("w") as log:
            self.server = subprocess.Popen(
                words, user=self.user, extra_groups=[] if self.user else None, cwd="/",
                stderr=log, preexec_fn=_end_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while not (self.folder / ".s.PGSQL.5432").exists():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)
        self.sql("create role mlflow login", "create role other login",
                 "create role guarded login password 'right'")  # fmt: skip

    def _run(self, program: str, *words: object) -> None:
        subprocess.run(
            [self.bin / program, *map(str, words)], user=self.user, check=True, cwd="/",
            extra_groups=[] if self.user else None, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def sql(self, *statements: str, database: str = "postgres") -> str:
        words = [word for statement in statements for word in ("-c", statement)]
        return subprocess.run(
            ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", "postgres",
             "-d", database, *words],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    def schema(self, database: str) -> str:
        """Return the whole schema as pg_dump writes it."""
        dumped = subprocess.run(
            ["pg_dump", "-h", self.folder, "-U", "postgres", "--schema-only", database],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        return re.sub(r"^\\(un)?restrict .*$", "", dumped, flags=re.M)  # a word of chance

    def uri(self, database: str, role: str = "mlflow") -> str:
        return f"postgresql+psycopg2://{role}@/{database}?host={self.folder}"

    def close(self) -> None:
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait()
        shutil.rmtree(self.folder)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


@dataclass
class Outcome:
    code: int
    out: str

    @property
    def report(self) -> Any:
        assert self.code == 0, self.out
        return json.loads(self.out.splitlines()[-1].removeprefix("@report "))

    @property
    def refusal(self) -> str:
        assert self.code == 1, self.out
        last = self.out.splitlines()[-1]
        assert last.startswith("@fail ")
        assert last.endswith(
            ". The SQLite files were only read, and nothing is switched. Then type "
            "./fab postgres.migrate again."
        )
        assert "Traceback" not in self.out
        return last


class Release:
    """The locked environment of the default release, with MLflow loaded; see stores.py."""

    def __init__(self, folder: Path) -> None:
        self.python, self.folder = folder / "bin/python", folder
        lock = FILES / f"releases/{Settings().version}.txt"
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, folder], check=True)
        words = ["pip", "sync", "-q", "--system-certs", "--python", self.python, lock]
        subprocess.run([*uv, *words], check=True, timeout=600)
        here = Path(__file__).parent
        self._process = subprocess.Popen(
            [self.python, here / "stores.py"], cwd=folder, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def ask(
        self, do: str, *words: object, first: str = "", kill_after: float | None = None, **env: str
    ) -> Outcome:
        """Have a fork do something; killed as by kill -9 after so many seconds, where given."""
        out = self.folder / "said"
        request = {"do": do, "with": list(map(str, words)), "first": first, "out": str(out),
                   "beside": str(HOST), "environment": env}  # fmt: skip
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        pid = int(self._answer())
        if kill_after is not None:
            end = threading.Timer(kill_after, os.kill, (pid, signal.SIGKILL))
            end.start()
        code = int(self._answer())
        if kill_after is not None:
            end.cancel()
            end.join()
        return Outcome(code, out.read_text() if out.exists() else "")

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    release = Release(tmp_path_factory.mktemp("release"))
    yield release
    release.close()


@pytest.fixture(scope="module")
def made(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both databases, which no test changes."""
    folder = tmp_path_factory.mktemp("made")
    done = release.ask("made", folder)
    assert done.code == 0, done.out
    return folder


@pytest.fixture
def empty(cluster: Cluster) -> Cluster:
    """Return the cluster with two databases that hold nothing."""
    for name in ("mlflow", "users"):
        cluster.sql(f"drop database if exists {name} with (force)",
                    f"create database {name} owner mlflow")  # fmt: skip
    return cluster


@dataclass
class Schemas:
    """Both schemas as MLflow makes them in empty databases, and a quick way to do the same."""

    texts: tuple[str, ...]
    code: str


@pytest.fixture(scope="module")
def schemas(cluster: Cluster, release: Release, tmp_path_factory: Any) -> Schemas:
    fresh = ("mlflow_fresh", "users_fresh")
    for name in fresh:
        cluster.sql(f"create database {name} owner mlflow")
    done = release.ask("schemas", *map(cluster.uri, fresh))
    assert done.code == 0, done.out
    texts = tuple(map(cluster.schema, fresh))
    folder = tmp_path_factory.mktemp("schemas")
    files = [str(folder / name) for name in fresh]
    for file, text in zip(files, texts, strict=True):
        Path(file).write_text(text)
    return Schemas(texts, QUICKLY.format(files=files))


QUICKLY = """
import schemas, target
def quickly(*uris):
    for uri, file in zip(uris, {files}):
        with target.Target(uri).session() as cursor, open(file) as stream:
            cursor.execute(stream.read())
    yield from ()
schemas.make = quickly
"""


@pytest.fixture
def move(release: Release, empty: Cluster, made: Path, schemas: Schemas) -> Callable[..., Outcome]:
    """Run the program; MLflow itself makes the schemas only where that is asked for."""

    def moved(
        folder: Path = made, tracking: str = "", auth: str = "", server: str = SERVER,
        options: tuple[str, ...] = (), by_mlflow: bool = False, first: str = "", **how: Any,
    ) -> Outcome:  # fmt: skip
        uris = tracking or empty.uri("mlflow"), auth or empty.uri("users")
        words = (HOST / "move_store.py", f"folder={folder}", f"tracking={uris[0]}",
                 f"users={uris[1]}", f"server={server}", *options)  # fmt: skip
        first = ("" if by_mlflow else schemas.code) + first
        return release.ask("program", *words, first=first, **how)

    return moved


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """Return a folder with copies that a test may change."""
    for name in NAMES:
        shutil.copy(made / name, tmp_path)
    return tmp_path


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES}


def counts(file: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as base:
        query = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
        tables = [name for (name,) in base.execute(query)]
        return {
            table: base.execute(f'select count(*) from "{table}"').fetchone()[0] for table in tables
        }


def execute(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as base, base:
        for statement in statements:
            base.execute(statement)


def is_empty(cluster: Cluster) -> bool:
    """Tell whether both databases are as they were before, unmarked and without a table."""
    tables = "select count(*) from pg_class where relnamespace = 'public'::regnamespace"
    functions = "select count(*) from pg_proc where pronamespace = 'public'::regnamespace"
    mark = "select shobj_description(oid, 'pg_database') from pg_database where datname = "
    return all(
        cluster.sql(tables, functions, f"{mark}'{name}'", database=name) == "0\n0"
        for name in ("mlflow", "users")
    )


# -- what arrives --------------------------------------------------------------------------------


def test_a_store_arrives_whole_and_mlflow_sees_the_same_in_it(move, empty, release, made, schemas):
    before = hashes(made)
    done = move(by_mlflow=True)
    report = done.report
    assert report["tables"] == {name: counts(made / name) for name in NAMES}
    assert (report["runs"], report["users"], report["replaced"]) == (60, 4, 0)
    assert report["tables"]["mlflow.db"]["spans"] == 3
    assert report["bytes"] > 10_000_000
    assert report["seconds"] >= report["seconds_compare"]
    assert hashes(made) == before
    here = release.ask("told", *(f"sqlite:///{made}/{name}" for name in NAMES))
    there = release.ask("told", empty.uri("mlflow"), empty.uri("users"))
    assert (here.code, there.code) == (0, 0), here.out + there.out
    for what, seen in json.loads(here.out).items():
        assert json.loads(there.out)[what] == seen, what
    # To the last index.
    assert tuple(map(empty.schema, ("mlflow", "users"))) == schemas.texts
    # What the database numbers goes on behind what it holds.
    numbers = json.loads(release.ask("more", empty.uri("mlflow"), empty.uri("users")).out)
    with closing(sqlite3.connect(made / "mlflow.db")) as base:
        last = base.execute("select max(experiment_id) from experiments").fetchone()[0]
    with closing(sqlite3.connect(made / "basic_auth.db")) as base:
        user = base.execute("select max(id) from users").fetchone()[0]
        role = base.execute("select max(id) from roles").fetchone()[0]
    assert numbers == [last + 1, user + 1, role + 1]
    # It is in use now: nothing replaces it.
    assert "was filled by a former move and written to since" in move().refusal
    assert empty.sql("select count(*) from users", database="users") == "5"


@pytest.mark.costly
def test_a_store_that_was_moved_but_not_used_is_moved_anew_by_the_same_server_only(move, empty):
    empty.sql("comment on database mlflow is 'asked for by Anna'")
    first = move().report
    assert "is not empty: it holds " in move(server="ffffffff").refusal
    assert move().report["tables"] == first["tables"]
    comment = "select shobj_description(oid, 'pg_database') from pg_database where datname='mlflow'"
    assert empty.sql(comment).splitlines()[0] == "asked for by Anna"
    with subprocess.Popen(
        ["psql", "-Xh", empty.folder, "-U", "postgres", "users"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    ) as somebody:  # fmt: skip
        query = "select count(*) from pg_stat_activity where datname = 'users'"
        while empty.sql(query) == "0":
            time.sleep(0.05)
        assert "the database users on " in move().refusal.lower()
        somebody.communicate(b"")


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.costly
def test_what_cannot_be_filled_is_refused_in_one_line(move, empty, copied, monkeypatch, tmp_path):
    at = empty.uri
    passwords = tmp_path / "pgpass"
    passwords.write_text("*:*:*:guarded:wrong\n")
    passwords.chmod(0o600)
    pgpass = {"PGPASSFILE": str(passwords)}
    empty.sql("drop database if exists latin",
              "create database latin owner mlflow encoding latin1 template template0")  # fmt: skip
    unreachable = "postgresql+psycopg2://mlflow@127.0.0.1:9/mlflow"
    assert "Connection refused" in move(tracking=unreachable).refusal
    said = move(tracking=at("mlflow", "guarded"), **pgpass).refusal
    assert 'password authentication failed for user "guarded"' in said
    assert 'database "nowhere" does not exist' in move(auth=at("nowhere")).refusal
    said = move(tracking=at("mlflow", "other")).refusal
    assert (
        'belongs to the role mlflow, not to other. As an administrator: alter database "mlflow'
        in said
    )
    assert "keeps text as LATIN1" in move(auth=at("latin")).refusal
    assert "two databases" in move(tracking=at("users")).refusal
    execute(copied / "mlflow.db", "update alembic_version set version_num = '451aebb31d03'")
    assert "mlflow.db is of the schema 451aebb31d03" in move(copied).refusal.replace("M", "m", 1)
    assert is_empty(empty)


@pytest.mark.costly
def test_a_database_that_holds_something_stays_as_it_is(move, empty):
    empty.sql("create table runs (n int); insert into runs values (1), (2)", database="mlflow")
    assert "is not empty: it holds runs. " in move().refusal
    empty.sql("grant select on runs to mlflow", database="mlflow")
    assert "is not empty: it holds runs; 2 runs. " in move().refusal
    assert empty.sql("select count(*) from runs", database="mlflow") == "2"
    empty.sql("drop table runs", database="mlflow")
    empty.sql("create function f() returns int language sql as 'select 1'", database="users")
    assert "is not empty: it holds f" in move().refusal


UNFIT = {
    "insert into tags select 'lost', 'x', 'gone' union select 'more', 'x', 'gone'": (
        "Tags refers to what runs does not hold, in 2 rows",
        "delete from tags where not exists (select 1 from runs where runs.run_uuid = ",
    ),
    "update tags set value = 'a' || char(0) where key = 'n' and value = '7'": (
        "row of tags (key=n, run_uuid=", ") holds a NUL character in value, ",
    ),
    "update runs set name = printf('%.*c', 300, 'x') where rowid = 9": (
        "row of runs (run_uuid=", "), name: value too long for type character varying(250)",
    ),
    "update metrics set step = 'many' where rowid = 1500": (
        "row of metrics (key=", '), step: invalid input syntax for type bigint: "many"',
    ),
    "update experiments set last_update_time = 1.5 where experiment_id = 2": (
        "row of experiments (experiment_id=2), last_update_time: ", "invalid input syntax",
    ),
    "update tags set value = cast(x'ff00ff' as text) where rowid = 3": ("UTF-8", "value"),
    "update params set value = x'00ff' where rowid = 3": ("The rows of params", "not the same",),
    "alter table runs add column mine": ("table runs with other columns", ": mine",),
}  # fmt: skip


@pytest.mark.costly
@pytest.mark.parametrize("statement", UNFIT)
def test_what_postgresql_cannot_hold_is_named_and_leaves_it_empty(move, empty, copied, statement):
    execute(copied / "mlflow.db", statement)
    before = hashes(copied)
    said = move(copied).refusal
    for words in UNFIT[statement]:
        assert words in said
    assert is_empty(empty)
    assert hashes(copied) == before


@pytest.mark.costly
def test_nul_characters_are_replaced_where_that_is_asked_for(move, empty, copied):
    execute(
        copied / "mlflow.db",
        "update tags set value = 'a' || char(0) || 'b' where key = 'n' and value in ('7', '8')",
    )
    assert move(copied, options=("replace_nul=true",)).report["replaced"] == 2
    query = "select count(*) from tags where value = 'a\N{REPLACEMENT CHARACTER}b'"
    assert empty.sql(query, database="mlflow") == "2"


@pytest.mark.costly
def test_tables_that_are_not_mlflow_s_stay_behind_and_are_named(move, copied):
    for table in ("mine", "_litestream_seq"):
        execute(copied / "mlflow.db", f"create table {table} as select 1")
    done = move(copied)
    assert "mine" not in done.report["tables"]["mlflow.db"]
    assert [line for line in done.out.splitlines() if line.startswith("@warn")] == [
        "@warn mine is no table of MLflow's: it stays behind, with 1 row"
    ]


# What happens to the rows after they were copied, before they are compared.
DAMAGE = {
    "update params set value = case key when 'p' then (select value from params where key = "
    "'empty' limit 1) else value end where run_uuid = (select min(run_uuid) from params)": "params",
    "update metrics set step = -step where key = 'loss' and step < 2": "metrics",
    "update latest_metrics set value = float8 '0.33333333333333337' where value = 1 / float8 '3'": (
        "latest_metrics"
    ),
    "update runs set name = rtrim(name, 'z') || ' ' where run_uuid = (select max(run_uuid) from "
    "runs)": "runs",
    "delete from tags where key = 'n' and value = '7'": "tags",
}


@pytest.mark.costly
@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_is_not_the_same_afterwards_is_noticed_and_taken_away(move, empty, damage):
    first = (
        "import target; real = target._set_sequences\n"
        "def wrong(cursor):\n"
        "    real(cursor)\n"
        "    cursor.execute(\"select to_regclass('runs') is not null\")\n"
        f"    if cursor.fetchone()[0]: cursor.execute({damage!r})\n"
        "target._set_sequences = wrong"
    )
    said = move(first=first).refusal
    assert f" {DAMAGE[damage]} of mlflow.db" in said.replace("@fail Tags", "@fail  tags")
    assert is_empty(empty)


@pytest.mark.costly
def test_a_store_that_is_written_to_meanwhile_is_not_moved(move, empty, copied):
    first = (
        "import target; real = target._set_sequences\n"
        "def wrong(cursor):\n"
        "    real(cursor)\n"
        "    import sqlite3\n"
        f"    base = sqlite3.connect({str(copied / 'basic_auth.db')!r}, isolation_level=None)\n"
        "    base.execute('update users set is_admin = 0')\n"
        "target._set_sequences = wrong"
    )
    # Before it was copied, so that both sides are the same.
    assert "somebody wrote to the sqlite files" in move(copied, first=first).refusal.lower()
    assert is_empty(empty)


# -- what is interrupted ---------------------------------------------------------------------------


@pytest.mark.costly
def test_a_move_that_is_killed_ten_times_is_whole_in_the_end(move, empty, made, request):
    before, seconds = hashes(made), {}
    for by_mlflow in (True, False):
        began = time.monotonic()
        whole = move(by_mlflow=by_mlflow).report
        seconds[by_mlflow] = time.monotonic() - began
    chance = random.Random("a move that is killed")
    killed = 0
    for n in range(10):
        # MLflow's part takes longest.
        by_mlflow = n in (3, 7)
        moment = chance.random() * seconds[by_mlflow]
        killed += move(by_mlflow=by_mlflow, kill_after=moment).code == -signal.SIGKILL
        if n % 3 == 0 or request.config.getoption("full"):
            assert move().report["tables"] == whole["tables"]
    assert killed >= 5
    assert move().report["tables"] == whole["tables"]
    assert hashes(made) == before
    assert empty.sql("select count(*) from pg_stat_activity where datname = 'mlflow'") == "0"
