"""What gc finds and removes, in databases that MLflow itself makes, and a bucket played by moto."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from host_side import place_in, program
from moto.s3.models import s3_backends
from store_side import Store

# The first test imports MLflow.
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),
]
PREFIX = "mlflow-artifacts"
DAY = 86400
Run = Callable[..., tuple[int, str]]


# -- a server with something in it -------------------------------------------------------------


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty tracking database of the pinned release; it takes seconds to make."""
    from mlflow.store.db import utils
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file = tmp_path_factory.mktemp("schema") / "mlflow.db"
    SqlAlchemyStore(f"sqlite:///{file}", "mlflow-artifacts:/").engine.dispose()
    with pytest.MonkeyPatch.context() as patch:
        # Every store would read all migrations to learn which is the newest.
        newest = utils._get_latest_schema_revision()
        patch.setattr(utils, "_get_latest_schema_revision", lambda: newest)
        yield file


class Mlflow:
    """MLflow's own stores, and the bucket with what clients put there."""

    def __init__(self, root: Path, bucket: Store) -> None:
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        self.root, self.bucket = root, bucket
        self.uri = f"sqlite:///{root}/mlflow.db"
        self.tracking = SqlAlchemyStore(self.uri, "mlflow-artifacts:/")
        self.registry = Registry(self.uri)

    def put(self, key: str, days: float = 40, body: bytes = b"x" * 10) -> str:
        """Put an object below the prefix that is some days old."""
        self.bucket.client().put_object(Bucket="my-bucket", Key=f"{PREFIX}/{key}", Body=body)
        (backend,) = s3_backends.values()
        found = backend["global"].buckets["my-bucket"].keys[f"{PREFIX}/{key}"]
        found.last_modified = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(days=days)
        return key

    def listing(self) -> list[str]:
        return [key.removeprefix(f"{PREFIX}/") for key in self.bucket.listing()]

    def experiment(self, name: str, place: str | None = None) -> str:
        return self.tracking.create_experiment(name, place)

    def run(self, experiment: str = "0", name: str = "a run") -> str:
        """Log a run with one file."""
        run = self.tracking.create_run(experiment, "me", 0, [], name)
        self.put(self.below(run.info.artifact_uri) + "/note.txt")
        return run.info.run_id

    def model(self, run: str | None = None, experiment: str = "0") -> str:
        """Log a model with one file."""
        model = self.tracking.create_logged_model(experiment, "model", run)
        self.put(self.below(model.artifact_location) + "/MLmodel")
        return model.model_id

    def register(self, name: str, source: str, run: str | None = None) -> None:
        with contextlib.suppress(Exception):
            self.registry.create_registered_model(name)
        self.registry.create_model_version(name, source, run)

    @staticmethod
    def below(uri: str) -> str:
        return uri.removeprefix("mlflow-artifacts:/")

    def sql(self, query: str, *values: Any) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.root / "mlflow.db")) as base, base:
            return base.execute(query, values).fetchall()

    def runs(self) -> set[str]:
        return {id for (id,) in self.sql("select run_uuid from runs")}


