"""What is answered at the app's door, and that all else passes it as it came."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from typing import Any

import pytest

from tasks.engine.templates import FILES

sys.path.insert(0, str(FILES / "app"))

from remote_mlflow_app.door import Door


def basic(login: bytes) -> bytes:
    return b"Basic " + b64encode(login)


GOOD = basic(b"alice:a:b")
SEARCH = "/api/2.0/mlflow/experiments/search"
FILE = "/api/2.0/mlflow-artifacts/artifacts/"


def passed(
    path: str, *headers: tuple[bytes, bytes], workspaces: bool = False
) -> tuple[int, str, list[Any]]:
    """Return the status and text of an answer, and what got through to the app."""
    seen: list[Any] = []
    sent: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> None:
        raise AssertionError("the door reads no body")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": list(headers)}
    asyncio.run(Door(app, workspaces)(scope, receive, send))
    if seen:
        assert seen == [(scope, receive, send)]  # the very same, nothing wrapped
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent).decode(), seen


@pytest.mark.parametrize(
    "login",
    [GOOD, basic("jörg:geheim".encode()), b"basic  " + b64encode(b"a:"), GOOD + b" "],
)
def test_a_login_passes(login: bytes) -> None:
    assert passed(SEARCH, (b"authorization", login))[0] == 200


@pytest.mark.parametrize(
    "login",
    [
        b"",
        b"x",
        b"Basic",
        b"Basic ",
        b"Basic x",
        b"Basic ====",
        b"Basic\t" + b64encode(b"a:b"),
        b"Bearer " + b64encode(b"a:b"),
        b"Digest x",
        basic(b"no colon"),
        basic(b"a\0b:c"),
        basic(b"\xff\xfe:x"),
        GOOD + b"," + GOOD,
    ],
)
def test_a_malformed_login_is_asked_for_again(login: bytes) -> None:
    status, text, seen = passed(SEARCH, (b"authorization", login))
    assert (status, seen) == (401, [])
    assert text.startswith("You are not authenticated.")


def test_two_logins_are_none() -> None:
    assert passed(SEARCH, (b"authorization", GOOD), (b"authorization", GOOD))[0] == 401


def test_whoever_has_no_login_is_mlflows_matter() -> None:
    assert passed("/health")[0] == 200
    assert passed(SEARCH)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        FILE + "1/../2/x",
        FILE + "1/%2e%2e/2/x",
        FILE + "1/%252e%252e/x",
        FILE + "..\\x",
        FILE + "a\0b",
        FILE + "a%00b",
        FILE + ".remote-mlflow-owner.json",
        "/ajax-api/2.0/mlflow-artifacts/presigned//.remote-mlflow-owner.json",
        "/api/2.0/mlflow-artifacts/mpu/create/.x",
    ],
)
def test_a_path_leads_nowhere_else(path: str) -> None:
    status, text, seen = passed(path)
    assert (status, seen) == (400, [])
    assert json.loads(text)["error_code"] == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "path",
    [FILE + "1/r/artifacts/v..2/100% sure/.hidden", FILE + "a b/%41", "/", "/static-files/x"],
)
def test_other_paths_pass(path: str) -> None:
    assert passed(path)[0] == 200


def test_a_workspace_is_named_only_where_there_are_any() -> None:
    header = (b"x-mlflow-workspace", b"x")
    status, text, seen = passed(SEARCH, header)
    assert (status, seen) == (400, [])
    assert "Unset MLFLOW_WORKSPACE" in json.loads(text)["message"]
    assert passed(SEARCH, header, workspaces=True)[0] == 200
    assert passed(SEARCH, (b"x-mlflow-workspace", b" "))[0] == 200
    assert passed("/api/3.0/mlflow/server-info", header)[0] == 200


def test_the_assistant_is_closed() -> None:
    assert passed("/ajax-api/3.0/mlflow/assistant/config", (b"authorization", GOOD))[0] == 403


def test_what_is_no_request_passes() -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["seen"] = True

    scope = {"type": "lifespan"}
    asyncio.run(Door(app, False)(scope, None, None))
    assert scope == {"type": "lifespan", "seen": True}


@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("header", [b"content-length", b"transfer-encoding"])
def test_what_is_refused_has_been_read(header: bytes, status: int) -> None:
    """nginx would answer 502 for a connection that is closed while it sends."""
    order: list[str] = []
    parts = [{"type": "http.request", "body": b"x", "more_body": n < 2} for n in range(3)]

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def receive() -> dict[str, Any]:
        order.append("read")
        return parts.pop(0)

    async def send(message: dict[str, Any]) -> None:
        order.append(message["type"])

    scope = {"type": "http", "path": FILE, "headers": [(header, b"3")]}
    asyncio.run(Door(app, False)(scope, receive, send))
    read = 1 if status == 200 else 3
    assert order == ["read"] * read + ["http.response.start"]


def test_a_client_that_leaves_is_not_waited_for() -> None:
    parts = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return parts.pop(0)

    async def send(message: dict[str, Any]) -> None:
        pass

    scope = {"type": "http", "path": FILE + "../x", "headers": [(b"content-length", b"9")]}
    asyncio.run(Door(None, False)(scope, receive, send))
    assert parts == []
