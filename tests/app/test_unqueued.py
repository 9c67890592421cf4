"""An upload passes MLflow's middlewares in one task; test_real_app.py has the real answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse

from tasks.engine.templates import FILES

sys.path.insert(0, str(FILES / "app"))

from remote_mlflow_app import unqueued

Message = dict[str, Any]
PATH = "/api/2.0/mlflow-artifacts/artifacts/{artifact_path:path}"
UPLOAD = PATH.replace("{artifact_path:path}", "0/a")


def app_with(*dispatches: Callable[..., Any]) -> FastAPI:
    """An app whose route tells of the pieces that it got and of the task that it runs in."""
    app = FastAPI()
    for dispatch in dispatches:
        app.middleware("http")(dispatch)

    async def take(artifact_path: str, request: Request) -> PlainTextResponse:
        if artifact_path == "fails":
            raise ZeroDivisionError
        sizes = [len(piece) async for piece in request.stream() if piece]
        task = id(asyncio.current_task())
        return PlainTextResponse(f"{task} {sizes}", 201, {"x-route": "seen"})

    app.add_api_route(PATH, take, methods=["PUT", "POST"])
    unqueued.stand(app)
    return app


async def fastapi_permission_middleware(request: Any, call_next: Callable[..., Any]) -> Any:
    if "authorization" not in request.headers:
        return PlainTextResponse("no login", 401)
    answer = await call_next(request)
    answer.headers["x-permitted"] = "seen"
    return answer


async def of_somebody_else(request: Any, call_next: Callable[..., Any]) -> Any:
    return await call_next(request)


LOGIN = [(b"authorization", b"x")]


def put(
    app: Any, path: str = UPLOAD, headers: Any = LOGIN, method: str = "PUT"
) -> tuple[int, dict[str, str], str, bool]:
    """Send three pieces; return status, headers, text, and whether one task did it all."""
    scope = {
        "type": "http", "path": path, "method": method, "http_version": "1.1", "root_path": "",
        "query_string": b"", "headers": headers, "asgi": {"version": "3.0"},
    }  # fmt: skip
    waiting = [
        {"type": "http.request", "body": b"x" * size, "more_body": size != 3} for size in (1, 2, 3)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> int:
        await app(scope, receive, send)
        return id(asyncio.current_task())

    here = asyncio.run(run())
    text = b"".join(message.get("body", b"") for message in sent[1:]).decode()
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    task, _, told = text.partition(" ")
    return sent[0]["status"], headers, told, task == str(here)


def test_an_upload_is_in_one_task_from_the_server_to_the_route() -> None:
    status, headers, text, alone = put(app_with(fastapi_permission_middleware))
    assert (status, text, alone) == (201, "[1, 2, 3]", True)
    assert (headers["x-route"], headers["x-permitted"]) == ("seen", "seen")


@pytest.mark.parametrize(
    ("path", "method"), [(UPLOAD, "POST"), (UPLOAD.replace("/api", "/other/api"), "PUT")]
)
def test_all_else_has_its_queues(path: str, method: str) -> None:
    app = app_with(fastapi_permission_middleware)
    if path != UPLOAD:
        app.mount("/other", app.router)
    status, headers, text, alone = put(app, path, method=method)
    assert (status, text, alone) == (201, "[1, 2, 3]", False)
    assert headers["x-permitted"] == "seen"


def test_a_middleware_that_nobody_knows_stays_as_it_is() -> None:
    app = app_with(of_somebody_else, fastapi_permission_middleware)
    kinds = [each.cls for each in app.user_middleware]
    assert kinds == [unqueued.Unqueued, BaseHTTPMiddleware]
    assert put(app)[2:] == ("[1, 2, 3]", False)


def test_who_is_refused_does_not_get_to_the_route() -> None:
    status, headers, _, _ = put(app_with(fastapi_permission_middleware), headers=[])
    assert status == 401
    assert "x-route" not in headers


def test_what_a_route_raises_is_raised_by_the_app() -> None:
    with pytest.raises(ZeroDivisionError):
        put(app_with(fastapi_permission_middleware), UPLOAD.replace("0/a", "fails"))