@pytest.fixture
def mlflow(home: Path, store: Store, schema: Path, monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    root = home / "mlflow-server"
    root.mkdir()
    shutil.copy(schema, root / "mlflow.db")
    (root / ".mlflow_auth_config").write_text(
        f"[mlflow]\ndatabase_uri = sqlite:///{root}/auth.db\n"
    )
    with contextlib.closing(sqlite3.connect(root / "auth.db")) as grants, grants:
        grants.execute("create table role_permissions (resource_type, resource_pattern)")
    for name in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_TRACKING_URI"):  # the registry asks the latter
        monkeypatch.setenv(name, f"sqlite:///{root}/mlflow.db")
    return Mlflow(root, store)


# -- what was deleted --------------------------------------------------------------------------


@pytest.fixture
def collect(mlflow: Mlflow, store: Store, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(action: str = "find", age: int = 0) -> tuple[int, str]:
        place = place_in(store, prefix=PREFIX)
        return program(capsys, "collect.py", place=place, root=mlflow.root, action=action, age=age)

    return run


def told(answer: tuple[int, str]) -> Any:
    code, out = answer
    assert code == 0, out
    return json.loads(out.splitlines()[-1].removeprefix("@report "))


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


def test_only_what_was_deleted_long_enough_ago_is_found(mlflow, collect):
    live, gone, lately = mlflow.run(), mlflow.run(name="old"), mlflow.run()
    mlflow.tracking.delete_run(gone)
    mlflow.tracking.delete_run(lately)
    mlflow.sql("update runs set deleted_time = deleted_time - ? where run_uuid = ?",
               31 * DAY * 1000, gone)  # fmt: skip
    found = told(collect(age=30 * DAY))
    (row,) = found["found"]
    assert (row["kind"], row["id"], row["name"]) == ("run", gone, "old")
    assert (row["objects"], row["bytes"], row["experiment"]) == (1, 10, "0")
    before = datetime.now(timezone.utc) - datetime.fromisoformat(row["deleted"])
    assert before.days == 31
    assert (found["objects"], found["bytes"], found["left"]) == (1, 10, [])
    assert mlflow.runs() == {live, gone, lately}, "looking removes nothing"
    assert len(mlflow.listing()) == 3


def test_a_deleted_run_goes_with_its_files_and_nothing_else_does(mlflow, collect):
    live, gone = mlflow.run(), mlflow.run()
    mlflow.tracking.log_batch(gone, [], [], [])
    mlflow.put(f"0/{gone}/artifacts/a folder/ä.bin")
    mlflow.put(f"0/{gone}-other/artifacts/a")  # begins alike, and is another's
    mlflow.tracking.delete_run(gone)
    done = told(collect("remove"))
    assert ids(done["found"]) == [gone]
    assert done["objects"] == 2
    assert mlflow.runs() == {live}
    assert mlflow.listing() == sorted(
        [f"0/{gone}-other/artifacts/a", f"0/{live}/artifacts/note.txt"]
    )
    assert told(collect("remove"))["found"] == [], "the second time there is nothing left"


@pytest.mark.parametrize("how", ["the run", "its files", "a logged model of it", "a run: address"])
def test_a_run_behind_a_registered_model_is_left_and_named(mlflow, collect, how):
    run = mlflow.run()
    model = mlflow.model(run)
    source, of = {
        "the run": ("s3://elsewhere/model", run),
        "its files": (f"mlflow-artifacts:/0/{run}/artifacts/model", None),
        "a logged model of it": (f"models:/{model}", None),
        "a run: address": (f"runs:/{run}/model", None),
    }[how]
    if source.startswith("runs:"):  # MLflow's client settles it before it asks the server
        mlflow.register("iris", "x")
        mlflow.sql("update model_versions set source = ?", source)
    else:
        mlflow.register("iris", source, of)
    mlflow.tracking.delete_run(run)
    before = mlflow.listing()
    for action in ("find", "remove"):
        found = told(collect(action))
        assert found["found"] == []
        (row,) = found["left"]
        assert (row["id"], row["why"]) == (run, "behind the registered model iris version 1")
    assert mlflow.runs() == {run}
    assert mlflow.listing() == before


def test_a_deleted_version_holds_nothing_back(mlflow, collect):
    run = mlflow.run()
    mlflow.register("iris", f"mlflow-artifacts:/0/{run}/artifacts/model", run)
    mlflow.tracking.delete_run(run)
    mlflow.registry.delete_model_version("iris", "1")
    assert ids(told(collect("remove"))["found"]) == [run]
    assert mlflow.listing() == []


def test_a_deleted_logged_model_goes_and_a_registered_one_is_left(mlflow, collect):
    gone, kept, live = mlflow.model(), mlflow.model(), mlflow.model()
    mlflow.register("iris", f"models:/{kept}")
    for model in (gone, kept):
        mlflow.tracking.delete_logged_model(model)
    done = told(collect("remove"))
    assert (ids(done["found"]), ids(done["left"])) == ([gone], [kept])
    assert {id for (id,) in mlflow.sql("select model_id from logged_models")} == {kept, live}
    assert mlflow.listing() == sorted(f"0/models/{id}/artifacts/MLmodel" for id in (kept, live))


def test_logged_models_of_removed_runs_are_counted_for_they_stay(mlflow, collect):
    run = mlflow.run()
    mlflow.model(run)
    mlflow.tracking.delete_logged_model(mlflow.model(run))
    mlflow.tracking.delete_run(run)
    assert told(collect())["models"] == 1
    told(collect("remove"))
    assert [key for key in mlflow.listing() if "/models/" in key]


def trace(mlflow: Mlflow, experiment: str) -> str:
    """A trace as MLflow notes it, with one file."""
    id = "tr-" + "1f" * 16
    mlflow.sql("insert into trace_info (request_id, experiment_id, timestamp_ms, status, "
               "db_payload_generation) values (?, ?, 0, 'OK', 0)", id, experiment)  # fmt: skip
    uri = f"mlflow-artifacts:/{experiment}/traces/{id}/artifacts"
    mlflow.sql("insert into trace_tags values ('mlflow.artifactLocation', ?, ?)", uri, id)
    mlflow.put(f"{mlflow.below(uri)}/traces.json")
    return id


def test_a_deleted_experiment_goes_with_its_runs_models_traces_and_grants(mlflow, collect):
    experiment = mlflow.experiment("gone")
    run = mlflow.run(experiment)
    mlflow.model(run, experiment)
    trace(mlflow, experiment)
    with contextlib.closing(sqlite3.connect(mlflow.root / "auth.db")) as grants, grants:
        grants.executemany("insert into role_permissions values (?, ?)",
                           [("experiment", experiment), ("experiment", "0")])  # fmt: skip
    mlflow.tracking.delete_experiment(experiment)
    done = told(collect("remove"))
    assert [row["kind"] for row in done["found"]] == ["run", "experiment"]
    assert (done["objects"], done["models"]) == (3, 0)
    assert mlflow.listing() == []
    for table in ("runs", "logged_models", "trace_info", "trace_tags"):
        assert mlflow.sql(f"select * from {table}") == []
    assert mlflow.sql("select experiment_id from experiments") == [(0,)]
    with contextlib.closing(sqlite3.connect(mlflow.root / "auth.db")) as grants:
        assert grants.execute("select * from role_permissions").fetchall() == [("experiment", "0")]


def test_an_experiment_stays_while_one_of_its_runs_or_models_does(mlflow, collect):
    first, second = mlflow.experiment("first"), mlflow.experiment("second")
    run, other = mlflow.run(first), mlflow.run(first)
    model = mlflow.model(None, second)
    mlflow.register("iris", f"mlflow-artifacts:/{first}/{run}/artifacts/model", run)
    mlflow.register("rose", f"models:/{model}")
    for experiment in (first, second):
        mlflow.tracking.delete_experiment(experiment)
    done = told(collect("remove"))
    assert ids(done["found"]) == [other]
    assert {row["id"]: row["why"] for row in done["left"]} == {
        run: "behind the registered model iris version 1",
        first: "holds runs that are left: 1",
        second: f"holds model {model}: behind the registered model rose version 1",
    }
    assert len(mlflow.listing()) == 2


@pytest.mark.parametrize(
    "uri",
    ["mlflow-artifacts:/", "mlflow-artifacts:/0", "s3://other/0/{run}/artifacts", "/tmp/{run}",
     "s3://my-bucket/mlflow-artifacts-2/0/{run}/artifacts", ""],
)  # fmt: skip
def test_files_anywhere_but_in_a_folder_of_its_own_are_never_touched(mlflow, collect, uri):
    run = mlflow.run()
    mlflow.tracking.delete_run(run)
    mlflow.sql("update runs set artifact_uri = ?", uri.format(run=run))
    done = told(collect("remove"))
    assert done["found"] == []
    assert done["left"][0]["why"].startswith("its files are not where they are looked for: ")
    assert len(mlflow.listing()) == 1


@pytest.mark.parametrize(
    "uri",
    ["s3://my-bucket/mlflow-artifacts/{path}", "mlflow-artifacts://host:5000/{path}",
     "http://host:5000/api/2.0/mlflow-artifacts/artifacts/{path}"],
)  # fmt: skip
def test_every_spelling_of_a_place_below_the_prefix_is_understood(mlflow, collect, uri):
    run = mlflow.run()
    mlflow.tracking.delete_run(run)
    mlflow.sql("update runs set artifact_uri = ?", uri.format(path=f"0/{run}/artifacts"))
    assert told(collect("remove"))["objects"] == 1
    assert mlflow.listing() == []


DELETING = "POST /my-bucket.*delete"


def test_a_denied_delete_is_named_before_anything_happens(collect, store):
    assert collect("check") == (0, "")
    store.refuse(DELETING)
    code, out = collect("check")
    assert code == 1
    assert out == (
        "@fail s3:DeleteObject on s3://my-bucket/mlflow-artifacts/* is denied to the host's "
        "credentials. Allow it in their policy, then type ./fab gc again.\n"
    )


def test_a_run_whose_files_cannot_be_deleted_keeps_its_row(mlflow, collect, store):
    run = mlflow.run()
    mlflow.tracking.delete_run(run)
    store.refuse(DELETING)
    assert collect("remove")[0] == 1
    assert mlflow.runs() == {run}


def test_a_key_that_s3_refuses_within_a_good_answer_is_seen(mlflow, collect, monkeypatch):
    """mlflow gc does not look, and forgets runs whose files stay."""
    run = mlflow.run()
    mlflow.tracking.delete_run(run)
    from botocore.client import BaseClient

    ask = BaseClient._make_api_call

    def refusing(self: Any, name: str, options: Any) -> Any:
        if name == "DeleteObjects":
            return {"Errors": [{"Key": "k", "Code": "AccessDenied"}]}
        return ask(self, name, options)

    monkeypatch.setattr(BaseClient, "_make_api_call", refusing)
    code, out = collect("remove")
    assert (code, "s3:DeleteObject on" in out) == (1, True)
    assert mlflow.runs() == {run}


def test_a_run_that_is_restored_meanwhile_is_spared(mlflow, collect, monkeypatch):
    run = mlflow.run()
    mlflow.tracking.delete_run(run)
    from mlflow.store.tracking import sqlalchemy_store

    class Late(sqlalchemy_store.SqlAlchemyStore):
        """Made after the list of what goes, and before the first of it does."""

        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            self.restore_run(run)

    monkeypatch.setattr(sqlalchemy_store, "SqlAlchemyStore", Late)
    assert told(collect("remove"))["found"] == []
    assert mlflow.runs() == {run}
    assert len(mlflow.listing()) == 1


def test_a_database_that_cannot_be_read_is_one_line(mlflow, collect):
    (mlflow.root / "mlflow.db").write_bytes(b"no database at all, but long enough to be one" * 30)
    code, out = collect()
    assert code == 1
    assert out == (
        "@fail The tracking database cannot be used: file is not a database. Type: ./fab doctor\n"
    )


# -- orphans -----------------------------------------------------------------------------------


@pytest.fixture
def orphans(mlflow: Mlflow, store: Store, capsys: pytest.CaptureFixture[str]) -> Run:
    place = place_in(store, prefix=PREFIX, backup_prefix=f"{PREFIX}/backups")
    asked = {"place": place, "root": mlflow.root}
    assert program(capsys, "owner.py", **asked, action="claim") == (0, "")

    def run(action: str = "find") -> tuple[int, str]:
        return program(capsys, "orphans.py", **asked, action=action)

    return run


STRANGER = "0123456789abcdef" * 2


def test_what_nothing_knows_is_reported_and_stays(mlflow, orphans):
    run = mlflow.run()
    mlflow.put(f"0/{STRANGER}/artifacts/a", body=b"12345")
    mlflow.put(f"0/models/m-{STRANGER}/artifacts/b", days=50)
    mlflow.put("lonely/ä b.txt")
    found = told(orphans())
    assert (found["objects"], found["bytes"], found["all"], found["recent"]) == (3, 25, 4, 0)
    zero, lonely = sorted(found["places"], key=lambda place: place["place"])
    assert (zero["place"], zero["experiment"], zero["objects"], zero["bytes"]) == (
        "0", "Default", 2, 15,
    )  # fmt: skip
    assert (lonely["place"], lonely["objects"]) == ("lonely", 1)
    assert len(mlflow.listing()) == 5
    assert f"0/{run}/artifacts/note.txt" in mlflow.listing()
    lines = [json.loads(line) for line in Path(found["report"]).read_text().splitlines()]
    assert [line["key"] for line in lines[1:-1]] == [
        f"{PREFIX}/0/{STRANGER}/artifacts/a",
        f"{PREFIX}/0/models/m-{STRANGER}/artifacts/b",
        f"{PREFIX}/lonely/ä b.txt",
    ]


def test_an_experiment_s_orphans_are_told_by_its_name(mlflow, orphans):
    experiment = mlflow.experiment("iris")
    mlflow.put(f"{experiment}/{STRANGER}/artifacts/a")
    (place,) = told(orphans())["places"]
    assert (place["place"], place["experiment"]) == (experiment, "iris")


def test_what_somebody_may_still_ask_for_is_no_orphan(mlflow, orphans):
    deleted = mlflow.run()
    mlflow.tracking.delete_run(deleted)
    mlflow.tracking.delete_logged_model(mlflow.model())
    trace(mlflow, "0")
    # A version whose run is gone, but not its files.
    mlflow.register("iris", f"mlflow-artifacts:/0/{STRANGER}/artifacts/model", STRANGER)
    mlflow.put(f"0/{STRANGER}/artifacts/model/MLmodel")
    # Another one's model, that the registry alone knows.
    mlflow.register("rose", "s3://my-bucket/mlflow-artifacts/shared/rose model/")
    mlflow.put("shared/rose model/MLmodel")
    # The project's own.
    mlflow.put(".remote-mlflow-proof-host")
    mlflow.put("backups/default/x/manifest.json")
    mlflow.put("folder/", body=b"")
    assert told(orphans())["places"] == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"uri": "s3://my-bucket/mlflow-artifacts/data/my set/a.csv"}', "data/my set/a.csv"),
        ('{"uri": "s3a://my-bucket/mlflow-artifacts/data/"}', "data/deep/below/a.csv"),
        ('{"uri": "s3://my-bucket/mlflow-artifacts/data/my%20set/a.csv"}', "data/my set/a.csv"),
        ('{"uri": "s3://my-bucket/mlflow-artifacts/data/part-*.csv"}', "data/part-1.csv"),
        ("see mlflow-artifacts:/data/a.csv, and more", "data/a.csv"),
        ("mlflow-artifacts:/data/b and mlflow-artifacts:/data/a.", "data/a/x"),
        ("http://h/api/2.0/mlflow-artifacts/artifacts/data/a.csv", "data/a.csv"),
    ],
)
def test_what_a_text_in_the_database_names_is_no_orphan(mlflow, orphans, text, key):
    mlflow.sql("insert into tags values ('k', ?, ?)", text, mlflow.run())
    mlflow.put(key)
    mlflow.put("data2/a.csv")
    found = told(orphans())
    assert [place["place"] for place in found["places"]] == ["data2"]


