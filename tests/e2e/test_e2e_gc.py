"""What was deleted goes for good, orphans go, and nothing that somebody may still ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lab import ROOT, Host
from test_e2e_registry import as_client, told

pytestmark = pytest.mark.sampled
MARK = "mlflow-artifacts/.remote-mlflow-owner.json"
DELETE = """
import json, sys, tempfile
import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
features, kinds = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(features, kinds)
client, name, ids = mlflow.MlflowClient(), sys.argv[1], {}

# Told, not found out, which takes seconds a model.
needs = {"pip_requirements": ["scikit-learn"]}

def run(what, **logged):
    with mlflow.start_run(run_name=what) as run:
        mlflow.log_text("a note", "note.txt")
        if logged:
            ids[what + " model"] = mlflow.sklearn.log_model(
                model, name="model", **needs, **logged).model_id
    ids[what] = run.info.run_id

mlflow.set_experiment(name)
run("live")
run("plain")
run("registered", registered_model_name=name)
run("with a model", registered_model_name=None)
with mlflow.start_run(run_name="of old") as old, tempfile.TemporaryDirectory() as folder:
    mlflow.sklearn.save_model(model, folder + "/model", **needs)
    mlflow.log_artifacts(folder + "/model", "model")  # as MLflow 2 did
    mlflow.register_model(f"runs:/{old.info.run_id}/model", name)
ids["of old"] = old.info.run_id
for what in ("plain", "registered", "with a model", "of old"):
    client.delete_run(ids[what])
ids["experiment"] = mlflow.set_experiment(name + " that goes").experiment_id
run("in it", registered_model_name=None)
client.delete_experiment(ids["experiment"])
print(json.dumps(ids))
"""
LOAD = """
import json, sys
import mlflow
from sklearn.datasets import load_iris
features, kinds = load_iris(return_X_y=True)
name = sys.argv[1]
seen = {version: len(mlflow.pyfunc.load_model(f"models:/{name}/{version}").predict(features))
        for version in "12"}
seen["runs"] = [run.info.run_name for run in mlflow.search_runs(
    experiment_names=[name], run_view_type=3, output_format="list")]
