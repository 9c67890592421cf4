"""The application's wall against two users who try everything; see intruder.py."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab import ROOT, SOCKET, UNIT, Host, Lab

from tasks.engine.login import Login
from tasks.engine.paths import PROJECT
from tasks.laptop.play import client_environment

HERE = Path(__file__).parent
API = "http://127.0.0.1:5000/api/2.0/mlflow"
PASSWORD = "a-password-of-12"
# Where what neither of them may read lies: below the bucket, and on the host.
BACKUPS = "mlflow-backups/default"
KEYS = (f"{BACKUPS}/20260101T000000Z-00000000", f"{BACKUPS}/stream")
PATHS = ("/etc/remote-canary", ROOT, "/home/ubuntu", "/root")
# What the server itself, or its host, writes all the time.
WRITTEN = (f"{ROOT}/data/", f"{ROOT}/mlflow.db", f"{ROOT}/basic_auth.db", "/var/", "/run/", "/tmp/")
# What a data scientist does with models, prompts and traces, as any user may who owns them.
USES = """
import os, sys, mlflow
from mlflow import MlflowClient
name, client = sys.argv[1], MlflowClient()
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str]) -> list[str]:
        return model_input
needs = {"pip_requirements": ["mlflow"]}
mlflow.set_experiment(name)
with mlflow.start_run() as run:
    mlflow.log_text("a note", "note.txt")
    logged = mlflow.pyfunc.log_model(name="model", python_model=Model(), **needs,
                                     registered_model_name=name)
    mlflow.pyfunc.save_model("saved", python_model=Model(), **needs)
    mlflow.log_artifacts("saved", "old")
assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/note.txt") == "a note"
mlflow.register_model(f"runs:/{run.info.run_id}/old", name)
mlflow.register_model(f"models:/{logged.model_id}", name)
client.copy_model_version(f"models:/{name}/1", name + "-copy")
for version in ("1", "2", "3"):
    assert mlflow.pyfunc.load_model(f"models:/{name}/{version}").predict(["x"]) == ["x"]
assert mlflow.pyfunc.load_model(f"models:/{name}-copy/1").predict(["x"]) == ["x"]
mlflow.genai.register_prompt(name + "-prompt", "Hello {{who}}, read s3://x/../y")
assert "Hello" in mlflow.genai.load_prompt(f"prompts:/{name}-prompt/1").template
with mlflow.start_span("root") as span:
    span.set_inputs({"question": "s3://x"})
mlflow.flush_trace_async_logging()
(trace,) = mlflow.search_traces(return_type="list", locations=[run.info.experiment_id])
assert trace.data.spans[0].inputs == {"question": "s3://x"}
"""


@pytest.fixture
def third(request: pytest.FixtureRequest) -> int | None:
    """Give which third of the attempts is made today; None with --full, for all."""
    return None if request.config.getoption("full") else int(request.config.getoption("third"))


def on_host(host: Host, stdin: str, words: str) -> str:
    """Run a program of this folder's on the host; returns its last line."""
    done = host.run(words, stdin)
    return done.splitlines()[-1]


def routes(host: Host) -> Any:
    """Ask the release on the host itself which routes it has."""
    program = (PROJECT / "tests/app/real.py").read_text()
    return json.loads(on_host(host, program, f"cd /tmp; {ROOT}/venv/bin/python -B - routes"))


def places() -> list[str]:
    """List the fields that somebody has decided to be places that a request can name."""
    found, at_places = [], False
    for line in (PROJECT / "tests/app/decided.txt").read_text().splitlines():
        if line.startswith("["):
            at_places = line != "[not a place]" and not line.startswith("[closed")
        elif at_places and line:
            found.append(line)
    assert len(found) > 30
    return found


def user(host: Host, name: str) -> list[str]:
    """Make a user by MLflow's own API."""
    name = f"{name}-{secrets.token_hex(3)}"
    body = json.dumps({"username": name, "password": PASSWORD})
    admin = f'user = "{":".join(host.login())}"\ndata = {json.dumps(body)}\n'
    host.run(f"curl -sf -K - -H 'Content-Type: application/json' {API}/users/create", admin)
    return [name, PASSWORD]


@contextmanager
def canaries(host: Host) -> Iterator[dict[str, str]]:
    """Put texts where nobody may read; gives them with their names, and the server's secrets."""
    found = {}
    for folder in (*KEYS, prefix(host)):
        found[text := "canary-" + secrets.token_hex(12)] = folder
        host.lab.s3().put_object(Bucket=host.lab.bucket, Key=f"{folder}/canary.txt", Body=text)
    for folder in PATHS:
        found[text := "canary-" + secrets.token_hex(12)] = folder
        host.run(f"mkdir -p {folder}; cat > {folder}/canary.txt; chmod a+r {folder}/*.txt", text)
    words = host.run(f"sed -n 's/^MLFLOW_[A-Z_]*KEY=//p' {ROOT}/server.env").replace("'", "")
    found |= dict.fromkeys(words.split(), "server.env")
    found[host.lab.keys["AWS_SECRET_ACCESS_KEY"]] = "the server's keys"
    try:
        yield found
    finally:
        for folder in (*KEYS, prefix(host)):
            host.lab.s3().delete_object(Bucket=host.lab.bucket, Key=f"{folder}/canary.txt")
        host.run("rm -rf /etc/remote-canary " + " ".join(f"{path}/canary.txt" for path in PATHS))