INSERTS = {
    "datasets": "(dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source) "
    "values ('u', 0, 'n', 'd', 't', ?)",
    "params": "(key, value, run_uuid) values ('k', ?, 'r')",
    "experiment_tags": "values ('k', ?, 0)",
    "evaluation_datasets": "(dataset_id, name, schema) values ('d-1', 'n', ?)",
    "spans": "(trace_id, span_id, experiment_id, status, start_time_unix_nano, content) "
    "values ('t', 's', 0, 'OK', 1, ?)",
}


@pytest.mark.parametrize("table", INSERTS)
def test_every_table_is_asked(mlflow, orphans, table):
    text = '{"uri": "s3://my-bucket/mlflow-artifacts/data/a.csv"}'
    mlflow.sql(f"insert into {table} {INSERTS[table]}", text)
    mlflow.put("data/a.csv")
    assert told(orphans())["objects"] == 0


@pytest.mark.parametrize(
    "text",
    ["mlflow-artifacts:/", "mlflow-artifacts:/data-2/a", "s3://my-bucket/mlflow-artifacts-2/data/a",
     "s3://another/mlflow-artifacts/data/a", "data/a"],
)  # fmt: skip
def test_what_names_another_place_or_all_of_it_keeps_nothing(mlflow, orphans, text):
    mlflow.sql("insert into tags values ('k', ?, ?)", text, mlflow.run())
    mlflow.put("data/a")
    assert told(orphans())["objects"] == 1


