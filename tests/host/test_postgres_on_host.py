"""What the host's programs ask of PostgreSQL, and of databases that several hosts use."""

from __future__ import annotations

import importlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from host_side import HOST

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
