"""The wall around MLflow's own app: what a user names is refused, what a user needs works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.engine.templates import FILES

HERE = Path(__file__).parent
API = "/api/2.0/mlflow"
ALICE = ["alice", "a-password-of-12"]
BOB = ["bob", "a-password-of-12"]
NO_FIELDS = '{"name":' + "[" * 50000 + "]" * 50000 + "}"


def post(
    path: str, body: Any = None, login: list[str] | None = ALICE, **more: Any
) -> dict[str, Any]:
    path = path if path.startswith(("/api", "/ajax", "/graphql", "/v1")) else API + path
    return {"method": "POST", "path": path, "body": body, "login": login, **more}


def user(login: list[str]) -> dict[str, Any]:
    body = {"username": login[0], "password": login[1]}
    return {"method": "POST", "path": f"{API}/users/create", "body": body}


def grant(kind: str, name: str) -> dict[str, Any]:
    body = {"username": "alice", "resource_type": kind, "resource_id": name, "permission": "DENY"}
    return {
        "method": "POST",
        "path": "/api/3.0/mlflow/users/permissions/grant",
        "body": body,
    }


# <<2.experiment_id>> is that part of the third answer.
GONE = "<<12.experiment_id>>"
WORLD = [
    user(ALICE),
    user(BOB),
    post("/experiments/create", {"name": "bob"}, BOB),
    post("/runs/create", {"experiment_id": "<<2.experiment_id>>"}, BOB),
    post("/registered-models/create", {"name": "bobs"}, BOB),
    post(
        "/model-versions/create",
        {
            "name": "bobs",
            "source": "<<3.run.info.artifact_uri>>/model",
            "run_id": "<<3.run.info.run_id>>",
        },
        BOB,
    ),
    grant("experiment", "<<2.experiment_id>>"),
    grant("registered_model", "bobs"),
    post("/experiments/create", {"name": "alice"}),
    post("/runs/create", {"experiment_id": "<<8.experiment_id>>"}),
    post("/registered-models/create", {"name": "alices"}),
    post("/logged-models", {"experiment_id": "<<8.experiment_id>>", "name": "m"}),
    post("/experiments/create", {"name": "gone"}),
    post("/experiments/delete", {"experiment_id": GONE}),
]
OWN, BOBS = "<<9.run.info.artifact_uri>>", "<<3.run.info.artifact_uri>>"
RUN, BOBS_RUN = "<<9.run.info.run_id>>", "<<3.run.info.run_id>>"
MODEL = "<<11.model.info.model_id>>"


def source(named: str, **more: str) -> dict[str, Any]:
    return post("/model-versions/create", {"name": "alices", "source": named, **more})


def at(location: Any, path: str = "/experiments/create", **more: Any) -> dict[str, Any]:
    body = {"name": f"at {location} {path}", "artifact_location": location}
    return post(path, {**body, **more})


def trace(name: str, **tags: str) -> dict[str, Any]:
    where = {
        "type": "MLFLOW_EXPERIMENT",
        "mlflow_experiment": {"experiment_id": "<<8.experiment_id>>"},
    }
    info = {
        "trace_id": name,
        "trace_location": where,
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
        "tags": tags,
    }
    return post("/api/3.0/mlflow/traces", {"trace": {"trace_info": info}})


def tag(key: str, value: str, version: str = "3.0") -> dict[str, Any]:
    path = f"/api/{version}/mlflow/traces/tr-1/tags"
    return {"method": "PATCH", "path": path, "body": {"key": key, "value": value}, "login": ALICE}


def get(path: str, login: list[str] = ALICE, **more: Any) -> dict[str, Any]:
    return {"method": "GET", "path": path, "login": login, **more}


LOCATION = {"mlflow.artifactLocation": BOBS}
ARCHIVE = {"mlflow.trace.archiveLocation": BOBS, "mlflow.trace.spansLocation": "ARCHIVE_REPO"}

WORKS = [
    source(f"{OWN}/model", run_id=RUN),
    source(OWN, run_id=RUN),
    source(f"runs:/{RUN}/model", run_id=RUN),
    source(f"models:/{MODEL}", model_id=MODEL),
    source(f"models:/{MODEL}", model_id=MODEL, run_id=RUN),
    source("<<11.model.info.artifact_uri>>", model_id=MODEL),
    source("models:/alices/1"),
    source("models:/alices/1", run_id=RUN),
    post(
        "/registered-models/create",
        {"name": "prompt", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]},
    ),
    post(
        "/model-versions/create",
        {
            "name": "prompt",
            "source": "dummy-source",
            "tags": [
                {"key": "mlflow.prompt.is_prompt", "value": "true"},
                {"key": "mlflow.prompt.text", "value": "../s3://x"},
            ],
        },
    ),
    at(""),
    at("mlflow-artifacts:/team"),
    post("/experiments/create", {"name": "no location"}),
    trace("tr-1", other="s3://x"),
    tag("mlflow.note", "s3://x/../y"),
    get("/ajax-api/2.0/mlflow/users/current"),
    get("/"),
    get("/health"),
    post("/runs/set-tag", {"run_id": RUN, "key": "mlflow.artifactLocation", "value": "s3://x"}),
    post("/graphql", {"query": "{__typename}", "operationName": None, "variables": {}}),
    post("/runs/search", {"experiment_ids": ["<<8.experiment_id>>"], "filter": "tags.a = '../..'"}),
]

REFUSED = [
    post("/experiments/update", {"experiment_id": GONE, "new_name": "back"}),
    source("s3://bucket/mlflow-backups/default"),
    source("s3://bucket/mlflow-backups/default", run_id=RUN),
    source("file:///etc"),
    source("/etc", run_id=RUN),
    source("http://169.254.169.254/latest"),
    source("gs://x/y"),
    source(" s3://bucket/x"),
    source(f"{BOBS}/model"),
    source(f"{BOBS}/model", run_id=RUN),
    source(f"{OWN}/../../x", run_id=RUN),
    source(f"{OWN}/%2e%2e/%2e%2e/x", run_id=RUN),
    source(f"{OWN}/..\\x", run_id=RUN),
    source(f"{OWN}x", run_id=RUN),
    source(f"runs:/{BOBS_RUN}/model"),
    source(f"runs://host/{RUN}/model", run_id=RUN),
    source("models:/alices/../x"),
    source("models:/", model_id="../x"),
    post("/model-versions/create", ["not an object"]),
    at("s3://bucket/mlflow-backups/default/stream"),
    at("file:///home/ubuntu/mlflow-server/next"),
    at("/home/ubuntu/mlflow-server/next"),
    at(f"{BOBS}/model"),
    at("mlflow-artifacts:/../x"),
    at("mlflow-artifacts:/x/%252e%252e/y"),
    at("s3://bucket/x", path="/ajax-api/2.0/mlflow/experiments/create"),
    at(["s3://bucket/x"]),
    at(5),
    post("/experiments/create", {"name": "json name", "artifactLocation": "s3://bucket/x"}),
    post("/experiments/create", json.dumps({"name": "twice", "artifact_location": "s3://bucket"})),
    post("/experiments/create", []),
    post("/experiments/create", 1),
    post("/experiments/create", "x"),
    trace("tr-2", **LOCATION),
    trace("tr-3", **ARCHIVE),
    trace("../../x"),
    tag("mlflow.artifactLocation", BOBS),
    tag("mlflow.artifactLocation", BOBS, "2.0"),
    tag("mlflow.trace.archiveLocation", BOBS),
    post(
        "/traces",
        {
            "experiment_id": "<<8.experiment_id>>",
            "timestamp_ms": 1,
            "tags": [{"key": "mlflow.trace.archiveLocation", "value": BOBS}],
        },
    ),
    get(f"/get-artifact?run_uuid={RUN}&path=../x"),
    get(f"/get-artifact?run_uuid={RUN}&path=%252e%252e/x"),
    get(f"/get-artifact?run_uuid={RUN}&path=..%5c..%5cx"),
    get(f"/get-artifact?run_uuid={RUN}&path=a%00b"),
    get("/api/2.0/mlflow-artifacts/artifacts/1/../2/x"),
    post(f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={RUN}&path=../x", {}),
    post("/artifacts/presigned-upload-url", {"run_id": RUN, "path": "../x"}),
    post("/api/2.0/mlflow-artifacts/mpu/create/1/x", {"path": "..", "num_parts": 1}, None),
    post("/experiments/create", raw=NO_FIELDS),
    post("/runs/log-batch", raw=NO_FIELDS),
    post("/runs/create", raw='{"a":' * 20000),
    post("/graphql", raw="[" * 100000),
    post("/api/3.0/mlflow/workspaces", {"name": "w", "default_artifact_root": "s3://x"}, None),
    get("/api/2.0/mlflow/experiments/search", headers={"x-mlflow-workspace": "x"}),
]

FORBIDDEN = [
    source("models:/bobs/1"),
    source(f"{BOBS}/model", run_id=BOBS_RUN),
    source(f"{BOBS}/model", runId=BOBS_RUN),
    post("/ajax-api/3.0/mlflow/demo/generate", {"features": []}),
    get("/ajax-api/3.0/mlflow/assistant/config"),
    post("/gateway/proxy/x/v1/files", {}) | {"path": "/gateway/proxy/x/v1/files"},
]

SECRET = {"secret_name": "x", "secret_value": [{"key": "a", "value": "b"}], "provider": "openai"}
JOB = {"experiment_id": "<<8.experiment_id>>", "serialized_scorers": ["{}"], "trace_ids": ["x"]}
# Whose fields would be places: what they do is off.
OFF = [
    post("/api/3.0/mlflow/gateway/secrets/create", SECRET),
    post("/ajax-api/3.0/mlflow/genai/evaluate/invoke", JOB),
    post("/gateway/x/mlflow/invocations", {}) | {"path": "/gateway/x/mlflow/invocations"},
]

# Users are refused what would have the server call an address of theirs, whether it is on or off.
FORBIDDEN += [
    post("/api/3.0/mlflow/gateway/secrets/create", SECRET),
    post("/ajax-api/3.0/mlflow/gateway/secrets/create", SECRET),
    post("/api/3.0/mlflow/gateway/model-definitions/create", {"name": "x"}),
    post("/api/3.0/mlflow/gateway/endpoints/create", {"name": "x"}),
]

UNKNOWN = [
    get("/api/2.0/mlflow/experiments/search", headers={"authorization": "Bearer x"}),
    get("/api/2.0/mlflow/experiments/search", headers={"authorization": "Basic\tYTpi"}),
    at("s3://bucket/anonymous") | {"login": None},
    post("/experiments/create", raw=NO_FIELDS) | {"login": None},
]
# Admins are refused as well, who have no password dialog: a login of theirs is worth a host.
ADMINS = ("workspaces", "mpu/create", "gateway", "genai")


def admins(request: dict[str, Any]) -> dict[str, Any]:
    """Give the requests that only an admin gets as far as the handler to an admin."""
    if any(part in request["path"] for part in ADMINS):
        return {name: value for name, value in request.items() if name != "login"}
    return request


TABLE = [
    *((request, {200}) for request in WORKS),
    *((request, {400}) for request in map(admins, REFUSED)),
    *((request, {403}) for request in FORBIDDEN),
    *((request, {401}) for request in UNKNOWN),
    *((admins(request), {501}) for request in OFF),
]


def answered(how: str, requests: list[dict[str, Any]]) -> list[Any]:
    """Have real.py make requests of the app behind the wall; return what it was answered."""
    whole = [sys.executable, str(HERE / "real.py"), how, str(FILES / "app")]
    done = subprocess.run(
        whole,
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.timeout(240)
def test_a_login_names_no_place_and_works_as_ever() -> None:
    answers = answered("requests", [*WORLD, *(request for request, _ in TABLE)])
    assert [status for status, _ in answers[: len(WORLD)]] == [200] * len(WORLD)
    wrong = [
        (request["path"], str(request.get("body"))[:200], status, text[:200])
        for (request, wanted), (status, text) in zip(TABLE, answers[len(WORLD) :], strict=True)
        if status not in wanted
    ]
    assert wrong == []
    refused = [text for status, text in answers[len(WORLD) :] if status == 400]
    assert all(json.loads(text)["error_code"] for text in refused)


# -- past FastAPI ------------------------------------------------------------------------------

SEARCH = f"{API}/experiments/search?max_results=1"
ABROAD = {"origin": "https://abroad.example"}
HERE_TOO = {"origin": "http://localhost:3000"}
ASKS_FIRST = {**HERE_TOO, "access-control-request-method": "POST"}

FLASKS = [
    get(SEARCH),
    get(SEARCH, method="HEAD"),
    get(SEARCH, method="OPTIONS"),
    get(SEARCH, method="OPTIONS", headers=ASKS_FIRST),
    get(SEARCH, method="OPTIONS", headers={**ASKS_FIRST, **ABROAD}),
    get(SEARCH, method="PUT"),
    get(SEARCH, login=None),
    get(SEARCH, login=["admin", "a-wrong-password"]),
    get(SEARCH, headers={"host": "abroad.example"}),
    get(SEARCH, headers=HERE_TOO),
    get(SEARCH, headers=ABROAD),
    get(SEARCH, headers={"x-e2e": "\u00e9", "cookie": "session=forged"}),
    get(f"{API}/experiments/get?experiment_id=0"),
    get(f"{API}/experiments/get?experiment_id=%C3%A9"),
    get(f"{API}/runs/get?run_id=none"),
    post("/experiments/search", {"max_results": 2}),
    post("/experiments/search", {"max_results": 2}, headers=ABROAD),
    post("/experiments/search", raw="{"),
    post("/experiments/search", raw=""),
    post("/experiments/create", raw=NO_FIELDS),
    post("/runs/log-batch", {"run_id": "none", "metrics": [{"key": "k"}]}),
    post("/ajax-api/2.0/mlflow/runs/search", {"experiment_ids": ["0"]}),
    post("/graphql", {"query": "{ nothing }"}),
    get("/"),
    get("/version"),
    get("/version", login=None),
    get("/get-artifact?run_uuid=none&path=x"),
    get("/api/2.0/mlflow/users/current"),
    get("/api/2.0/mlflow-artifacts/artifacts?path="),
]
FASTAPIS = [
    get("/health"),
    get("/api/3.0/mlflow/server-info"),
    get("/api/2.0/mlflow-artifacts/artifacts/0/none"),
    get("/ajax-api/3.0/mlflow/mcp-servers/search"),
    get("/static-files/none.js"),
    get("/nothing"),
    get(f"{API}/experiments/search/"),
    get(f"{API}//experiments/search"),
    post("/v1/traces"),
    post("/ajax-api/3.0/jobs/search", {}),
]


@pytest.mark.timeout(240)
def test_what_flask_is_given_straight_is_answered_as_by_way_of_fastapi() -> None:
    asked = [
        {name: value for name, value in request.items() if value != ALICE}
        for request in (*FLASKS, *FASTAPIS)
    ]
    answers = answered("ways", asked)
    assert [straight for straight, *_ in answers] == [True] * len(FLASKS) + [False] * len(FASTAPIS)
    for request, (_, by_fastapi, by_flask) in zip(FLASKS, answers, strict=False):
        assert by_flask == by_fastapi, request
    statuses = {by_flask[0] for _, _, by_flask in answers[: len(FLASKS)]}
    assert statuses >= {200, 204, 400, 401, 403, 404, 405}


# -- uploads -----------------------------------------------------------------------------------

PROXY = "/api/2.0/mlflow-artifacts/artifacts"


def put(path: str, raw: str = "content", **more: Any) -> dict[str, Any]:
    return {"method": "PUT", "path": path, "raw": raw, **more}


UPLOADS = [
    put(f"{PROXY}/0/run/a.txt"),
    put(f"{PROXY}/0/run/empty.txt", ""),
    put(f"/ajax-api{PROXY.removeprefix('/api')}/0/run/a.txt", headers=HERE_TOO),
    put(f"{PROXY}/0/run/a.txt", headers=ABROAD),
    put(f"{PROXY}/0/run/a.txt", headers={"host": "abroad.example"}),
    put(f"{PROXY}/0/run/a.txt", login=None),
    put(f"{PROXY}/0/run/a.txt", login=["admin", "a-wrong-password"]),
    put(f"{PROXY}/0/run/a.txt", login=ALICE),
    put(f"{PROXY}/1/a.txt", login=ALICE),
    put(f"{PROXY}/none/a.txt", login=ALICE),
    put(f"{PROXY}/0/../1/a.txt"),
    put(f"{PROXY}/0/%252e%252e/a.txt"),
    put(f"{PROXY}/0/run/"),
    put(f"{PROXY}/"),
]
QUEUED = [get(f"{PROXY}/0/none"), put(PROXY), put(f"{API}{PROXY}/0/a"), put(f"{API}/x")]


@pytest.mark.timeout(240)
def test_an_upload_without_queues_is_answered_as_with_them() -> None:
    first = [user(ALICE), post("/experiments/create", {"name": "alices"})]  # which gets the id 1
    asked = [*UPLOADS, *({k: v for k, v in each.items() if v != ALICE} for each in QUEUED)]
    answers = answered("uploads", [*first, *asked])[len(first) :]
    assert [unqueued for unqueued, *_ in answers] == [True] * len(UPLOADS) + [False] * len(QUEUED)
    for request, (_, by_queues, without) in zip(asked, answers, strict=True):
        assert without == by_queues, request
    assert {without[0] for _, _, without in answers} >= {200, 400, 401, 403}


# -- what the databases are asked ----------------------------------------------------------------


def may_be_admin(truth: bool) -> dict[str, Any]:
    body = {"username": "alice", "is_admin": truth}
    return {"method": "PATCH", "path": f"{API}/users/update-admin", "body": body}


@pytest.mark.timeout(240)
def test_who_is_an_admin_is_asked_at_each_request_and_connections_are_set_once() -> None:
    for_admins = get(f"{API}/webhooks")
    allowed = [for_admins, for_admins]
    asked = [user(ALICE), *allowed, may_be_admin(True), *allowed, may_be_admin(False), *allowed]
    answers = answered("statements", asked)
    assert [status for status, _ in answers] == [200, 403, 403, 200, 200, 200, 200, 403, 403]
    for _, statements in (answers[5], answers[8]):
        assert not [each for each in statements if each.startswith("PRAGMA")]
    of_alice = [each for each in answers[5][1] if each.startswith("SELECT users.is_admin")]
    assert of_alice == ["SELECT users.is_admin \nFROM users \nWHERE users.username = ?"]
