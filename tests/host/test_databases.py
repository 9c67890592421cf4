"""Both databases: copied at one moment, examined, and what their revisions say."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_side import damage_index, execute, release_with, rows

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


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ("a integer references parents (id), b integer", 2),
        ("a references parents (id), b", 2),
        ("a integer references PARENTS (id), b integer", 2),
        ("a integer references parents, b integer", 2),
        ("a integer references parents (id), b integer references parents (id)", 5),
        ("a integer references parents (id), b integer references parents", 5),
        ("a integer, b integer, foreign key (a, b) references pairs (a, b)", 2),
        ("a integer references gone (id), b integer", 3),
        ("a text references parents (id), b integer", 2),
        ("a integer references texts (id), b integer", 2),
    ],
)
def test_rows_that_refer_to_nothing_are_counted_and_no_damage(
    databases, root, columns, wanted, indexed
):
    path = root / "mlflow.db"
    execute(path, "create table parents (id integer primary key)")
    execute(path, "create table pairs (a integer, b integer, primary key (a, b))")
    execute(path, f"create table children ({columns})")
    if indexed:
        execute(path, "create index a_child on children (a)")
        execute(path, "create index b_child on children (b)")
    execute(path, "create table texts (id text primary key)")
    execute(path, "insert into parents values (1)")
    execute(path, "insert into texts values ('1')")
    execute(path, "insert into pairs values (1, 1)")
    execute(path, "insert into children values (1, 1), (7, 7), (7, 8), (null, 7)")
    assert len(rows(path, "pragma foreign_key_check")) == wanted  # so SQLite itself says
    assert databases.examine(str(path))["dangling"] == wanted


@pytest.mark.parametrize(
    ("parent", "child", "index", "wanted"),
    [
        ("id text primary key", "a text", True, True),
        ("id text primary key", "a text", False, False),  # it would sort them, maybe on a full disk
        ("id text", "a text", True, False),  # it would look through all of the parents each time
        ("id text primary key", "a integer", True, False),
    ],
)
def test_references_are_counted_by_value_only_where_indexes_serve(
    databases, tmp_path, parent, child, index, wanted
):
    execute(tmp_path / "x.db", f"create table parents ({parent})")
    execute(tmp_path / "x.db", f"create table children ({child})")
    if index:
        execute(tmp_path / "x.db", "create index a_child on children (a)")
    query = databases.MISSING.format(table="children", parent="parents", of="a", to="id")
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as base:
        assert databases._by_index(base, query) is wanted


# -- revisions ---------------------------------------------------------------------------------


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
