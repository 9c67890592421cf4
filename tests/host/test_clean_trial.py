"""What verify leaves: nothing, and nothing of anybody else's is touched."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from host_side import place_in, program
from store_side import Store


class Tracking:
    """Plays MLflow's store: one experiment, and what was removed."""

    name = "remote-mlflow-verify-0123456789ab"
    lifecycle = "deleted"
    others: tuple[tuple[str, str, float], ...] = ()  # number, name, made (milliseconds)
    removed: list[str]

    def __init__(self, uri: str, root: str) -> None:
        from sqlalchemy import create_engine, text

        Tracking.removed = []
        self.engine = create_engine("sqlite://")
        with self.engine.begin() as rows:
            rows.execute(text("create table inputs (source_id)"))

    def get_experiment(self, number: str) -> Any:
        return types.SimpleNamespace(
            name=self.name, lifecycle_stage=self.lifecycle, experiment_id=number,
            creation_time=time.time() * 1000,
        )  # fmt: skip

    def search_experiments(self, **options: Any) -> list[Any]:
        return [
            types.SimpleNamespace(
                name=name, lifecycle_stage="deleted", experiment_id=number, creation_time=made
            )
            for number, name, made in self.others
        ]

    def delete_experiment(self, number: str) -> None:
        Tracking.removed.append(f"to the bin: {number}")

    def search_runs(self, *given: Any, **options: Any) -> list[Any]:
        return [types.SimpleNamespace(info=types.SimpleNamespace(run_id="run-1"))]

    def search_logged_models(self, numbers: list[str]) -> list[Any]:
        return [types.SimpleNamespace(model_id="m-1")]

    def _hard_delete_run(self, run: str) -> None:
        Tracking.removed.append(run)

    def _hard_delete_logged_model(self, model: str) -> None:
        Tracking.removed.append(model)

    def _hard_delete_experiment(self, number: str) -> None:
        Tracking.removed.append(number)


class Registry:
    """Plays the registry, which has the trial's model."""

    def __init__(self, uri: str) -> None:
        pass

    def search_registered_models(self, wanted: str) -> list[str]:
        return [wanted]

    def delete_registered_model(self, name: str) -> None:
        Tracking.removed.append(name)


@pytest.fixture
def clean(
    store: Store, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    modules = {
        "mlflow": {},
        "mlflow.entities": {"ViewType": types.SimpleNamespace(ALL=3)},
        "mlflow.store": {},
        "mlflow.store.tracking": {},
        "mlflow.store.tracking.sqlalchemy_store": {"SqlAlchemyStore": Tracking},
        "mlflow.store.model_registry": {},
        "mlflow.store.model_registry.sqlalchemy_store": {"SqlAlchemyStore": Registry},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    Tracking.removed = []
    grants = root / "grants.db"
    with contextlib.closing(sqlite3.connect(grants)) as database, database:
        database.execute("create table role_permissions (resource_type, resource_pattern)")
        database.executemany(
            "insert into role_permissions values (?, ?)",
            [
                ("experiment", "7"),
                ("experiment", "8"),
                ("registered_model", "7"),
                ("registered_model", Tracking.name),
            ],
        )
    (root / ".mlflow_auth_config").write_text(f"[mlflow]\ndatabase_uri = sqlite:///{grants}\n")
    for key in OURS + OTHERS:
        store.client().put_object(Bucket="my-bucket", Key=f"mlflow-artifacts/{key}", Body=b"x")

    def run(experiment: str = "7") -> tuple[int, str]:
        return program(
            capsys, "clean_trial.py", f"root={root}",
            place=place_in(store), experiment=experiment,
        )  # fmt: skip

    return run


# Two servers on one prefix both have an experiment 7.
OURS = ("7/run-1/artifacts/note.txt", "7/models/m-1/artifacts/model.pkl")
OTHERS = ("7/run-of-another-server/artifacts/a", "70/run-1/b", "8/c")


def report(out: str) -> dict[str, Any]:
    return json.loads(out.removeprefix("@report "))


def test_only_the_trial_s_own_objects_and_rows_are_removed(clean, store, root):
    code, out = clean()
    assert code == 0
    assert report(out) == {"found": 2, "left": 0, "place": "s3://my-bucket/mlflow-artifacts/7/"}
    assert store.listing() == sorted(f"mlflow-artifacts/{key}" for key in OTHERS)
    assert Tracking.removed == ["m-1", "run-1", "7"]
    with contextlib.closing(sqlite3.connect(root / "grants.db")) as grants:
        assert grants.execute("select * from role_permissions").fetchall() == [
            ("experiment", "8"),
            ("registered_model", "7"),
        ]


def test_objects_that_cannot_be_deleted_are_counted(clean, store):
    store.refuse("DELETE")
    assert report(clean()[1]) == {
        "found": 2,
        "left": 2,
        "place": "s3://my-bucket/mlflow-artifacts/7/",
    }
    assert len(store.listing()) == len(OURS + OTHERS)


def test_a_trial_that_failed_midway_leaves_nothing(clean, monkeypatch):
    monkeypatch.setattr(Tracking, "lifecycle", "active")
    assert clean()[0] == 0
    assert Tracking.removed == ["to the bin: 7", Tracking.name, "m-1", "run-1", "7"]


def test_a_bucket_that_fails_keeps_no_rows(clean, store):
    store.refuse("GET")
    code, out = clean()
    assert (code, report(out)["found"]) == (0, None)
    assert Tracking.removed == ["m-1", "run-1", "7"]


def test_trials_that_were_cut_off_go_as_well(clean, monkeypatch):
    now = time.time() * 1000
    name = "remote-mlflow-verify-aaaaaaaaaaa"
    monkeypatch.setattr(Tracking, "others", (
        ("3", name + "1", now - 7200e3), ("4", name + "2", now - 60e3),
        ("5", name + "1-of-mine", now - 7200e3), ("6", "my " + name + "1", now - 7200e3),
        ("7", Tracking.name, now - 7200e3),
    ))  # fmt: skip
    code, out = clean()
    assert (code, report(out)["place"]) == (0, "s3://my-bucket/mlflow-artifacts/7/")
    assert [each for each in Tracking.removed if each.isdigit()] == ["7", "3"]


def test_an_experiment_that_is_somebody_s_own_is_never_touched(clean, store, monkeypatch):
    monkeypatch.setattr(Tracking, "name", "my precious experiment")
    code, out = clean()
    assert code == 1
    assert out == "@fail experiment 7 is not a trial's; nothing was removed\n"
    assert len(store.listing()) == len(OURS + OTHERS)
    assert Tracking.removed == []


def test_a_trial_that_made_nothing_leaves_nothing_to_clean(clean, store):
    assert report(clean("")[1]) == {"found": 0, "left": 0, "place": ""}
    assert len(store.listing()) == len(OURS + OTHERS)
