"""What lies where no login may put it, as it came about before the wall: named, and left alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

RUN, GONE, MODEL = "a" * 32, "b" * 32, "m-" + "c" * 32
OWN = "mlflow-artifacts:/"
BUCKET = "s3://my-bucket/mlflow-artifacts/"
BACKUPS = "s3://my-bucket/mlflow-backups/default"
TABLES = """
drop table if exists experiments; drop table if exists runs;
create table experiments (experiment_id int, name text, artifact_location text,
                          lifecycle_stage text);
create table runs (run_uuid text, experiment_id int, artifact_uri text);
drop table if exists model_versions;
create table model_versions (name text, version int, source text, storage_location text,
                             run_id text, current_stage text);
"""
LATER = """
create table logged_models (model_id text, artifact_location text);
create table trace_info (request_id text, experiment_id int);
create table trace_tags (request_id text, key text, value text);
"""

Look = Callable[[], Any]


@pytest.fixture
def base(root: Path) -> sqlite3.Connection:
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        for table in ("logged_models", "trace_info", "trace_tags"):
            connection.execute(f"drop table if exists {table}")
        connection.executescript(TABLES + LATER)
    connection = sqlite3.connect(root / "mlflow.db", isolation_level=None)
    connection.execute("insert into runs values (?, 1, ?)", (RUN, f"{OWN}1/{RUN}/artifacts"))
    connection.execute(
        "insert into logged_models values (?, ?)", (MODEL, f"{OWN}1/models/{MODEL}/artifacts/")
    )
    return connection


@pytest.fixture
def look(run_program: Any, root: Path, base: sqlite3.Connection) -> Look:
    def look() -> Any:
        before = (root / "mlflow.db").read_bytes()
        code, out = run_program(
            "audit_places.py", root=str(root), bucket="my-bucket", prefix="mlflow-artifacts"
        )
        assert code == 0, out
        assert (root / "mlflow.db").read_bytes() == before
        return json.loads(out.removeprefix("@report places\t"))

    return look


def experiment(base: sqlite3.Connection, id: int, place: str, stage: str = "active") -> None:
    base.execute("insert into experiments values (?, ?, ?, ?)", (id, f"e{id}", place, stage))


def test_a_server_on_which_all_is_in_its_place_has_nothing_to_tell(look):
    kinds = ("experiments", "deleted", "versions", "traces")
    assert look() == {kind: {"count": 0, "first": []} for kind in kinds}


@pytest.mark.parametrize(
    ("place", "foreign"),
    [
        (f"{OWN}7", False),
        (f"{OWN}own/folder", False),
        # What clients reach past the server is the same place by its other name.
        (f"{BUCKET}7", False),
        (f"{BUCKET}own", False),
        (f"{OWN}8", True),
        (f"{BUCKET}8", True),
        (BACKUPS, True),
        ("s3://my-bucket/mlflow-artifacts-staging/7", True),
        ("file:///home/ubuntu", True),
        ("/etc", True),
        (f"{OWN}a/../b", True),
        (f"{OWN}%2e%2e/b", True),
        ("http://169.254.169.254/latest", True),
    ],
)
def test_an_experiment_lies_at_its_own_number_or_where_a_login_may_put_it(
    look, base, place, foreign
):
    experiment(base, 7, place)
    found = look()["experiments"]
    assert found["count"] == int(foreign)
    assert found["first"] == ([{"name": ["7", "e7"], "place": place}] if foreign else [])


def test_a_deleted_experiment_counts_for_as_long_as_it_has_runs(look, base):
    experiment(base, 1, BACKUPS, "deleted")
    experiment(base, 2, BACKUPS, "deleted")
    found = look()
    assert found["experiments"]["count"] == 0
    assert [row["name"][0] for row in found["deleted"]["first"]] == ["1"]


@pytest.mark.parametrize(
    ("source", "run", "foreign"),
    [
        (f"{OWN}1/{RUN}/artifacts/model", RUN, False),
        (f"{BUCKET}1/{RUN}/artifacts/model", RUN, False),
        (f"{OWN}1/models/{MODEL}/artifacts", None, False),
        (f"{OWN}1/{GONE}/artifacts/model", GONE, False),
        (f"{OWN}1/models/m-{GONE}/artifacts", None, False),
        (f"models:/{MODEL}", None, False),
        ("models:/iris/3", None, False),
        (f"runs:/{RUN}/model", None, False),
        ("prompt-template", None, False),
        (None, None, False),
        (f"{OWN}1/{RUN}/artifacts/model", None, True),
        (f"{OWN}1/{RUN}/artifacts/../../2", RUN, True),
        (f"{OWN}2/x", RUN, True),
        (f"runs:/{RUN}/../x", None, True),
        (BACKUPS, RUN, True),
        ("file:///etc", None, True),
    ],
)
def test_a_version_comes_from_its_run_or_a_model(look, base, source, run, foreign):
    words = ("it's", 3, source, source, run, "None")
    base.execute("insert into model_versions values (?, ?, ?, ?, ?, ?)", words)
    found = look()["versions"]
    assert found["count"] == int(foreign)
    assert not foreign or found["first"] == [{"name": ["it's", "3"], "place": source}]


def test_what_a_version_was_resolved_to_counts_and_a_deleted_one_does_not(look, base):
    source = f"models:/{MODEL}"
    for version, stage in ((1, "None"), (2, None), (3, "Deleted_Internal")):
        words = ("iris", version, source, BACKUPS, None, stage)
        base.execute("insert into model_versions values (?, ?, ?, ?, ?, ?)", words)
    found = look()["versions"]
    assert [row["name"][1] for row in found["first"]] == ["1", "2"]
    assert found["first"][0]["place"] == BACKUPS


def test_a_trace_lies_below_its_experiment(look, base):
    experiment(base, 1, f"{OWN}1")
    experiment(base, 2, f"{OWN}own")
    for trace, at, key, value in (
        ("tr-1", 1, "mlflow.artifactLocation", f"{OWN}1/traces/tr-1/artifacts"),
        ("tr-2", 2, "mlflow.artifactLocation", f"{OWN}own/traces/tr-2/artifacts"),
        ("tr-3", 1, "mlflow.artifactLocation", "file:///etc"),
        ("tr-4", 1, "mlflow.artifactLocation", f"{OWN}1/traces/tr-3/artifacts"),
        ("tr-5", 2, "mlflow.trace.archiveLocation", BACKUPS),
        ("tr-6", 2, "note", BACKUPS),
    ):
        base.execute("insert into trace_info values (?, ?)", (trace, at))
        base.execute("insert into trace_tags values (?, ?, ?)", (trace, key, value))
    found = look()["traces"]
    assert [row["name"] for row in found["first"]] == [["1", "tr-3"], ["1", "tr-4"], ["2", "tr-5"]]
    assert found["count"] == 3


def test_of_many_the_first_are_named_and_what_stands_there_is_no_command_of_a_terminal(look, base):
    for id in range(300):
        experiment(base, id, "/\x1b[31m" + "x" * 999)
    found = look()["experiments"]
    assert (found["count"], len(found["first"])) == (300, 5)
    assert found["first"][0]["place"] == ("/?[31m" + "x" * 999)[:200]


def test_a_release_without_traces_and_logged_models_is_looked_at_too(look, base):
    for table in ("logged_models", "trace_info", "trace_tags"):
        base.execute(f"drop table {table}")
    experiment(base, 7, BACKUPS)
    assert look()["experiments"]["count"] == 1