def test_an_experiment_s_own_place_is_no_claim_to_what_lies_there(mlflow, orphans):
    mlflow.experiment("custom", "s3://my-bucket/mlflow-artifacts/team")
    mlflow.put(f"team/{STRANGER}/artifacts/a")
    assert told(orphans())["objects"] == 1


def test_the_place_of_a_deleted_version_is_no_claim_either(mlflow, orphans):
    mlflow.register("iris", "mlflow-artifacts:/shared/model")
    mlflow.registry.delete_model_version("iris", "1")
    mlflow.put("shared/model/MLmodel")
    assert told(orphans())["objects"] == 1


def test_what_was_uploaded_within_a_day_is_left_out(mlflow, orphans):
    mlflow.put("lonely/new", days=0.9)
    mlflow.put("lonely/old", days=1.1)
    found = told(orphans())
    assert (found["objects"], found["recent"]) == (1, 1)


def former(mlflow: Mlflow) -> Path:
    """Put the database aside, as a restore does, and begin with an older one."""
    folder = mlflow.root / "former/20260101T000000Z"
    folder.mkdir(parents=True)
    return folder / "mlflow.db"


def test_what_a_rollback_would_give_back_is_no_orphan(mlflow, orphans, schema):
    run = mlflow.run()
    shutil.move(mlflow.root / "mlflow.db", former(mlflow))
    shutil.copy(schema, mlflow.root / "mlflow.db")
    assert told(orphans())["objects"] == 0
    shutil.rmtree(mlflow.root / "former")
    assert told(orphans())["objects"] == 1
    assert mlflow.listing()[1:] == [f"0/{run}/artifacts/note.txt"]


