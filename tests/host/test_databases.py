"""Both databases: copied at one moment, examined, migrated, and served on the side."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from host_side import HOST, RELEASE, execute, rows

from tasks.engine.templates import source


@pytest.fixture
def databases(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HOST))
    return importlib.import_module("databases")


# -- copying -----------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(root: Path) -> Iterator[None]:
    """Write to one database and then to the other, again and again; the first is ahead by one."""
    begun, stop = threading.Event(), threading.Event()

    def write() -> None:
        with (
            contextlib.closing(sqlite3.connect(root / "mlflow.db", timeout=30)) as first,
            contextlib.closing(sqlite3.connect(root / "basic_auth.db", timeout=30)) as second,
        ):
            for n in range(100_000):
                for base in (first, second):
                    with base:
                        base.execute("insert into written values (?)", (n,))
                if n == 20:
                    begun.set()
                if stop.is_set():
                    return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(30)
        yield
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_both_databases_are_copied_as_they_were_at_one_moment(databases, root, tmp_path, mode):
    for name in databases.NAMES:
        execute(root / name, f"pragma journal_mode={mode}")
        execute(root / name, "create table written (n)")
    # The first takes long to copy: the second is written to meanwhile.
    for n in range(20):
        execute(root / "mlflow.db", "insert into metrics values (?, ?)", n, "x" * 1_000_000)
    for n in range(5):
        folder = tmp_path / str(n)
        folder.mkdir()
        with writing(root):
            databases.copy(str(root), databases.NAMES, str(folder))
            time.sleep(0.02)
        first, second = (
            rows(folder / name, "select count(*), max(n) + 1 from written")[0]
            for name in databases.NAMES
        )
        assert first[0] - second[0] in (0, 1)
        assert first[0] >= 20
        for name in databases.NAMES:
            execute(root / name, "delete from written")


def test_a_copy_is_one_file_in_which_nothing_is_missing(databases, root, tmp_path):
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as base:
        base.execute("insert into runs values ('late', 5000, 'active')")
        base.commit()
        databases.copy(str(root), ("mlflow.db",), str(tmp_path))
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["mlflow.db"]
    assert rows(tmp_path / "mlflow.db", "pragma journal_mode") == [("delete",)]
    assert rows(tmp_path / "mlflow.db", "select count(*) from runs") == [(4,)]


MEANWHILE = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
base.execute("update metrics set filler = 'new'")
base.execute("delete from metrics where n = 1")
base.execute("insert into metrics select n + 100, hex(randomblob(100000)) from metrics")
for how in ("passive", "restart", "truncate"):
    base.execute(f"pragma wal_checkpoint({how})")
base.execute("insert into runs values (hex(randomblob(4)), 5000, 'active')")
"""


@pytest.mark.parametrize("log", ["empty", "full"])
def test_a_file_is_whole_that_is_written_and_checkpointed_while_it_is_copied(
    databases, root, tmp_path, monkeypatch, log
):
    """By another process, which then ends: the last one to close a database removes its log."""
    base = root / "mlflow.db"
    for name in databases.NAMES:
        execute(root / name, "pragma journal_mode=wal")
    for n in range(1, 5):
        execute(base, "insert into metrics values (?, ?)", n, "x" * 1_000_000)
    begin = subprocess.Popen

    def then_a_writer(command, **options):
        copying = begin(command, **options)
        if "dd" in command and not any("-wal" in word for word in command):
            copying.wait()
            # While the second is copied, the first still has to have its locks.
            begin([sys.executable, "-c", MEANWHILE, base]).wait()
        return copying

    with contextlib.closing(sqlite3.connect(base, isolation_level=None)) as reader:
        if log == "full":
            reader.execute("update metrics set filler = 'y' where n = 2")
        monkeypatch.setattr(subprocess, "Popen", then_a_writer)
        databases.copy(str(root), databases.NAMES, str(tmp_path))
    copy = tmp_path / "mlflow.db"
    assert rows(copy, "pragma integrity_check") == [("ok",)]
    for query in ("select * from metrics order by n", "select * from runs"):
        assert rows(copy, query) == rows(base, query)
    assert rows(copy, "select count(*) from runs") == [(6,)]