def prefix(host: Host) -> str:
    return host.variables.get("FABRIC_MLFLOW_PREFIX", "mlflow-artifacts")


def objects(host: Host) -> dict[str, str]:
    """Return what lies in the bucket, with its digests."""
    pages = host.lab.s3().get_paginator("list_objects_v2").paginate(Bucket=host.lab.bucket)
    return {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", [])}


def files(host: Host) -> dict[str, str]:
    """Return the host's files, but those that its programs write all the time."""
    lines = host.run("find / -xdev -type f -printf '%p\\t%s %T@\\n'").splitlines()
    whole = dict(line.partition("\t")[::2] for line in lines if "\t" in line)
    return {path: what for path, what in whole.items() if not path.startswith(WRITTEN)}


def attacked(host: Host, door: int | str, texts: dict[str, str], third: int | None) -> Any:
    """Have two users try; returns what intruder.py has found."""
    job = {
        "door": door,
        "routes": routes(host),
        "places": places(),
        "admin": host.login(),
        **{name: user(host, name) for name in ("owner", "reader", "stranger")},
        "bucket": host.lab.bucket,
        "prefix": prefix(host),
        "canaries": texts,
        "folders": [*KEYS, prefix(host), *PATHS],
        "third": third,
    }
    host.run("cat > /tmp/intruder.py", (HERE / "intruder.py").read_text())
    return json.loads(on_host(host, json.dumps(job), "python3 /tmp/intruder.py"))


def use(host: Host, login: tuple[str, str], name: str, uri: str) -> None:
    """Do what a data scientist does, as one of them."""
    (folder := host.home / name).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", USES, name], capture_output=True, text=True, check=False,
        env=client_environment(Login(*login), uri), cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def held(host: Host, door: int | str, third: int | None) -> None:
    """Assert that nothing was read, written, called or broken, and that all is as it was."""
    with canaries(host) as texts:
        objects_before, files_before = objects(host), files(host)
        told = attacked(host, door, texts, third)
        host.healthy()
        objects_after, files_after = objects(host), files(host)
    own = {told["owner"]["experiment_id"]}
    for name in ("reader", "stranger"):
        print(f"{name}: {told[name]['seconds']:.0f} s, {told[name]['statuses']}")
        assert told[name]["read"] == []
        assert told[name]["broken"] == []
        assert told[name]["statuses"]["200"] > 100, "they get far enough"
        assert told[name]["statuses"]["403"] > 100
        own |= {told["own"][name]["experiment_id"], *told[name]["made"]}
    assert told["heard"] == []
    assert told["foreign"] == []
    for key in dict(objects_before.items() ^ objects_after.items()):
        assert key.startswith(tuple(f"{prefix(host)}/{number}/" for number in own)), key
    assert dict(files_before.items() ^ files_after.items()) == {}
    planted = f"{prefix(host)}/{told['owner']['experiment_id']}/"
    owners = [key for key in objects_after if key.startswith(planted)]
    assert len(owners) == 9, owners
    with host.tunnel() as uri:
        for name in ("admin", "reader", "stranger"):
            login = host.login() if name == "admin" else (told[name]["name"], PASSWORD)
            use(host, login, f"uses-{name}-{secrets.token_hex(3)}", uri)


def test_two_users_reach_nothing_that_is_not_theirs(host: Host, third: int | None) -> None:
    held(host, 5000, third)


@pytest.mark.sampled
def test_the_app_s_wall_holds_alone(host: Host, third: int | None) -> None:
    """Without nginx before it, which refuses some of that already."""
    held(host, f"/run/{UNIT}.sock", third)


@pytest.mark.sampled
@pytest.mark.parametrize("permission", ["READ", "NO_PERMISSIONS"])
@pytest.mark.parametrize("access", ["proxied", "direct"])
def test_so_they_do_on_postgresql(
    lab: Lab, third: int | None, access: str, permission: str
) -> None:
    with lab.blank() as host:
        host.variables |= {
            "FABRIC_MLFLOW_ARTIFACT_ACCESS": access,
            "FABRIC_MLFLOW_DEFAULT_PERMISSION": permission,
        }
        host.fab("install", "postgres.install", timeout=600)
        host.variables["FABRIC_MLFLOW_BACKEND_STORE_URI"] = SOCKET
        host.fab("configure", "deploy", timeout=600)
        held(host, 5000, third)


@pytest.mark.sampled
def test_so_they_do_where_clients_go_to_s3_themselves(lab: Lab, third: int | None) -> None:
    with lab.blank() as host:
        host.variables |= {
            "FABRIC_MLFLOW_ARTIFACT_ACCESS": "direct",
            "FABRIC_MLFLOW_DEFAULT_PERMISSION": "NO_PERMISSIONS",
        }
        host.fab("install", "configure", "deploy", timeout=600)
        held(host, 5000, third)