def test_a_former_database_that_cannot_be_read_is_a_warning(mlflow, orphans):
    former(mlflow).write_bytes(b"no database" * 100)
    code, out = orphans()
    assert code == 0
    assert "former/20260101T000000Z/mlflow.db cannot be read" in out.splitlines()[0]


# -- whose they are ----------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["find", "last", "check", "delete"])
def test_another_server_s_mark_refuses_everything(mlflow, orphans, action):
    mlflow.put("lonely/a")
    told(orphans())
    mark = {"server": "0badcafe", "host": "other", "since": "2026-01-02T03:04:05+00:00"}
    mlflow.put(".remote-mlflow-owner.json", body=json.dumps(mark).encode())
    code, out = orphans(action)
    assert code == 1
    assert "belongs to the server 0badcafe on other since 2026-01-02T03:04:05+00:00" in out
    assert "lonely/a" in mlflow.listing()


@pytest.mark.parametrize("action", ["find", "delete"])
def test_a_missing_mark_refuses_too(mlflow, orphans, store, action):
    mlflow.put("lonely/a")
    told(orphans())
    store.client().delete_object(Bucket="my-bucket", Key=f"{PREFIX}/.remote-mlflow-owner.json")
    code, out = orphans(action)
    assert (code, "bears no server's mark" in out, "Type ./fab deploy" in out) == (1, True, True)
    assert mlflow.listing() == ["lonely/a"]