def links(root: Path, secret: Path) -> None:
    (root / "mlflow.db-wal").unlink()
    (root / "mlflow.db-wal").symlink_to(secret)


def waits_for_readers(root: Path, secret: Path) -> None:
    """Hold the writers back, as a checkpoint does that waits for all readers to end."""
    holder = sqlite3.connect(root / "basic_auth.db", isolation_level=None, check_same_thread=False)
    holder.execute("begin immediate")
    threading.Timer(2, holder.close).start()


@pytest.mark.parametrize("enemy", [links, waits_for_readers])
def test_where_no_file_can_be_copied_sqlite_copies_pages(
    databases, root, tmp_path, monkeypatch, enemy
):
    for name in databases.NAMES:
        execute(root / name, "pragma journal_mode=wal")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    monkeypatch.setattr(databases, "PATIENCE", 0)
    shut = databases._shut

    @contextlib.contextmanager
    def then_an_enemy(gates):
        with shut(gates):
            yield
        enemy(root, secret)

    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as base, base:
        base.execute("insert into runs values ('late', 5000, 'active')")
        base.commit()
        monkeypatch.setattr(databases, "_shut", then_an_enemy)
        databases.copy(str(root), databases.NAMES, str(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == sorted(
        [*databases.NAMES, "secret"]
    )
    assert rows(tmp_path / "mlflow.db", "pragma integrity_check") == [("ok",)]
    assert rows(tmp_path / "mlflow.db", "select count(*) from runs") == [(4,)]


def test_a_link_is_not_copied(databases, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "mlflow.db").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=r"^mlflow.db could not be copied$"):
        databases._copy_file(tmp_path / "mlflow.db", tmp_path / "copy")
    assert not (tmp_path / "copy").exists() or not (tmp_path / "copy").read_bytes()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, 2 << 20, (5 << 20) + 7])
