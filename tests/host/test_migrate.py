"""migrate.py: databases are brought to a release's schema beside the server."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from host_side import RELEASE, damage_index, execute, release_with, rows


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
