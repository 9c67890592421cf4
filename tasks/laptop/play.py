"""Run a program of ours as an MLflow client, with nothing of the operator's own clients in it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from tasks.engine import login as login_engine
from tasks.engine import paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tasks.engine.login import Login

# What must not leak from the operator's shell into a client that is to be like any other's.
FOREIGN = ("MLFLOW_", "AWS_", "DATABRICKS_")


def play(
    words: list[str],
    environment: dict[str, str],
    heard: Callable[[dict[str, Any]], None],
    data: str | None = None,
) -> str | None:
    """Run a client as a program of its own; return why it failed, or None.

    It prints one JSON object a line, which `heard` gets; {"failed": ...} says why. `data` is the
    one line on its standard input, which then stays open for as long as this process lives.
    """
    failure = None
    # Its errors go to a file: nobody reads a pipe while its steps are read, and a full one blocks.
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            words, env=environment, cwd="/", text=True,
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
        if data is not None:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it died at once; its errors say why
                process.stdin.write(f"{data}\n")
                process.stdin.flush()
        assert process.stdout is not None
        for line in process.stdout:
            said: dict[str, Any] = json.loads(line)
            heard(said)
            failure = said.get("failed", failure)
        if process.wait() == 0:
            return None
        stderr.seek(0)
        errors = stderr.read()
    return failure or (errors.strip().splitlines() or ["it ended without a word"])[-1]


def client_environment(login: Login, uri: str) -> dict[str, str]:
    """Return an environment with nothing of the operator's but what a client needs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {
        "PYTHONPATH": str(paths.PROJECT),
        "NO_PROXY": "localhost,127.0.0.1",
        "no_proxy": "localhost,127.0.0.1",
        "MLFLOW_TRACKING_URI": uri,
        login_engine.USERNAME: login.username,
        login_engine.PASSWORD: login.password,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