def test_a_file_of_any_size_is_copied_whole(databases, tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    databases._copy_file(tmp_path / "file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(databases, tmp_path):
    os.mkfifo(tmp_path / "mlflow.db-wal")
    databases._copy_file(tmp_path / "mlflow.db-wal", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b""


def test_nobody_is_kept_from_writing_once_a_copy_is_made(databases, root, tmp_path):
    databases.copy(str(root), databases.NAMES, str(tmp_path))
    with contextlib.closing(sqlite3.connect(root / "mlflow.db", timeout=0)) as base, base:
        base.execute("insert into runs values ('late', 5000, 'active')")


def test_a_database_that_is_gone_is_not_copied_as_an_empty_one(databases, root, tmp_path):
    (root / "mlflow.db").unlink()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        databases.copy(str(root), databases.NAMES, str(tmp_path))
    assert not (root / "mlflow.db").exists()


def test_the_size_of_a_database_counts_its_log(databases, root):
    alone = databases.size(str(root), "mlflow.db")
    assert alone == (root / "mlflow.db").stat().st_size
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as base:
        base.execute("insert into metrics values (1, ?)", ("x" * 50_000,))
        base.commit()
        assert databases.size(str(root), "mlflow.db") > alone + 50_000


def test_a_log_that_sqlite_has_just_removed_is_not_missed(databases, root, monkeypatch):
    monkeypatch.setattr("os.path.exists", lambda path: True)  # so it was when it was asked
    assert databases.size(str(root), "mlflow.db") == (root / "mlflow.db").stat().st_size


# -- examining ---------------------------------------------------------------------------------


def damage_index(file: Path) -> None:
    """Have an index say something else than its table: only a thorough check sees that."""
    execute(file, "pragma journal_mode=delete")
    execute(file, "create index by_n on metrics (n)")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as base:
        base.execute("pragma writable_schema=on")
        base.execute("update sqlite_master set sql = replace(sql, '(n)', '(filler)') "
                     "where name = 'by_n'")  # fmt: skip


def test_a_sound_database_is_counted_table_by_table(databases, root):
    execute(root / "mlflow.db", 'create table "order" (a integer primary key autoincrement)')
    execute(root / "mlflow.db", 'insert into "order" values (null)')
    seen = databases.examine(str(root / "mlflow.db"))
    assert seen["counts"] == {"alembic_version": 1, "runs": 3, "metrics": 3, "order": 1}
    assert (seen["revision"], seen["newest_run"], seen["dangling"]) == ("r1", 1002, 0)


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (
            ("drop table alembic_version",),
            "mlflow.db holds no MLflow schema: the table alembic_version is missing",
        ),
        (("delete from alembic_version",), "mlflow.db has 0 schema revisions, where one is right"),
        (
            ("insert into alembic_version values ('r0')",),
            "mlflow.db has 2 schema revisions, where one is right",
        ),
    ],
)
def test_a_database_that_is_not_mlflow_s_is_refused(databases, root, statements, said):
    for statement in statements:
        execute(root / "mlflow.db", statement)
    with pytest.raises(databases.Damaged) as caught:
        databases.examine(str(root / "mlflow.db"))
    assert str(caught.value) == said


def test_an_index_that_contradicts_its_table_is_damage(databases, root):
    damage_index(root / "mlflow.db")
    with pytest.raises(databases.Damaged, match=r"^the database mlflow\.db is damaged: "):
        databases.examine(str(root / "mlflow.db"))


def test_a_list_of_free_pages_that_contradicts_the_file_is_damage(databases, root):
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as base:
        base.execute("pragma wal_checkpoint(truncate)")
    with open(root / "mlflow.db", "r+b") as stream:
        stream.seek(36)  # where the header counts them (SQLite's "Database File Format", 1.3)
        stream.write((7).to_bytes(4, "big"))
    with pytest.raises(databases.Damaged, match=r"^the database mlflow\.db is damaged: "):
        databases.examine(str(root / "mlflow.db"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no database" * 99, "the database mlflow.db cannot be read: file is not a database"),
        (None, "the database mlflow.db cannot be read: unable to open database file"),
    ],
)
def test_what_is_no_database_is_damage(databases, tmp_path, content, said):
    if content:
        (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(databases.Damaged) as caught:
        databases.examine(str(tmp_path / "mlflow.db"))
    assert str(caught.value) == said
    assert (tmp_path / "mlflow.db").exists() is (content is not None)


def test_a_truncated_database_is_damage(databases, root):
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as base:
        base.execute("pragma wal_checkpoint(truncate)")
    whole = (root / "mlflow.db").read_bytes()
    (root / "mlflow.db").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(databases.Damaged):
        databases.examine(str(root / "mlflow.db"))


def test_rows_that_refer_to_nothing_are_counted_and_no_damage(databases, root):
    execute(root / "mlflow.db", "create table parents (id integer primary key)")
    execute(root / "mlflow.db", "create table children (parent references parents (id))")
    for n in (7, 8):
        execute(root / "mlflow.db", "insert into children values (?)", n)
    assert databases.examine(str(root / "mlflow.db"))["dangling"] == 2


# -- revisions ---------------------------------------------------------------------------------


def release_with(root: Path, revision: str, former: str, name: str = "mlflow.db") -> Path:
    """Have the release know one more revision."""
    release = root / "releases" / RELEASE
    place = {"mlflow.db": "store", "basic_auth.db": "auth"}[name]
    (versions,) = (
        path for path in release.rglob("versions") if (place == "auth") == ("auth" in path.parts)
    )
    text = f"revision = '{revision}'\ndown_revision = '{former}'\n"
    (versions / f"{revision}.py").write_text(text)
    return release


def test_a_release_s_newest_revision_is_the_one_that_nothing_follows(databases, root):
    release = release_with(root, "r2", "r1")
    assert databases.revisions(str(release), "mlflow.db") == ({"r0", "r1", "r2"}, "r2")
    assert databases.revisions(str(release), "basic_auth.db") == ({"a1"}, "a1")
    release_with(root, "r2b", "r1")
    assert databases.revisions(str(release), "mlflow.db")[1] is None, "two heads"
    assert databases.revisions("/nowhere", "mlflow.db") == (set(), None)


@pytest.mark.parametrize("name", ["mlflow.db", "basic_auth.db"])
def test_mlflow_s_own_migrations_are_read(databases, name):
    known, newest = databases.revisions(sys.prefix, name)
    assert newest in known
    assert len(known) > 3


# -- migrate.py --------------------------------------------------------------------------------


class Migrations:
    """What MLflow's own migrations would do: a statement for each database, or an error."""

    def __init__(self) -> None:
        self.tracking = ["update alembic_version set version_num = 'r2'"]
        self.auth = ["update alembic_version_auth set version_num = 'a2'"]
        self.done: list[str] = []

    def migrate(self, engine: Any, statements: list[str], name: str) -> None:
        from sqlalchemy import text

        self.done.append(name)
        with engine.begin() as base:
            for statement in statements:
                base.execute(text(statement))


@pytest.fixture
def migrations(root: Path, monkeypatch: pytest.MonkeyPatch) -> Migrations:
    from sqlalchemy import create_engine

    played = Migrations()
    tracking = types.SimpleNamespace(
        _upgrade_db=lambda engine: played.migrate(engine, played.tracking, "mlflow.db"),
        create_sqlalchemy_engine=create_engine,
    )
    auth = types.SimpleNamespace(
        migrate=lambda engine, to: played.migrate(engine, played.auth, "basic_auth.db")
    )
    for name in (
        "mlflow", "mlflow.store", "mlflow.store.db", "mlflow.server", "mlflow.server.auth",
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "mlflow.store.db.utils", tracking)
    db = types.ModuleType("mlflow.server.auth.db")
    db.utils = auth  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow.server.auth.db", db)
    monkeypatch.setitem(sys.modules, "mlflow.server.auth.db.utils", auth)
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "unused")
    monkeypatch.setattr(sys, "prefix", str(root / "releases" / RELEASE))
    return played


@pytest.fixture
def migrate(root: Path, migrations: Migrations, run_program: Any) -> Callable[[], tuple[int, str]]:
    return lambda: run_program("migrate.py", folder=root)


def migrated(done: tuple[int, str]) -> list[str]:
    code, out = done
    assert code == 0, out
    assert out.count("@say migrate ") == out.count(".db to the release's schema\n")
    return json.loads(out.rpartition("@report ")[2])["migrated"]


def refused(done: tuple[int, str]) -> str:
    code, out = done
    assert code == 1
    out = out.splitlines()[-1]
    start, end = "@fail The databases cannot be migrated: ", ". Nothing was changed."
    assert out.startswith(start)
    assert out.endswith(end)
    return out.removeprefix(start).removesuffix(end)


def test_databases_of_the_newest_schema_only_begin_to_write_ahead(migrate, migrations, root):
    for name in ("mlflow.db", "basic_auth.db"):
        execute(root / name, "pragma journal_mode=delete")
    assert migrated(migrate()) == []
    assert migrations.done == []
    for name in ("mlflow.db", "basic_auth.db"):
        assert rows(root / name, "pragma journal_mode") == [("wal",)]


def test_each_database_is_migrated_where_it_is_older(migrate, root):
    release_with(root, "r2", "r1")
    assert migrated(migrate()) == ["mlflow.db"]
    assert rows(root / "mlflow.db", "select version_num from alembic_version") == [("r2",)]
    release_with(root, "a2", "a1", "basic_auth.db")
    assert migrated(migrate()) == ["basic_auth.db"]
    assert migrated(migrate()) == []


def test_a_database_of_a_newer_mlflow_is_refused(migrate, migrations, root):
    execute(root / "mlflow.db", "update alembic_version set version_num = 'r9'")
    assert refused(migrate()) == (
        f"mlflow.db was made by a newer MLflow than {RELEASE.partition('-')[0]}; set that one's "
        "`version:` in fabric.yaml"
    )
    assert migrations.done == []


def test_a_migration_that_loses_what_somebody_made_is_refused(migrate, migrations, root):
    release_with(root, "r2", "r1")
    migrations.tracking.append("delete from runs where run_uuid = 'run1'")
    assert refused(migrate()) == "the migration lost rows of runs: 3, now 2"


def test_a_migration_may_rebuild_what_nobody_made(migrate, migrations, root):
    execute(root / "mlflow.db", "create table scratch (a)")
    execute(root / "mlflow.db", "insert into scratch values (1)")
    release_with(root, "r2", "r1")
    migrations.tracking += ["drop table scratch", "insert into runs values ('new', 1, 'active')"]
    assert migrated(migrate()) == ["mlflow.db"]


def test_a_migration_that_ends_elsewhere_is_refused(migrate, migrations, root):
    release_with(root, "r2", "r1")
    migrations.tracking = ["update alembic_version set version_num = 'r0'"]
    assert refused(migrate()) == "the migration of mlflow.db ended at r0"


def test_whatever_a_migration_raises_is_one_line(migrate, migrations, root):
    release_with(root, "r2", "r1")
    migrations.tracking.append("insert into nowhere values (1)")
    assert refused(migrate()) == "(sqlite3.OperationalError) no such table: nowhere"


def test_damage_is_found_before_a_migration_begins(migrate, migrations, root):
    release_with(root, "r2", "r1")
    damage_index(root / "mlflow.db")
    assert refused(migrate()).startswith("the database mlflow.db is damaged: ")
    assert migrations.done == []


def test_what_migrations_hang_on_is_there_in_mlflow():
    """Internal to MLflow: without these the host's migrations would fail on the host alone."""
    (package,) = Path(sys.prefix).glob("lib/python3*/site-packages/mlflow")
    tracking = (package / "store/db/utils.py").read_text()
    assert "\ndef _upgrade_db(engine" in tracking
    assert "\ndef create_sqlalchemy_engine(db_uri" in tracking
    assert "\ndef migrate(engine: " in (package / "server/auth/db/utils.py").read_text()


# -- try_server.py -----------------------------------------------------------------------------

# Plays MLflow's server (one_process.py) on a unix socket: knows the admin of its ini, and does as
# it is told.
SERVER = """
import base64, configparser, http.server, json, os, socketserver, sys, urllib.parse

here = "{folder}"
told = json.load(open(here + "/told.json"))
with open(here + "/pid", "w") as stream:
    stream.write(str(os.getpid()))
with open(here + "/seen.json", "w") as stream:
    json.dump({{"words": sys.argv, "environment": dict(os.environ)}}, stream)
if "error" in told:
    print(told["error"], flush=True)
    sys.exit(1)
ini = configparser.ConfigParser(interpolation=None)
ini.read(os.environ["MLFLOW_AUTH_CONFIG_PATH"])
pair = ini["mlflow"]["admin_username"] + ":" + ini["mlflow"]["admin_password"]
login = "Basic " + base64.b64encode(pair.encode()).decode()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        place = urllib.parse.urlsplit(self.path)
        name = place.path.rsplit("/", 1)[-1]
        status = told.get(name, 200)
        if name != "health" and self.headers["Authorization"] != login:
            status = 401
        run = dict(urllib.parse.parse_qsl(place.query)).get("run_id")
        body = json.dumps({{"run": {{"info": {{"run_id": told.get("run", run)}}}}}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

    def address_string(self):
        return "client"

address = sys.argv[sys.argv.index("--uvicorn-opts") + 1].split()[1]
socketserver.UnixStreamServer(address, Handler).serve_forever()
"""


class Trial:
    """A release whose server does as it is told, beside the program that tries it."""

    def __init__(self, folder: Path, databases: Path, run_program: Any) -> None:
        self.folder, self.databases, self._run_program = folder, databases, run_program
        (folder / "here").mkdir()
        (folder / "here/try_server.py").write_text(source("try_server.py"))
        (folder / "here/one_process.py").write_text(SERVER.format(folder=folder))

    def run(self, **told: Any) -> tuple[int, str]:
        (self.folder / "told.json").write_text(json.dumps(told))
        place = dict.fromkeys(("backup_prefix", "environment"), "") | {
            "bucket": "my-bucket", "prefix": "mlflow-artifacts",
        }  # fmt: skip
        here = self.folder / "here"
        return self._run_program("try_server.py", place=place, folder=self.databases, staged=here)

    @property
    def seen(self) -> dict[str, Any]:
        return json.loads((self.folder / "seen.json").read_text())

    @property
    def is_over(self) -> bool:
        pid = (self.folder / "pid").read_text()
        return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def trial(
    root: Path, databases: Any, run_program: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trial]:
    # A socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="try", dir="/tmp"))
    yield Trial(folder, root, run_program)
    shutil.rmtree(folder)


def untouched(root: Path) -> tuple[Any, ...]:
    return (
        sorted(path.name for path in root.glob("*.db*")),
        rows(root / "basic_auth.db", "select username from users"),
        rows(root / "mlflow.db", "select run_uuid from runs"),
    )


def test_a_release_that_serves_the_databases_passes_and_leaves_nothing(trial, root):
    before = untouched(root)
    execute(root / "mlflow.db", "insert into runs values ('gone', 9000, 'deleted')")
    code, out = trial.run()
    assert code == 0, out
    assert json.loads(out.removeprefix("@report "))["run"] == "run2", "the newest that is active"
    execute(root / "mlflow.db", "delete from runs where run_uuid = 'gone'")
    assert untouched(root) == before
    assert trial.is_over
    assert sorted(os.listdir(trial.folder / "here")) == ["one_process.py", "try_server.py"]


def test_it_is_served_as_the_server_itself_would_and_no_password_is_told(trial, root):
    trial.run()
    environment, words = trial.seen["environment"], trial.seen["words"]
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{root}/mlflow.db"
    assert environment["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://my-bucket/mlflow-artifacts"
    # The program is one_process.py, as the unit's: MLflow is loaded once.
    assert Path(words[0]).name == "mlflow"
    assert words[1:4] == ["server", "--app-name", "basic-auth"]
    assert "127.0.0.1" not in " ".join(words)
    assert not any("password" in word for word in words)


def test_a_database_without_runs_is_served_too(trial, root):
    execute(root / "mlflow.db", "delete from runs")
    code, out = trial.run()
    assert (code, json.loads(out.removeprefix("@report "))["run"]) == (0, None)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"error": "noise\nModuleNotFoundError: No module named x\nbye"},
         "it ended at its start: ModuleNotFoundError: No module named x"),
        ({"error": ""}, "it ended at its start: its log is empty"),
        ({"search": 500}, "it cannot search experiments (500: "),
        ({"search": 401}, "it cannot search experiments (401: "),
        ({"get": 404}, "it cannot read the newest run (404: "),
        ({"run": "another"}, "it answers with another run than it was asked for"),
        ({"artifacts": 403}, "it cannot list the bucket (403: "),
    ],
)  # fmt: skip
def test_a_release_that_does_not_serve_says_why_and_is_ended(trial, root, told, said):
    before = untouched(root)
    code, out = trial.run(**told)
    assert code == 1
    assert out.startswith(f"@fail MLflow does not serve these databases: {said}")
    assert out.endswith(". Nothing was changed.\n")
    assert out.count("\n") == 1
    assert trial.is_over
    assert untouched(root) == before
    assert sorted(os.listdir(trial.folder / "here")) == ["one_process.py", "try_server.py"]


