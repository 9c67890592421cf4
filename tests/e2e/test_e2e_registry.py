"""A registered model is looked at, promoted, and copied to another environment."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from lab import CHAIN, Host
from waiting import until

from tasks.engine.login import Login
from tasks.laptop.play import client_environment

LOG = """
import sys, tempfile
import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
features, kinds = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(features, kinds)
name = sys.argv[1]
mlflow.set_experiment(name)
with mlflow.start_run():
    mlflow.sklearn.log_model(model, name="model", registered_model_name=name,
                             input_example=features[:2])
# As MLflow 2 did: the run's own artifacts, and no logged model.
with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
    mlflow.sklearn.save_model(model, folder + "/model", input_example=features[:2])
    mlflow.log_artifacts(folder + "/model", "model")
    mlflow.register_model(f"runs:/{run.info.run_id}/model", name)
"""
# Digests of a version's files and what the model predicts, by version.
LOAD = """
import hashlib, json, pathlib, sys
import mlflow
from sklearn.datasets import load_iris
features, kinds = load_iris(return_X_y=True)
client = mlflow.MlflowClient()
seen = {}
for version in client.search_model_versions(f"name = '{sys.argv[1]}'"):
    uri = client.get_model_version_download_uri(version.name, version.version)
    place = pathlib.Path(mlflow.artifacts.download_artifacts(uri))
    model = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
    assert model.metadata.signature is not None
    seen[version.version] = {
        "files": {str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest()
                  for file in sorted(place.rglob("*")) if file.is_file()},
        "predicts": [int(kind) for kind in model.predict(features)],
        "tags": version.tags,
    }
print(json.dumps(seen))
"""
pytestmark = pytest.mark.sampled
STAGING = {"FABRIC_MLFLOW_ENVIRONMENT": "staging"}
# Seconds that a copy takes from its first word: where the moment of an interruption may fall.
DURATION = 6.0


@contextmanager
def two_environments(host: Host) -> Iterator[tuple[str, ...]]:
    """Add a staging server to the host; gives the options that name file and host."""
    file = host.home / "environments.yaml"
    file.write_text("mlflow: {environments: {staging: {port: 5002}}}\n")
    aim = ("-S", str(host.lab.ssh_config), "-f", str(file), "-H", host.alias)
    unit = "mlflow-server-staging"
    try:
        host.fab(*CHAIN, aim=aim, timeout=600, **STAGING)
        yield aim
    finally:
        host.run(
            f"systemctl disable -q --now {unit}.socket {unit}.service || true; "
            f"rm -rf /home/ubuntu/{unit} /etc/systemd/system/{unit}.* "
            f"/etc/tmpfiles.d/{unit}.conf /etc/nginx/sites-*/{unit}; "
            "systemctl daemon-reload; systemctl reload nginx"
        )
        # The next one is another server.
        mark = "mlflow-artifacts-staging/.remote-mlflow-owner.json"
        host.lab.s3().delete_object(Bucket=host.lab.bucket, Key=mark)


def as_client(host: Host, script: str, name: str, aim: Any = None, **variables: str) -> Any:
    """Run a data scientist's program on this machine; returns what it prints last, if JSON."""
    exported = host.fab("client", "--export", aim=aim, **variables).out
    values = dict(word.partition("=")[::2] for word in shlex.split(exported) if word != "export")
    login = Login(values["MLFLOW_TRACKING_USERNAME"], values["MLFLOW_TRACKING_PASSWORD"])
    host.fab("tunnel", "--background", aim=aim, **variables)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, name], capture_output=True, text=True, check=False,
            env=client_environment(login, f"http://localhost:{host.lab.local_port}"),
        )  # fmt: skip
    finally:
        host.fab("tunnel.close", aim=aim, **variables)
    assert done.returncode == 0, done.stderr
    last = (done.stdout.splitlines() or [""])[-1]
    return json.loads(last) if last.startswith("{") else None


# A request of some 44 kB, as MLflow's own pages make them for what a thousand runs registered.
MANY = """
import json, mlflow, uuid
client = mlflow.MlflowClient()
client.create_registered_model("many")
run = client.create_run(client.create_experiment("many")).info.run_id
client.create_model_version("many", f"runs:/{run}/model", run)
ids = ", ".join(f"'{id}'" for id in [run, *(uuid.uuid4().hex for _ in range(999))])
found = client.search_model_versions(f"run_id IN ({ids})", max_results=1000)
print(json.dumps({"found": [version.name for version in found]}))
"""


def told(host: Host, *words: str, **rest: Any) -> Any:
    """Return what a task reports as JSON."""
    return json.loads(host.fab(*words, "--json", **rest).out)


def listed(host: Host) -> Any:
    """Return what registry.list tells of iris; other tests may have models of their own."""
    return next(row for row in told(host, "registry.list") if row["model"] == "iris")


def test_versions_of_a_thousand_runs_are_found_in_one_request(host: Host) -> None:
    assert as_client(host, MANY, "many") == {"found": ["many"]}


