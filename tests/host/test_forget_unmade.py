"""Databases that hold nothing go before a first start; whatever holds a row stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from host_side import execute, program

TRACKING = ("experiments", "runs", "workspaces", "alembic_version")
AUTH = ("users", "alembic_version_auth")

Forgotten = Callable[[], set[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A server's folder with the tables that MLflow makes first, and what it writes by itself."""
    root = tmp_path / "server"
    (root / "data").mkdir(parents=True)
    (root / "server.env").write_text("MLFLOW_FLASK_SERVER_SECRET_KEY=x\n")
    for name, tables in (("mlflow.db", TRACKING), ("basic_auth.db", AUTH)):
        (root / name).symlink_to(f"data/{name}")
        for table in tables:
            execute(root / "data" / name, f"create table {table} (name)")
        execute(root / "data" / name, f"insert into {tables[-1]} values ('abc')")
    execute(root / "data/mlflow.db", "insert into workspaces values ('default')")
    return root


@pytest.fixture
def left(root: Path, capsys: pytest.CaptureFixture[str]) -> Forgotten:
    """Run it; returns the files of databases that are left."""

    def run() -> set[str]:
        code, said = program(capsys, "forget_unmade.py", f"root={root}")
        assert code == 0
        assert all(line.endswith("anew, which holds nothing yet") for line in said.splitlines())
        return {file.name for file in (root / "data").iterdir()}

    return run


def test_tables_without_rows_are_removed(root, capsys):
    said = "@say make mlflow.db anew, which holds nothing yet\n"
    said += "@say make basic_auth.db anew, which holds nothing yet\n"
    assert program(capsys, "forget_unmade.py", f"root={root}") == (0, said)
    assert list((root / "data").iterdir()) == []


def test_what_lies_in_the_server_s_own_folder_is_removed_as_well(root, left):
    (root / "mlflow.db").unlink()
    (root / "data/mlflow.db").rename(root / "mlflow.db")
    left()
    assert not (root / "mlflow.db").exists()


def test_a_log_goes_with_its_database(root, left):
    base = sqlite3.connect(root / "data/mlflow.db")
    base.execute("pragma journal_mode=wal")
    base.execute("create table tags (a)")
    with closing(base):
        assert (root / "data/mlflow.db-wal").exists()
        assert left() == set()


@pytest.mark.parametrize(
    ("table", "name"),
    [("experiments", "mlflow.db"), ("runs", "mlflow.db"), ("users", "basic_auth.db")],
)
def test_a_database_with_a_row_stays(root, left, table, name):
    execute(root / "data" / name, f"insert into {table} values (0)")
    assert left() == {name}


def test_a_table_of_somebody_s_own_counts_whatever_its_name(root, left):
    name = '"its ""mine"""'
    execute(root / "data/mlflow.db", f"create table {name} (a)")
    execute(root / "data/mlflow.db", f"insert into {name} values (1)")
    assert left() == {"mlflow.db"}


@pytest.mark.parametrize("name", ["sqlitedump", '"SQLITE-mine"', "alembic"])
def test_a_table_that_is_called_nearly_as_one_that_does_not_count_counts(root, left, name):
    execute(root / "data/mlflow.db", f"create table {name} (a)")
    execute(root / "data/mlflow.db", f"insert into {name} values (1)")
    assert left() == {"mlflow.db"}


def test_a_workspace_of_somebody_s_own_counts(root, left):
    execute(root / "data/mlflow.db", "insert into workspaces values ('team')")
    assert left() == {"mlflow.db"}


def test_what_cannot_be_removed_is_left_to_whoever_needs_it(root, capsys, monkeypatch):
    def refused(path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("os.unlink", refused)
    assert program(capsys, "forget_unmade.py", f"root={root}")[0] == 0
    assert (root / "data/mlflow.db").exists()


@pytest.mark.parametrize("content", [b"", b"no database, but somebody's " * 99])
def test_what_is_no_database_is_left_to_whoever_needs_it(root, left, content):
    (root / "data/mlflow.db").write_bytes(content)
    assert left() == ({"mlflow.db"} if content else set())


def test_a_link_is_not_followed(root, left, tmp_path):
    (tmp_path / "other.db").write_bytes((root / "data/mlflow.db").read_bytes())
    (root / "data/mlflow.db").unlink()
    (root / "data/mlflow.db").symlink_to(tmp_path / "other.db")
    assert left() == {"mlflow.db"}
    assert (tmp_path / "other.db").exists()


def test_postgresql_s_are_none_of_its_business(root, left):
    (root / "server.env").write_text(
        "MLFLOW_BACKEND_STORE_URI=postgresql://u@h/m\nAUTH_STORE_URI=postgresql://u@h/m\n"
    )
    assert left() == {"mlflow.db", "basic_auth.db"}
