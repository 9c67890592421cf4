"""What the server's process may have laid in place of a database is data to whoever opens it."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from host_side import HOST, tracking_database

from tasks.engine.templates import source


@pytest.fixture
def databases(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(HOST), *sys.path])
    monkeypatch.delitem(sys.modules, "databases", raising=False)
    import databases

    return databases


def bound(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's address is short
    try:
        with closing(socket.socket(socket.AF_UNIX)) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def holes(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(50 << 30)


REPLACED: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "garbage": lambda path: path.write_bytes(os.urandom(100_000)),
    "empty": lambda path: path.touch(),
    "holes": holes,
    "socket": bound,
}


@pytest.mark.parametrize("what", REPLACED)
def test_what_is_no_database_is_an_error_in_one_line(databases, tmp_path, what):
    (tmp_path / "data").mkdir()
    (tmp_path / "copies").mkdir()
    (tmp_path / "mlflow.db").symlink_to("data/mlflow.db")
    REPLACED[what](tmp_path / "data/mlflow.db")
    with pytest.raises((sqlite3.Error, databases.Damaged)) as caught:  # noqa: PT012
        databases.copy(str(tmp_path), ["mlflow.db"], str(tmp_path / "copies"))
        databases.examine(str(tmp_path / "copies/mlflow.db"))
    assert "\n" not in str(caught.value)


def test_no_other_link_is_followed(databases, tmp_path):
    (tmp_path / "data").mkdir()
    tracking_database(tmp_path / "other.db")
    (tmp_path / "mlflow.db").symlink_to("data/mlflow.db")
    (tmp_path / "data/mlflow.db").symlink_to(tmp_path / "other.db")
    with pytest.raises(sqlite3.OperationalError, match=r"^mlflow.db is no file$"):
        databases.opened(databases.path(str(tmp_path), "mlflow.db"))


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("lay", [os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_lies_beside_a_database_is_a_file_or_it_is_not_opened(databases, tmp_path, end, lay):
    """SQLite would wait for ever for whoever writes into a pipe."""
    tracking_database(tmp_path / "mlflow.db")
    lay(tmp_path / f"mlflow.db{end}")
    with pytest.raises(sqlite3.OperationalError, match=f"^mlflow.db{end} is no file$"):
        databases.opened(str(tmp_path / "mlflow.db"))
    assert databases.size(str(tmp_path), "mlflow.db") >= (tmp_path / "mlflow.db").stat().st_size


@pytest.mark.parametrize("end", ["-wal", "-journal"])
@pytest.mark.parametrize("lay", [os.mkfifo, lambda path: path.symlink_to(path)])
def test_a_look_comes_to_its_end_whatever_lies_beside_a_database(tmp_path, end, lay):
    tracking_database(tmp_path / "mlflow.db")
    lay(tmp_path / f"mlflow.db{end}")
    done = subprocess.run(
        [sys.executable, "-c", source("facts_sqlite.py"), str(tmp_path), "", ""],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"schema_error\tmlflow.db{end} is no file\n" in done.stdout
    assert "database_bytes\t" in done.stdout


def test_a_table_of_any_name_is_counted_and_nothing_else_is_run(databases, tmp_path):
    path = tmp_path / "mlflow.db"
    tracking_database(path)
    with closing(sqlite3.connect(path)) as base:
        base.execute('create table "a"" union select 1; --" (n)')
        base.execute("create view endless as with recursive n(i) as"
                     " (select 1 union all select i + 1 from n) select i from n")  # fmt: skip
    seen = databases.examine(str(path))
    assert seen["counts"]['a" union select 1; --'] == 0
    assert "endless" not in seen["counts"]


def test_a_value_of_a_database_is_one_fact_whatever_it_says(tmp_path):
    """Another line would be another fact, such as where the server's folder is."""
    tracking_database(tmp_path / "mlflow.db", revision="r1\nroot\t/etc\n\x1b[2J")
    done = subprocess.run(
        [sys.executable, "-c", source("facts_sqlite.py"), str(tmp_path), "", ""],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[1] == "schema\tr1 root /etc  [2J"
    assert not [line for line in done.stdout.splitlines() if line.startswith("root\t")]
