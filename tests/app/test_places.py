"""Which places a client may name: tables of names, each with what becomes of it."""

from __future__ import annotations

import sys

import pytest

from tasks.engine.templates import FILES

sys.path.insert(0, str(FILES / "app"))

from remote_mlflow_app import places

RUN = "0123456789abcdef0123456789abcdef"
ROOT = f"mlflow-artifacts:/1/{RUN}/artifacts"

LOCATIONS = ["", "mlflow-artifacts:/team", "mlflow-artifacts:/team/", "mlflow-artifacts:/a b/Größe"]
LOCATIONS += ["mlflow-artifacts:/team/1", "mlflow-artifacts:/v..2/x.y", "mlflow-artifacts:/0x1"]

FOREIGN = [
    "s3://bucket/mlflow-backups",
    "S3://bucket",
    "file:///home/ubuntu",
    "/home/ubuntu",
    "relative",
    "./relative",
    "http://169.254.169.254/latest",
    "runs:/x",
    "gs://x/y",
    " mlflow-artifacts:/team",
    "MLFLOW-ARTIFACTS:/team",
    "mlflow-artifacts:team",
    "mlflow-artifacts:",
    "mlflow-artifacts:/",
    "mlflow-artifacts://host:5000/team",
    "mlflow-artifacts:///team",
    "mlflow-artifacts:/team//x",
    "mlflow-artifacts:/../mlflow-backups",
    "mlflow-artifacts:/team/../../x",
    "mlflow-artifacts:/team/..",
    "mlflow-artifacts:/team/%2e%2e/x",
    "mlflow-artifacts:/team/%252e%252e/x",
    "mlflow-artifacts:/team\\..\\x",
    "mlflow-artifacts:\\team",
    "mlflow-artifacts:/team?x=1",
    "mlflow-artifacts:/team#x",
    "mlflow-artifacts:/team\0",
    "mlflow-artifacts:/team\nx",
    "mlflow-artifacts:/.remote-mlflow-owner.json",
]

SOMEBODYS = [
    "mlflow-artifacts:/1",
    "mlflow-artifacts:/1/x",
    ROOT,
    f"mlflow-artifacts:/team/{RUN}",
    "mlflow-artifacts:/team/models",
    "mlflow-artifacts:/team/traces/x",
    "mlflow-artifacts:/workspaces/x",
    "mlflow-artifacts:/team/x/artifacts",
]


@pytest.mark.parametrize("location", LOCATIONS)
def test_an_experiment_lies_where_mlflow_puts_it_or_in_a_folder_of_its_own(location: str) -> None:
    places.refuse_location(location)


@pytest.mark.parametrize("location", FOREIGN)
def test_no_experiment_lies_outside_the_servers_own_root(location: str) -> None:
    with pytest.raises(places.Refused, match="Leave the location empty"):
        places.refuse_location(location)


@pytest.mark.parametrize("location", SOMEBODYS)
def test_no_experiment_lies_among_anothers_artifacts(location: str) -> None:
    with pytest.raises(places.Refused, match="that is not yet MLflow's"):
        places.refuse_location(location)


@pytest.mark.parametrize("source", [ROOT, ROOT + "/model", ROOT + "/a b/v..2", "s3://b/1/x/model"])
def test_a_version_comes_from_the_artifacts_of_what_it_names(source: str) -> None:
    places.refuse_source(source, [ROOT, "s3://b/1/x/"])


@pytest.mark.parametrize(
    "source",
    [
        ROOT + "x",
        ROOT + "/../../x",
        ROOT + "/%2e%2e/x",
        ROOT + "/%252E%252e/x",
        ROOT + "/..%2fx",
        ROOT + "/..\\x",
        ROOT + "/a%00b",
        f"mlflow-artifacts:/2/{RUN}/artifacts",
        f"mlflow-artifacts://host/1/{RUN}/artifacts",
        "s3://b/mlflow-backups",
        "s3://b/1/xy",
        "file:///etc",
        "http://169.254.169.254/latest",
        "",
    ],
)
def test_a_version_comes_from_nowhere_else(source: str) -> None:
    with pytest.raises(places.Refused, match="runs:/RUN/PATH"):
        places.refuse_source(source, [ROOT, "s3://b/1/x"])


def test_a_version_that_names_no_run_and_no_model_has_no_place() -> None:
    with pytest.raises(places.Refused):
        places.refuse_source("mlflow-artifacts:/1/x", [])
    with pytest.raises(places.Refused):
        places.refuse_source("/etc", [""])


@pytest.mark.parametrize("trace", ["tr-" + RUN, "a.b:c@d=+-_1", ""])
def test_a_trace_may_be_named_and_tagged(trace: str) -> None:
    own = f"mlflow-artifacts:/7/traces/{trace}/artifacts"
    tags = [("k", "s3://x"), ("mlflow.artifactLocation", own)]
    places.refuse_trace(trace, "7", [*tags, ("mlflow.trace.spansLocation", "TRACKING_STORE")])


@pytest.mark.parametrize("trace", ["..", ".", "../x", "a/b", "a\\b", "a%2fb", "a\0", "a b\n"])
def test_a_traces_id_leads_nowhere(trace: str) -> None:
    with pytest.raises(places.Refused, match="A trace's id"):
        places.refuse_trace(trace, "7", [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mlflow.artifactLocation", "s3://bucket/mlflow-backups"),
        ("mlflow.artifactLocation", "mlflow-artifacts:/8/traces/t/artifacts"),
        ("mlflow.artifactLocation", ""),
        ("mlflow.trace.archiveLocation", "s3://bucket/x"),
        ("mlflow.trace.spansLocation", "ARCHIVE_REPO"),
    ],
)
def test_a_traces_tags_say_no_place(key: str, value: str) -> None:
    with pytest.raises(places.Refused, match=key):
        places.refuse_trace("t", "7", [(key, value)])
    with pytest.raises(places.Refused, match=key):
        places.refuse_tag(key, value)
