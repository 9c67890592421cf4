"""Prove the whole from the client's side, as the guide's test script does, and clean up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks import credentials, paths
from tasks.commands import sh
from tasks.configure import environment, proof, proving
from tasks.console import console
from tasks.kinds import Host, remote
from tasks.server import Change, Server
from tasks.service import ABSENT, is_up, state
from tasks.templates import read
from tasks.tunnel import forwarded, free_port, url

if TYPE_CHECKING:
    from tasks.credentials import Login

# What must not leak from the operator's shell into a client that is to be like any other's.
FOREIGN = ("MLFLOW_", "AWS_", "DATABRICKS_")


@remote(then="client")
def verify(c: Host) -> None:
    """Train, log and read back a model through the server.

    Opens a tunnel of its own, uses the server as an MLflow client does, checks on the host that
    the objects are in the bucket, and removes what it made.

    Example: fab -H ec2 verify
    """
    server = c.server
    login = credentials.required(server)
    if not is_up(server.settings, server.facts):
        if not server.facts.complete:
            raise Exit(ABSENT.format(host=server.name))
        raise Exit(f"{server.name} is {state(server.settings, server.facts)}.")
    made: dict[str, str] = {}
    failure = None
    port = free_port()
    with forwarded(server, port), console.waiting(f"verify on {server.name}", server.name):
        failure = _trial(server, login, url(port), made)
    # Whatever others did meanwhile, what was made has to go.
    steps = [proof_again(server), _cleaning(server, made)]
    reports = server.apply("verify from the host", steps, decided=False)
    counts = json.loads(reports[-1]) if reports else {}
    if failure:
        raise Exit(f"{server.name} fails the trial: {failure}. See its side: ./fab logs")
    if not counts.get("found"):
        raise Exit(
            f"No object under s3://{server.settings.bucket}/{server.settings.artifact_prefix}/"
            f"{made.get('experiment')}/: artifacts went elsewhere. Type deploy again."
        )
    server.say(f"  {counts['found']} objects were in the bucket, where they belong")
    if counts["left"]:
        server.warn(
            f"s3:DeleteObject is denied: {counts['left']} objects stay under {counts['place']}"
        )
    server.say("✓ verified: login, tracking, model, registry and artifacts work", "green")


def _trial(server: Server, login: Login, uri: str, made: dict[str, str]) -> str | None:
    """Run the trial as a program of its own; return why it failed, or None."""
    words = [sys.executable, "-m", "tasks.trial"]
    if server.settings.artifact_access == "proxied":
        words.append("--proxied")

    def heard(said: dict[str, Any]) -> None:
        if "step" in said:
            server.say(f"  {said['step']}")
        made.update(said.get("made", {}))

    return play(words, client_environment(login, uri), heard)


def play(
    words: list[str],
    environment: dict[str, str],
    heard: Callable[[dict[str, Any]], None],
    told: str | None = None,
) -> str | None:
    """Run a client as a program of its own; return why it failed, or None.

    It prints one JSON object a line, which `heard` gets; {"failed": ...} says why. `told` is the
    one line on its standard input, which then stays open for as long as this process lives.
    """
    failure = None
    # Its errors go to a file: nobody reads a pipe while its steps are read, and a full one blocks.
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            words, env=environment, cwd="/", text=True,
            stdin=subprocess.DEVNULL if told is None else subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
        if told is not None:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it died at once; its errors say why
                process.stdin.write(f"{told}\n")
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
        credentials.USERNAME: login.username,
        credentials.PASSWORD: login.password,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }


def proof_again(server: Server) -> Change:
    """Prove the bucket whatever was proved before: permissions change behind our back."""
    keys = server.facts.credentials
    return proving(server.settings, proof(server.settings, keys))


def _cleaning(server: Server, made: dict[str, str]) -> Change:
    settings = server.settings
    arguments = sh(
        settings.require_bucket(), settings.artifact_prefix, settings.endpoint_url or "",
        made.get("experiment", ""), made.get("model", ""),
    )  # fmt: skip
    script = "\n".join(
        (
            environment(settings),
            'set -a; . "$root/server.env"; set +a',
            f'"$root/venv/bin/python" "$here/clean_trial.py" {arguments} "$root"',
        )
    )
    files = {name: read(f"host/{name}") for name in ("clean_trial.py", "grants.py")}
    return Change("look for the objects in the bucket, and remove what was made", script, files)