# -- postgres.py -------------------------------------------------------------------------------


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HOST))
    return importlib.import_module("postgres")


URI = "postgresql+psycopg2://u:p%40ss@db.example.org:5433/mlflow?sslmode=require"


def test_a_uri_becomes_the_variables_of_postgresql_s_own_programs(postgres):
    found = postgres.environment(URI)
    assert {key: value for key, value in found.items() if key.startswith("PG")} == {
        "PGHOST": "db.example.org", "PGPORT": "5433", "PGUSER": "u", "PGPASSWORD": "p@ss",
        "PGDATABASE": "mlflow", "PGSSLMODE": "require",
    }  # fmt: skip
    assert "PGPORT" not in postgres.environment("postgresql://h/d")


def test_the_password_never_stands_in_a_command_line(postgres, tmp_path, monkeypatch):
    program = tmp_path / "pg_dump"
    program.write_text(f'#!/bin/bash\necho "$*" > {tmp_path}/words; [ "$PGPASSWORD" = p@ss ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    postgres.run("pg_dump", "-Fc", uri=URI)
    assert (tmp_path / "words").read_text() == "--no-password -Fc\n"


def test_what_a_program_of_postgresql_s_says_last_is_the_reason(postgres, tmp_path, monkeypatch):
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/bash\necho first >&2; echo 'it is so' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(postgres.Refused, match=r"^pg_dump says: it is so$"):
        postgres.run("pg_dump", uri=URI)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(postgres.Refused, match=r"lacks pg_dump \(apt install postgresql-client\)"):
        postgres.run("pg_dump", uri=URI)


# -- beside.py ---------------------------------------------------------------------------------

STORE = "postgresql+psycopg2://mlflow@/mlflow?host=/var/run/postgresql"


class Administrator:
    """Stands in for what beside.py asks of PostgreSQL; a database in use is neither pattern nor
    dropped.
    """

    def __init__(self, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: list[tuple[str, ...]] = []
        self.in_use: set[str] = set()
        self.module = module
        for name in ("make", "copy", "drop"):
            monkeypatch.setattr(module, name, getattr(self, name))

    def make(self, uri: str, present: str, like: str | None = None) -> bool:
        if like in self.in_use:
            return False
        self.did.append(("make", uri, like or "empty"))
        return True

    def copy(self, uri: str, target: str) -> None:
        self.did.append(("copy", uri, target))

    def drop(self, uri: str) -> None:
        if uri in self.in_use:
            raise self.module.Refused("it is being accessed by other users")
        self.did.append(("drop", uri))


@pytest.fixture
def administrator(postgres: Any, monkeypatch: pytest.MonkeyPatch) -> Administrator:
    return Administrator(postgres, monkeypatch)


@pytest.fixture
def beside(administrator: Administrator, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = importlib.import_module("beside")
    moment = time.struct_time((2026, 11, 25, 17, 0, 0, 0, 0, 0))
    monkeypatch.setattr(module.time, "gmtime", lambda: moment)
    return module


@pytest.fixture
def on_postgres(tmp_path: Path) -> Path:
    """The folder of a server on PostgreSQL, and a new state's."""
    (tmp_path / "next.part").mkdir()
    (tmp_path / "server.env").write_text(
        "# Made once\nSECRET=1\n"
        f"MLFLOW_BACKEND_STORE_URI='{STORE}'\nAUTH_STORE_URI='{users(STORE)}'\n"
    )
    (tmp_path / ".mlflow_auth_config").write_text(
        f"[mlflow]\ndatabase_uri = {users(STORE)}\nx = 1\n"
    )
    return tmp_path


def users(uri: str) -> str:
    return uri.replace("?", "_auth?")


NEW = STORE.replace("/mlflow?", "/mlflow_20261125t170000z?")


def copied(beside: Any, root: Path) -> None:
    beside.copy(str(root), str(root / "next.part"))


def test_copies_have_names_of_their_own_which_the_new_state_holds(
    beside, administrator, on_postgres
):
    copied(beside, on_postgres)
    assert administrator.did == [("make", NEW, STORE), ("make", users(NEW), users(STORE))]
    next = on_postgres / "next.part"
    assert (next / "server.env").read_text() == (
        f"# Made once\nSECRET=1\nMLFLOW_BACKEND_STORE_URI='{NEW}'\nAUTH_STORE_URI='{users(NEW)}'\n"
    )
    login = (next / ".mlflow_auth_config").read_text()
    assert login == f"[mlflow]\ndatabase_uri = {users(NEW)}\nx = 1\n"
    assert STORE in (on_postgres / "server.env").read_text()
    assert {oct((next / name).stat().st_mode)[-3:] for name in os.listdir(next)} == {"600"}


def test_what_somebody_uses_is_copied_by_a_dump(beside, administrator, on_postgres):
    administrator.in_use = {STORE}
    copied(beside, on_postgres)
    assert administrator.did[:2] == [("make", NEW, "empty"), ("copy", STORE, NEW)]


def test_a_copy_of_a_copy_is_named_for_the_first(beside, on_postgres):
    older = STORE.replace("/mlflow?", "/mlflow_20260101t000000z?")
    text = (on_postgres / "server.env").read_text()
    text = text.replace(STORE, older).replace(users(STORE), users(older))
    (on_postgres / "server.env").write_text(text)
    assert beside.new(str(on_postgres), str(on_postgres / "next.part"))["mlflow.db"] == NEW


def test_a_name_is_never_longer_than_postgresql_takes(beside, on_postgres):
    text = (on_postgres / "server.env").read_text().replace("/mlflow", "/" + "m" * 60)
    (on_postgres / "server.env").write_text(text)
    found = beside.new(str(on_postgres), str(on_postgres / "next.part"))["basic_auth.db"]
    assert len(beside.database(found)) == 63


def test_only_what_was_made_here_and_no_state_names_is_dropped(beside, administrator, on_postgres):
    copied(beside, on_postgres)
    former = on_postgres / "former/20261125T170000Z"
    former.mkdir(parents=True)
    shutil.copy(on_postgres / "next.part/server.env", former)
    shutil.rmtree(on_postgres / "next.part")
    administrator.did.clear()
    beside.tidy(str(on_postgres))
    assert administrator.did == []
    shutil.rmtree(former)
    administrator.in_use = {NEW}
    beside.tidy(str(on_postgres))
    assert administrator.did == [("drop", users(NEW))]
    assert (on_postgres / ".databases").read_text() == NEW + "\n"
    administrator.in_use = set()
    beside.tidy(str(on_postgres))
    assert administrator.did[1:] == [("drop", NEW)]
    assert (on_postgres / ".databases").read_text() == ""


def test_what_is_killed_before_its_databases_are_made_is_noted(beside, administrator, on_postgres):
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    administrator.module.make = killed
    with pytest.raises(KeyboardInterrupt):
        copied(beside, on_postgres)
    assert (on_postgres / ".databases").read_text() == f"{NEW}\n{users(NEW)}\n"
    administrator.did.clear()
    shutil.rmtree(on_postgres / "next.part")
    beside.tidy(str(on_postgres))
    assert administrator.did == [("drop", NEW), ("drop", users(NEW))]


def test_a_percent_sign_is_doubled_in_the_login_s_file(beside, on_postgres):
    odd = users(STORE).replace("mlflow@", "ml%40flow@")
    beside.lay(str(on_postgres), str(on_postgres / "next.part"), {"basic_auth.db": odd})
    assert "ml%%40flow@" in (on_postgres / "next.part/.mlflow_auth_config").read_text()
