"""What deploy and doctor ask of a server that runs, beside one that plays it."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from host_side import program, seen_in
from store_side import Quiet
from werkzeug.serving import make_server

# -- deep_check.py -----------------------------------------------------------------------------


NOBODY = "Basic Om5vYm9keQ=="  # who has no name, and the password nobody


class Server:
    """Plays the deployed server: answers by path, with and without a login."""

    def __init__(self) -> None:
        self.health, self.without, self.search, self.artifacts = 200, 401, 200, 200
        self.logins: list[str] = []
        self._server = make_server("127.0.0.1", 0, self, request_handler=Quiet)
        self.port = str(self._server.server_port)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        login = environ.get("HTTP_AUTHORIZATION")
        path = environ["PATH_INFO"]
        if path == "/health":
            status = self.health
        elif login in (None, NOBODY):
            status = self.without
        else:
            self.logins.append(login)
            status = self.artifacts if "artifacts" in path else self.search
        start_response(f"{status} x", [("Content-Length", "0")])
        return [b""]

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def login() -> dict[str, str]:
    return {"username": "admin", "password": "pässwörd: 100%"}


def test_a_usable_server_passes_with_any_password(server, login, capsys):
    import base64

    assert program(capsys, "deep_check.py", port=server.port, login=login) == (0, "")
    assert len(server.logins) == 2
    decoded = base64.b64decode(server.logins[0].removeprefix("Basic ")).decode()
    assert decoded == "admin:pässwörd: 100%"


def test_without_a_login_only_what_needs_none_is_asked(server, capsys):
    assert program(capsys, "deep_check.py", port=server.port, login=None) == (0, "")
    assert server.logins == []


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"health": 503}, "The server's /health says 503"),
        ({"without": 200}, "The server answers 200 without a login, where 401 is right"),
        ({"search": 401}, "The server refuses the password of admin"),
        ({"search": 403}, "The server refuses the Host header"),
        ({"search": 500}, "The server cannot search its database (500)"),
        ({"artifacts": 500}, "The server cannot list the bucket (500)"),
    ],
)
def test_each_failure_is_told_from_the_others(server, login, capsys, values, wanted):
    for name, value in values.items():
        setattr(server, name, value)
    code, out = program(capsys, "deep_check.py", port=server.port, login=login)
    assert code == 1
    assert out.startswith(f"@fail {wanted}")
    assert out.count("\n") == 1
    assert "pässwörd" not in out


def test_a_server_that_does_not_answer_is_one_line(capsys):
    code, out = program(capsys, "deep_check.py", port=9, login=None)
    assert code == 1
    assert out.startswith("@fail The server does not answer on port 9")


def test_a_proxy_of_the_host_s_does_not_come_between(server, login, capsys, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert program(capsys, "deep_check.py", port=server.port, login=login) == (0, "")


# -- look_at_requests.py -----------------------------------------------------------------------


LOGINS = [{"source": "copy", "username": "admin", "password": "x"}]


def test_logins_name_and_health_are_tried_once_each(server, capsys):
    code, out = program(
        capsys, "look_at_requests.py", "name=mlflow.example.org",
        port=int(server.port), logins=LOGINS, patience=3,
    )  # fmt: skip
    assert code == 0
    assert seen_in(out) == {
        "health": 200, "stranger": 401, "name": 401, "login": {"source": "copy", "status": 200},
    }  # fmt: skip


def test_a_server_that_nobody_reaches_is_not_looked_at(capsys):
    code, out = program(capsys, "look_at_requests.py", port=9, logins=LOGINS, patience=3)
    assert code == 1
    assert re.fullmatch(r"the server did not answer \(.*Connection refused.*\)\n", out)


def test_how_long_a_server_was_silent_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, out = program(
            capsys, "look_at_requests.py", port=silent.getsockname()[1], logins=[], patience=0.2
        )
    assert code == 1
    assert out == "@report silent\t0.2\nthe server did not answer within 0.2 s\n"
