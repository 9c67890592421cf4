"""What Flask alone answers goes to it straight; tests/app/test_real_app.py has the real answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask, Response
from starlette.responses import PlainTextResponse

from tasks.engine.templates import FILES

sys.path.insert(0, str(FILES / "app"))

from remote_mlflow_app import direct

Message = dict[str, Any]
WHOLE = [{"type": "http.request", "body": b"a"}]


def flask(view: Callable[[], Any] = lambda: "from flask") -> Flask:
    app = Flask("mlflow")
    app.add_url_rule("/fixed", view_func=view, methods=["GET", "POST"])
    app.add_url_rule("/ours", endpoint="ours", view_func=view)
    app.add_url_rule("/runs/<run>", endpoint="variable", view_func=lambda run: run)
    return app


def fastapi(within: Flask) -> FastAPI:
    """An app as MLflow's: middlewares, routes of its own, and last of all Flask."""
    from mlflow.server.fastapi_app import _EfficientWSGIMiddleware

    app = FastAPI()
    app.add_middleware(Marking)
    app.middleware("http")(fastapi_permission_middleware)
    app.add_api_route("/ours", lambda: "from fastapi", response_class=PlainTextResponse)
    app.mount("/", _EfficientWSGIMiddleware(within))
    return app


class Marking:
    """A middleware that nobody knows."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-marked", b"seen"))
            await send(message)

        await self.app(scope, receive, marked)


async def fastapi_permission_middleware(request: Any, call_next: Callable[..., Any]) -> Any:
    answer = await call_next(request)
    answer.headers["x-permitted"] = "seen"
    return answer


async def failed(request: Any, error: Exception) -> PlainTextResponse:
    return PlainTextResponse("failed as ours", 500)


def exchange(app: Any, sent: list[Message], path: str, received: list[Message]) -> None:
    """Make a request of an ASGI app, which puts its answer into `sent`."""
    scope = {
        "type": "http", "path": path, "method": "GET", "http_version": "1.1", "root_path": "",
        "query_string": b"", "headers": [], "asgi": {"version": "3.0"},
    }  # fmt: skip
    waiting = list(received)

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))


def ask(
    path: str = "/fixed",
    within: Flask | None = None,
    received: list[Message] = WHOLE,
    whole: FastAPI | None = None,
    find_validator: Any = lambda path, method: None,
) -> list[Message]:
    """Ask for a path; return the messages of the answer."""
    within, sent = within or flask(), []
    app = direct.before(whole or fastapi(within), within, failed, find_validator)
    exchange(app, sent, path, received)
    return sent


def seen(sent: list[Message]) -> set[str]:
    """Name the middlewares that an answer went through."""
    return {name.decode()[2:] for name, _ in sent[0]["headers"] if name.startswith(b"x-")}


def body(sent: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent)


def test_a_path_that_is_flask_s_alone_passes_by_what_leaves_it_alone_and_by_nothing_else() -> None:
    sent = ask()
    assert (sent[0]["status"], body(sent)) == (200, b"from flask")
    assert seen(sent) == {"marked"}


@pytest.mark.parametrize(("path", "answer"), [("/ours", b"from fastapi"), ("/runs/7", b"7")])
def test_what_fastapi_answers_and_what_varies_goes_the_whole_way(path: str, answer: bytes) -> None:
    sent = ask(path)
    assert body(sent) == answer
    assert seen(sent) == {"marked", "permitted"}


@pytest.mark.parametrize(
    "find_validator", [lambda path, method: method == "PUT", None], ids=["", "of a release without"]
)
def test_so_does_what_fastapi_asks_a_login_for(find_validator: Any) -> None:
    sent = ask(find_validator=find_validator)
    assert body(sent) == b"from flask"
    assert seen(sent) == {"marked", "permitted"}


def test_so_does_everything_where_mlflow_calls_flask_in_another_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(direct, "fastapi_app", SimpleNamespace())
    assert seen(ask()) == {"marked", "permitted"}


def test_an_app_that_has_flask_elsewhere_is_asked_for_everything() -> None:
    within = flask()
    whole = fastapi(within)
    whole.add_api_route("/late", lambda: "late")
    assert "permitted" in seen(ask(within=within, whole=whole))


def test_an_answer_is_sent_in_one_piece() -> None:
    sent = ask(within=flask(lambda: Response(iter(["a", "b", "c"]))))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert body(sent) == b"abc"


def test_a_long_answer_is_passed_on_as_it_comes_and_is_closed() -> None:
    closed = []

    def pieces() -> Iterator[bytes]:
        try:
            for _ in range(5):
                yield b"x" * (direct.HELD // 2 + 1)
        finally:
            closed.append(True)

    first, *rest = ask(within=flask(lambda: Response(pieces())))
    assert first["type"] == "http.response.start"
    assert [message["more_body"] for message in rest] == [True, True, False]
    assert max(len(message["body"]) for message in rest) <= direct.HELD + 2
    assert len(body(rest)) == 5 * (direct.HELD // 2 + 1)
    assert closed == [True]


def test_a_request_of_which_only_a_part_came_is_not_answered() -> None:
    called = []
    part = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    assert ask(within=flask(lambda: called.append(True) or "x"), received=part) == []
    assert called == []


def test_a_body_in_pieces_is_read_whole() -> None:
    from flask import request

    parts = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b"b"},
    ]

    def raw() -> bytes:
        return b"".join(iter(lambda: request.environ["wsgi.input"].read(1), b""))

    assert body(ask(within=flask(raw), received=parts)) == b"ab"


def test_what_flask_does_not_catch_is_answered_as_elsewhere_and_raised_for_the_log() -> None:
    within = flask(lambda: 1 / 0)
    within.config["PROPAGATE_EXCEPTIONS"] = True
    app = direct.before(fastapi(within), within, failed, lambda path, method: None)
    sent: list[Message] = []
    with pytest.raises(ZeroDivisionError):
        exchange(app, sent, "/fixed", WHOLE)
    assert (sent[0]["status"], body(sent)) == (500, b"failed as ours")
