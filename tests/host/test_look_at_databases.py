"""What doctor sees of databases and of the environment."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from host_side import execute, program

# -- look_at_databases.py ----------------------------------------------------------------------


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    """Both databases as MLflow makes them, as far as they are looked at, and its migrations."""
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as base, base:
        base.executescript(
            "pragma journal_mode=wal; create table alembic_version (version_num);"
            "insert into alembic_version values ('r2'); create table runs (a);"
            "create table experiments (experiment_id, name, artifact_location, lifecycle_stage);"
            "insert into experiments values (0, 'Default', 'mlflow-artifacts:/0', 'active')"
        )
    with contextlib.closing(sqlite3.connect(tmp_path / "basic_auth.db")) as base, base:
        base.executescript(
            "pragma journal_mode=wal; create table alembic_version_auth (version_num);"
            "create table users (id, username, password_hash, is_admin)"
        )
    versions = tmp_path / "venv/lib/python3.11/site-packages/mlflow/store/db_migrations/versions"
    versions.mkdir(parents=True)
    (versions / "one.py").write_text('revision = "r1"\ndown_revision = None\n')
    (versions / "two.py").write_text('revision = "r2"\ndown_revision = "r1"\n')
    return tmp_path


def look_at_databases(
    root: Path, capsys: pytest.CaptureFixture[str], patience: float = 2
) -> dict[str, Any]:
    code, out = program(capsys, "look_at_databases.py", root=root, patience=patience)
    lines = out.splitlines()
    # What keeps it from having seen all is its last word.
    why = {"unseen": lines.pop()} if code else {}
    words = [line.removeprefix("@report ").split("\t", 1) for line in lines]
    rows = [(key, json.loads(value)) for key, value in words]
    return why | dict(rows) | {row["name"]: row for key, row in rows if key == "database"}


def look_at_admins(root: Path, capsys: pytest.CaptureFixture[str], patience: float = 2) -> Any:
    code, out = program(capsys, "look_at_admins.py", root=root, patience=patience)
    report, *why = out.splitlines()
    assert bool(why) == bool(code)
    return (json.loads(report.removeprefix("@report admins\t")), *why)


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("_no_pause")
def test_sound_databases_are_told_of(bases, capsys):
    seen = look_at_databases(bases, capsys)
    assert seen["mlflow.db"] == {
        "name": "mlflow.db",
        "strangers": {},
        "damage": None,
        "revision": {"found": "r2", "known": True, "newest": True},
        "writers": {},
    }
    assert seen["basic_auth.db"]["revision"] is None
    assert "unseen" not in seen
    assert look_at_admins(bases, capsys) == ({"count": 0, "weak": []},)
    assert seen["direct"] == {"count": 0, "names": [], "places": []}


@pytest.mark.usefixtures("_no_pause")
@pytest.mark.parametrize(("found", "known", "newest"), [("r1", True, False), ("r9", False, False)])
def test_a_schema_is_compared_with_what_is_installed(bases, capsys, found, known, newest):
    execute(bases / "mlflow.db", "update alembic_version set version_num = ?", found)
    revision = look_at_databases(bases, capsys)["mlflow.db"]["revision"]
    assert revision == {"found": found, "known": known, "newest": newest}


@pytest.mark.usefixtures("_no_pause")
def test_experiments_of_clients_own_s3_are_counted(bases, capsys):
    for row in ((1, "a", "s3://old/x", "active"), (2, "b", "s3://old/y", "deleted")):
        execute(bases / "mlflow.db", "insert into experiments values (?, ?, ?, ?)", *row)
    direct = look_at_databases(bases, capsys)["direct"]
    assert direct == {"count": 1, "names": ["a"], "places": ["old"]}


@pytest.mark.usefixtures("_no_pause")
@pytest.mark.parametrize("method", ["scrypt", "pbkdf2:sha256:1000"])
@pytest.mark.parametrize(
    ("password", "weak"),
    [("password1234", ["boss"]), ("boss", ["boss"]), ("nobody-knows-it", [])],
)
def test_an_admin_with_a_well_known_password_is_named(bases, capsys, method, password, weak):
    from werkzeug.security import generate_password_hash

    for name, admin in (("boss", 1), ("other", 0)):
        row = (1, name, generate_password_hash(password, method), admin)
        execute(bases / "basic_auth.db", "insert into users values (?, ?, ?, ?)", *row)
    assert look_at_admins(bases, capsys) == ({"count": 1, "weak": weak},)


def test_admins_whose_passwords_were_not_tried_are_counted(bases, capsys):
    execute(bases / "basic_auth.db", "insert into users values (1, 'a', 'plain$x$y', 1)")
    seen, why = look_at_admins(bases, capsys, patience=-1)
    assert seen == {"count": 1, "weak": []}
    assert why.startswith("only the passwords of 0 of 1 admin were tried within")


def test_admins_of_a_database_that_is_gone_are_not_looked_at(tmp_path, capsys):
    code, out = program(capsys, "look_at_admins.py", root=tmp_path, patience=2)
    assert (code, out) == (1, "there is no basic_auth.db\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_no_pause")
def test_a_database_that_there_is_no_time_to_check_is_not_looked_at(bases, capsys, monkeypatch):
    execute(bases / "mlflow.db", "create table many as with recursive n(x) as "
            "(select 1 union all select x + 1 from n limit 20000) select x from n")  # fmt: skip
    seen = look_at_databases(bases, capsys, patience=-1)
    assert seen["mlflow.db"]["damage"] == "unknown"
    assert "mlflow.db could not be read to its end within" in seen["unseen"]


@pytest.mark.usefixtures("_no_pause")
def test_damage_is_named(bases, capsys):
    for n in range(400):
        execute(bases / "mlflow.db", "insert into runs values (?)", "x" * 400 + str(n))
    with contextlib.closing(sqlite3.connect(bases / "mlflow.db")) as base:
        base.execute("pragma wal_checkpoint(truncate)")
    data = bytearray((bases / "mlflow.db").read_bytes())
    data[len(data) // 2 :][:0] = b""
    data[len(data) // 2 : len(data) // 2 + 9000] = b"\x55" * 9000
    (bases / "mlflow.db").write_bytes(data)
    (bases / "basic_auth.db").write_text("this is no database" * 99)
    seen = look_at_databases(bases, capsys)
    assert seen["mlflow.db"]["damage"]
    assert seen["basic_auth.db"]["damage"] == "file is not a database"
    assert "malformed" in seen.get("unseen", "malformed")


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.usefixtures("_no_pause")
def test_who_holds_the_write_lock_is_named(bases, capsys, mode):
    execute(bases / "mlflow.db", f"pragma journal_mode={mode}")
    hold = (
        "import sqlite3, sys; held = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "held.execute('begin immediate'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, bases / "mlflow.db"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        writers = look_at_databases(bases, capsys)["mlflow.db"]["writers"]
        holder.kill()
    assert list(writers) == [str(holder.pid)]
    assert writers[str(holder.pid)]["name"].startswith("python")
    assert look_at_databases(bases, capsys)["mlflow.db"]["writers"] == {}


@pytest.mark.usefixtures("_no_pause")
def test_databases_that_are_gone_are_not_made(tmp_path, capsys):
    assert "mlflow.db" not in look_at_databases(tmp_path, capsys)
    assert list(tmp_path.iterdir()) == []


# -- look_at_environment.py --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ((), "whole"),
        (("a.pyc",), "whole"),
        (("b.py",), "it lacks 1 file, such as b.py"),
        (("b.py", "a.py"), "it lacks 2 files, such as a.py"),
    ],
)
def test_files_that_packages_lack_are_counted(tmp_path, capsys, monkeypatch, gone, said):
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    packages = tmp_path / "lib/python3.11/site-packages"
    record = packages / "some-1.0.dist-info/RECORD"
    record.parent.mkdir(parents=True)
    record.write_text("a.py,sha256=x,1\na.pyc,,\nb.py,sha256=y,2\n\n")
    for name in {"a.py", "a.pyc", "b.py"} - set(gone):
        (packages / name).touch()
    assert program(capsys, "look_at_environment.py") == (0, said + "\n")