def test_versions_are_promoted_demoted_and_shown(host: Host) -> None:
    as_client(host, LOG, "iris")
    first = host.fab("registry.promote", "iris", "1").out
    assert "✓ champion points at version 1 of iris (it is new)" in first
    second = host.fab("registry.promote", "iris", "2").out
    assert "✓ champion points at version 2 of iris (before: version 1)" in second
    back = "registry.promote iris 1 --alias champion"
    assert f"to take it back: ./fab -H {host.alias} {back}" in second
    host.fab(*back.split())
    assert "nothing to change" in host.fab("registry.promote", "iris", "1").out

    iris = listed(host)
    assert (iris["latest_version"], iris["aliases"]) == ("2", {"champion": "1"})
    assert (iris["host"], iris["environment"]) == (host.alias, "default")
    assert "champion → 1" in host.fab("registry.list").out
    (shown,) = told(host, "registry.show", "iris")
    newest, oldest = shown["versions"]
    assert (newest["version"], newest["aliases"]) == ("2", [])
    assert newest["source"].startswith("mlflow-artifacts:/")
    assert (oldest["version"], oldest["aliases"]) == ("1", ["champion"])
    assert oldest["source"].startswith("models:/m-")
    assert f"run: {oldest['run']}" in host.fab("registry.show", "iris").out

    _stages(host)
    _wrong_inputs(host)

    host.fab("registry.promote", "iris", "2")
    assert "✓ champion no longer points at version 2" in host.fab("registry.demote", "iris").out
    assert "nothing to change, iris has no alias" in host.fab("registry.demote", "iris").out
    tasks = [line.split("\t")[2:] for line in host.audit().splitlines()]
    assert ["registry.demote", "done"] in tasks


def _stages(host: Host) -> None:
    def aliases(version: str, stage: str) -> Any:
        host.fab("registry.promote", "iris", version, "--stage", stage)
        return listed(host)["aliases"]

    assert aliases("2", "Staging") == {"champion": "1", "challenger": "2"}
    assert aliases("2", "Production") == {"champion": "2"}
    assert aliases("2", "Archived") == {}


def _wrong_inputs(host: Host) -> None:
    model = ("no model 'irs'", "did you mean 'iris'", "registry.list")
    host.refused("registry.show", "irs", because=model)
    host.refused("registry.promote", "irs", "1", because=model)
    version = ("no version 9 of iris", "2, 1")
    host.refused("registry.promote", "iris", "9", because=version)
    for alias in ("latest", "v1"):
        because = (f"does not take '{alias}' as an alias", "champion")
        host.refused("registry.promote", "iris", "1", "--alias", alias, because=because)
    wrong = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "not the password"}
    because = ("refuses the password of admin", "MLFLOW_TRACKING_PASSWORD")
    host.refused("registry.list", because=because, **wrong)
    host.fab("stop")
    try:
        because = ("The server is down", f"./fab -H {host.alias} doctor")
        host.refused("registry.promote", "iris", "1", because=because)
    finally:
        host.fab("start")


@pytest.mark.costly
def test_a_version_is_copied_to_another_environment_whatever_interrupts_it(
    host: Host, moment: float
) -> None:
    name = f"copied-{moment}"  # one host has several of these tests
    as_client(host, LOG, name)
    with two_environments(host) as aim:
        because = ("Unknown environment 'stagin'", "did you mean 'staging'")
        host.refused("registry.copy", name, "1", "--to", "stagin", aim=aim, because=because)

        words = ("registry.copy", name, "1", "--to", "staging")
        with host.start(*words, aim=aim) as working:
            until(lambda: not working.running or "… copy" in working.so_far, "it is at work")
            with suppress(subprocess.TimeoutExpired):
                working.done(moment * DURATION)
            working.kill()
        print(f"killed {moment * DURATION:.1f} s after it began")
        host.fab(*words, aim=aim)
        again = host.fab(*words, aim=aim).out
        wanted = f"version 1 of {name} is version 1 of {name} on staging ({host.alias})"
        assert again == f"registry.copy: nothing to change, {wanted}\n"
        done = host.fab("registry.copy", name, "2", "--to", "staging", aim=aim).out
        wanted = f"version 2 of {name} is version 2 of {name} on staging ({host.alias})"
        assert f"✓ {wanted}: 7 files" in done

        here = as_client(host, LOAD, name, aim=aim)
        there = as_client(host, LOAD, name, aim=aim, **STAGING)
        assert set(there) == set(here) == {"1", "2"}
        for version in there:
            assert there[version]["files"] == here[version]["files"]
            assert there[version]["predicts"] == here[version]["predicts"]
            assert there[version]["tags"]["copied_from.version"] == f"{name}/{version}"
        host.fab("stop", aim=aim, **STAGING)
        because = (f"staging ({host.alias}): The server is down",)
        host.refused(*words, aim=aim, because=because)
