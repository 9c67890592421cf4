"""All environments of the settings, and what two of them must not have in common."""

from __future__ import annotations

import pytest
from invoke import Exit

from tasks.engine.environments import refuse_shared, settle_all
from tasks.engine.settings import settle


def settle_error(file: object, variables: dict[str, str] | None = None) -> str:
    with pytest.raises(Exit) as caught:
        settle(file, variables or {})  # type: ignore[arg-type]
    assert caught.value.message is not None
    return caught.value.message


def test_all_environments_are_settled_the_default_one_first():
    file = {
        "hosts": ["a"],
        "mlflow": {"version": "3.17.1", "environments": {"staging": {"hosts": ["b"]}, "x": None}},
    }
    found = settle_all(file, {"FABRIC_MLFLOW_PORT": "6000"})
    assert [(settings.label, settings.port, hosts) for settings, hosts in found] == [
        ("default", 6000, ["a"]), ("staging", 5000, ["b"]), ("x", 5000, ["a"]),
    ]  # fmt: skip
    assert {settings.version for settings, _ in found} == {"3.17.1"}


def test_a_variable_that_one_alone_can_have_is_meant_for_the_chosen_one():
    file = {"mlflow": {"environments": {"a": None, "b": None}}}
    variables = {
        "FABRIC_MLFLOW_ENVIRONMENT": "b",
        "FABRIC_MLFLOW_ROOT": "/srv/x",
        "FABRIC_MLFLOW_WORKERS": "2",
    }
    found = settle_all(file, variables)
    assert [settings.root for settings, _ in found] == [None, None, "/srv/x"]
    assert [settings.workers for settings, _ in found] == [2, 2, 2]


def test_a_mistake_in_any_environment_is_one_line():
    with pytest.raises(Exit, match="`mlflow: prot:`"):
        settle_all({"mlflow": {"environments": {"staging": {"prot": 1}}}}, {})


# -- what two environments must not have in common ---------------------------------------------


def shared(mlflow: dict[str, object], *use: str, given: str = "", **variables: str) -> str:
    """Return why these environments are refused, or nothing; `use` are those that are chosen."""
    file = {"mlflow": {"bucket": "my-bucket", **mlflow}}
    settled = [settle(file, variables, name) for name in use]
    chosen = [(settings, [given] if given else hosts) for settings, hosts in settled]
    try:
        refuse_shared(file, variables, chosen)
    except Exit as refusal:
        return str(refusal.message)
    return ""


ONE_PORT = {"a": {"hosts": ["x", "y"]}, "b": {"hosts": ["y"], "port": 5000}}
APART = {"environment": "a", "environments": {"a": {}, "b": {"port": 6000}}}


@pytest.mark.parametrize(
    ("mlflow", "wanted"),
    [
        ({"environment": "a", "environments": ONE_PORT}, "a and b have the same port (5000) on y."),
        ({"environments": {"a": None}}, "default and a have the same port (5000)."),
        (
            {"environments": {"a": {"port": 6000, "root": "~/mlflow-server/"}}},
            "default and a have the same folder (~/mlflow-server).",
        ),
        (
            {"environments": {"a": {"port": 6000, "prefix": "mlflow-artifacts/a"}}},
            "default and a have the same files (s3://my-bucket/mlflow-artifacts).",
        ),
        (
            {"backend_store_uri": "postgresql://x/y", "environments": {"a": {"port": 6000}}},
            "default and a have the same database.",
        ),
    ],
)
def test_two_environments_that_would_take_each_other_s_are_one_line(mlflow, wanted):
    message = shared(mlflow)
    assert wanted in message
    assert "Give one of them a `" in message
    assert "fabric.yaml" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "mlflow",
    [
        {"environments": {"a": {"port": 6000}, "b": {"port": 6001}}},
        {"environment": "a", "environments": {"a": {"hosts": ["x"]}, "b": {"hosts": ["y"]}}},
        {"environment": "a", "environments": {"a": {}}},
        {"environments": {"a": {"port": 6000, "bucket": "another", "prefix": "mlflow-artifacts"}}},
        {"environments": {"a": {"port": 6000, "local_port": 5001}}},
        {"environments": {"a": {"port": 6000, "prefix": "mlflow-artifacts-2"}}},
    ],
)
def test_environments_that_leave_each_other_alone_are_fine(mlflow):
    assert shared(mlflow) == ""


def test_the_unnamed_server_counts_where_it_is_chosen_or_nothing_takes_its_place():
    assert shared(APART) == ""
    assert "default and a have the same port" in shared(APART, "default")


def test_a_host_that_h_names_may_be_another_environment_s():
    mlflow = {"environment": "a", "environments": {"a": {"hosts": ["x"]}, "b": {"hosts": ["y"]}}}
    assert shared(mlflow, "b") == ""
    assert "a and b have the same port (5000) on x." in shared(mlflow, "b", given="x")


def test_hosts_that_h_alone_names_may_be_one():
    mlflow = {"environments": {"a": {"port": 5000}}}
    assert "default and a have the same port (5000)." in shared(mlflow, "a", given="x")


def test_a_variable_may_keep_environments_apart_or_bring_them_together():
    assert shared(APART, "b", FABRIC_MLFLOW_PORT="7000") == ""
    assert "same port (5000)" in shared(APART, "b", FABRIC_MLFLOW_PORT="5000")
    assert "same port (7000)" in shared(APART, "a", "b", FABRIC_MLFLOW_PORT="7000")


def test_a_bucket_that_only_a_variable_names_is_everybody_s():
    file = {"mlflow": {"environments": {"a": {"port": 6000, "prefix": "mlflow-artifacts"}}}}
    with pytest.raises(Exit, match=r"s3://given/mlflow-artifacts"):
        refuse_shared(file, {"FABRIC_MLFLOW_BUCKET": "given"})