def test_a_server_below_this_one_s_prefix_refuses_the_report(mlflow, orphans):
    mlflow.put("staging/.remote-mlflow-owner.json", body=b"{}")
    code, out = orphans()
    assert (code, "staging/.remote-mlflow-owner.json bears another" in out) == (1, True)


# -- deleting ----------------------------------------------------------------------------------


def test_what_stands_in_the_report_is_deleted_and_nothing_else(mlflow, orphans):
    run = mlflow.run()
    mlflow.put("lonely/a")
    mlflow.put("lonely/b")
    report = Path(told(orphans())["report"])
    mlflow.put("lonely/since")
    assert told(orphans("last"))["objects"] == 2
    assert told(orphans("delete")) == {"objects": 2, "bytes": 20, "left": 0}
    assert mlflow.listing()[1:] == [f"0/{run}/artifacts/note.txt", "lonely/since"]
    assert not report.exists()
    assert report.with_name(report.name.replace(".jsonl", ".deleted.jsonl")).exists()


def test_what_changed_became_known_or_went_since_is_left(mlflow, orphans):
    for key in ("lonely/changed", "lonely/rewritten", "lonely/known", "lonely/gone", "lonely/a"):
        mlflow.put(key)
    told(orphans())
    mlflow.put("lonely/changed", body=b"another")
    mlflow.put("lonely/rewritten", days=3)
    mlflow.sql("insert into tags values ('k', ?, ?)", "mlflow-artifacts:/lonely/known",
               mlflow.run())  # fmt: skip
    mlflow.bucket.client().delete_object(Bucket="my-bucket", Key=f"{PREFIX}/lonely/gone")
    assert told(orphans("delete")) == {"objects": 1, "bytes": 10, "left": 4}
    assert [key for key in mlflow.listing() if key.startswith("lonely")] == [
        "lonely/changed", "lonely/known", "lonely/rewritten",
    ]  # fmt: skip