print(json.dumps(seen))
"""


def below(host: Host, word: str = "") -> list[str]:
    """List the artifacts whose keys have a word in them."""
    pages = host.lab.s3().get_paginator("list_objects_v2")
    keys = [
        entry["Key"]
        for page in pages.paginate(Bucket=host.lab.bucket, Prefix="mlflow-artifacts/")
        for entry in page.get("Contents", [])
    ]
    return [key for key in keys if word in key]


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


def test_what_was_deleted_goes_and_what_a_registered_model_needs_stays(host: Host) -> None:
    made = as_client(host, DELETE, "gc")
    going = {made[what] for what in ("plain", "with a model", "in it", "experiment")}
    left = {made["registered"], made["of old"]}

    assert not ids(told(host, "gc")[0]["found"]) & going, "30 days are not over"
    before, lines = below(host), host.audit()
    host.fab("stop")  # nothing of it needs the server
    try:
        (found,) = told(host, "gc", "--older-than", "0h")
    finally:
        host.fab("start")
    assert (going <= ids(found["found"]), left <= ids(found["left"])) == (True, True), found
    assert {row["why"] for row in found["left"] if row["id"] in left} == {
        "behind the registered model gc version 1", "behind the registered model gc version 2",
    }  # fmt: skip
    assert below(host) == before
    assert "gc" not in host.audit().removeprefix(lines)

    _refusals(host)
    done = host.fab("gc", "--older-than", "0h", "--yes")
    assert "✓ removed for good: " in done.out
    place = done.out.partition("backup before: s3://")[2].split()[0]
    bucket, _, key = place.partition("/")
    assert host.lab.s3().head_object(Bucket=bucket, Key=f"{key}manifest.json")
    for gone in ("plain", "in it", "in it model"):
        assert below(host, made[gone]) == []
    assert below(host, f"mlflow-artifacts/{made['experiment']}/") == []
    for stays in ("live", "registered", "registered model", "of old", "with a model model"):
        assert below(host, made[stays]), stays
    seen = as_client(host, LOAD, "gc")
    assert (seen["1"], seen["2"]) == (150, 150)
    assert sorted(seen["runs"]) == ["live", "of old", "registered"]
    again = host.fab("gc", "--older-than", "0h", "--yes").out
    assert again.splitlines()[-1] == "gc: nothing to remove that was deleted more than 0h ago"
    assert host.run(f"python3 -c \"import sqlite3; print(sqlite3.connect('{ROOT}/mlflow.db')"
                    ".execute('pragma foreign_key_check').fetchall())\"") == "[]"  # fmt: skip
    host.healthy()


def _refusals(host: Host) -> None:
    before, words = below(host), ("gc", "--older-than", "0h", "--yes")
    host.refused("gc", "--older-than", "a month", because=("'a month'", "such as 30d"))
    with host.lab.bucket_denying("s3:DeleteObject") as bucket:
        because = ("s3:DeleteObject on", "denied", "gc again")
        host.refused(*words, because=because, FABRIC_MLFLOW_BUCKET=bucket)
        listed = host.lab.s3().list_objects_v2(Bucket=bucket)
        assert "Contents" not in listed, "not even a backup was made"
    with host.lab.bucket_denying("s3:PutObject") as bucket:
        because = (f"bucket {bucket} refuses the backup",)
        host.refused(*words, because=because, FABRIC_MLFLOW_BUCKET=bucket)
    assert below(host) == before


@contextmanager
def old_at_once(host: Host) -> Iterator[None]:
    """Have objects count as orphans although they are new: S3 cannot be told their age."""
    file = host.lab.clone / "files/host/gc/orphans.py"
    text = file.read_text()
    assert "hours=24" in text
    file.write_text(text.replace("hours=24", "hours=0"))
    try:
        yield
    finally:
        file.write_text(text)


def put(host: Host, *keys: str, body: bytes = b"nobody's") -> None:
    for key in keys:
        host.lab.s3().put_object(Bucket=host.lab.bucket, Key=key, Body=body)


LOST = "mlflow-artifacts/0/0123456789abcdef0123456789abcdef/artifacts/a b/ä.txt"
STRANGE = "mlflow-artifacts/by hand/x.bin"


def test_orphans_are_reported_and_only_the_reported_are_deleted(host: Host) -> None:
    host.fab("gc", "--orphans", "--yes", code=None)  # whatever other tests reported
    because = ("report", "gc --orphans first")
    host.refused("gc", "--orphans", "--yes", because=because)
    put(host, LOST, STRANGE)
    (young,) = told(host, "gc", "--orphans")
    assert (young["recent"] >= 2, LOST in below(host)) == (True, True)
    with old_at_once(host):
        (found,) = told(host, "gc", "--orphans")
        report = host.run(f"cat {found['report']}")
        keys = {json.loads(line).get("key") for line in report.splitlines()}
        assert {LOST, STRANGE} <= keys
        assert host.run(f"stat -c %a {found['report']}") == "600"
        put(host, STRANGE, body=b"somebody's")
        known = set(below(host)) - keys
        assert known, "runs of other tests are there, or the mark at least"
        said = host.fab("gc", "--orphans", "--yes").out
    assert "known, changed or gone since the report: 1 object" in said
    assert set(below(host)) == known | {STRANGE}
    host.refused("gc", "--orphans", "--yes", because=("What stood in the last report was deleted",))
    host.healthy()


def test_another_server_s_mark_is_asked_about_and_stops_orphans(host: Host) -> None:
    ours = host.lab.s3().get_object(Bucket=host.lab.bucket, Key=MARK)["Body"].read()
    assert json.loads(ours)["host"] == host.run("hostname")
    other = {"server": "0badcafe", "host": "former", "since": "2026-01-02T03:04:05+00:00"}
    put(host, MARK, body=json.dumps(other).encode())
    put(host, STRANGE)
    who = ("former since 2026-01-02T03:04:05",)
    host.refused("gc", "--orphans", because=("belongs to the server 0badcafe on", *who, "deploy"))
    assert "deploy: nothing to change" in host.fab("deploy").out, "it noted that it is ours"
    seen = told(host, "doctor", "--timeout", "60", code=1)
    (found,) = (each for each in seen if each["key"] == "taken-over")
    assert "taken over by the server 0badcafe on former, at 2026-01-02T03:04:05" in found["what"]
    host.run(f"rm {ROOT}/.owned")
    starts = host.unit("mlflow-server.service", "InvocationID")
    host.refused("deploy", because=("belongs to the server on", *who, "--yes"))
    assert json.loads(
        host.lab.s3().get_object(Bucket=host.lab.bucket, Key=MARK)["Body"].read()
    ) == (other)
    assert "taken over from the server on former" in host.fab("deploy", "--yes").err
    mark = json.loads(host.lab.s3().get_object(Bucket=host.lab.bucket, Key=MARK)["Body"].read())
    assert mark["server"] == json.loads(ours)["server"]
    assert host.unit("mlflow-server.service", "InvocationID") == starts, "no restart for it"
    assert "deploy: nothing to change" in host.fab("deploy").out
    told(host, "gc", "--orphans")
    host.lab.s3().delete_object(Bucket=host.lab.bucket, Key=STRANGE)