def refused(answer: tuple[int, str]) -> str:
    code, out = answer
    assert code == 1
    assert out.startswith("@fail ")
    assert out.count("\n") == 1
    return out


@pytest.mark.parametrize("action", ["last", "delete"])
def test_without_a_report_the_first_thing_to_type_is_named(mlflow, orphans, action):
    mlflow.put("lonely/a")
    out = refused(orphans(action))
    assert "There is no report to delete from. Type ./fab gc --orphans first" in out
    assert "lonely/a" in mlflow.listing()


@pytest.mark.parametrize("action", ["last", "delete"])
def test_a_report_is_deleted_from_once(mlflow, orphans, action):
    mlflow.put("lonely/a")
    first = Path(told(orphans())["report"])
    # An older one that was never deleted from does not come into play again.
    shutil.copy(first, first.with_name("20200101T000000Z.jsonl"))
    told(orphans("delete"))
    mlflow.put("lonely/a")
    assert "What stood in the last report was deleted. Type ./fab gc --orphans" in refused(
        orphans(action)
    )
    assert "lonely/a" in mlflow.listing()


def headed(report: str, **values: str) -> None:
    first, _, rest = Path(report).read_text().partition("\n")
    Path(report).write_text(json.dumps(json.loads(first) | values) + "\n" + rest)


@pytest.mark.parametrize("action", ["last", "delete"])
def test_a_report_of_long_ago_or_of_another_place_is_refused(mlflow, orphans, action):
    mlflow.put("lonely/a")
    report = told(orphans())["report"]
    headed(report, made=(datetime.now(timezone.utc) - timedelta(days=8, hours=1)).isoformat())
    assert "The last report is 8 days old." in refused(orphans(action))
    headed(report, place="s3://other/p/")
    assert "The last report is about s3://other/p/, not s3://my-bucket/" in refused(orphans(action))
    assert "lonely/a" in mlflow.listing()


def test_a_report_that_was_cut_off_is_none(mlflow, orphans, store):
    mlflow.put("lonely/a")
    store.refuse("GET /my-bucket.*list-type=2", "InternalError", 500)
    assert orphans()[0] == 1
    store.faults.clear()
    assert "There is no report" in refused(orphans("last"))


def test_a_denied_delete_is_named_and_the_report_stays(mlflow, orphans, store):
    mlflow.put("lonely/a")
    told(orphans())
    store.refuse(DELETING)
    for action in ("check", "delete"):
        assert "s3:DeleteObject on s3://my-bucket/mlflow-artifacts/* is denied" in refused(
            orphans(action)
        )
    assert "lonely/a" in mlflow.listing()
    store.faults.clear()
    assert told(orphans("delete"))["objects"] == 1


def test_more_objects_than_one_request_takes_are_all_deleted(mlflow, orphans, monkeypatch):
    for n in range(7):
        mlflow.put(f"lonely/{n}")
    assert told(orphans())["objects"] == 7
    monkeypatch.setattr(sys.modules["objects"], "MOST", 3)
    assert told(orphans("delete"))["objects"] == 7
    assert mlflow.listing() == [".remote-mlflow-owner.json"]


def test_ten_reports_are_kept(mlflow, orphans):
    folder = mlflow.root / "gc"
    folder.mkdir()
    for n in range(12):
        (folder / f"20200101T0000{n:02}Z.jsonl").write_text("{}\n{}\n")
    told(orphans())
    names = sorted(file.name for file in folder.iterdir())
    assert len(names) == 10
    assert names[0] == "20200101T000003Z.jsonl"
