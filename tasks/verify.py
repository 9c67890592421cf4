"""Prove the whole from the client's side, as the guide's test script does, and clean up."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import owner
from tasks.changes.presence import absent, is_up, required_login
from tasks.changes.service import state
from tasks.changes.verify import _cleaning, proof_again
from tasks.engine.console import console
from tasks.engine.facts import is_deployed
from tasks.engine.login import PASSWORD, USERNAME
from tasks.engine.tables import counted
from tasks.engine.task import remote
from tasks.laptop.play import client_environment, play
from tasks.laptop.tunnels import forwarded, free_port, is_refused, url

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.login import Login
    from tasks.engine.server import Server
    from tasks.engine.task import Host


@remote(then="client")
def verify(c: Host) -> None:
    """Train, log and read back a model through the server.

    Opens a tunnel of its own, uses the server as an MLflow client does, checks on the host that
    the objects are in the bucket, and removes what it made.

    Example: fab -H ec2 verify
    """
    server = c.server
    login = required_login(server)
    if not is_up(server.settings, server.facts):
        if not is_deployed(server.settings, server.facts):
            raise Exit(absent(server))
        raise Exit(f"{server.name} is {state(server.settings, server.facts)}.")
    made: dict[str, str] = {}
    failure = None
    port = free_port()
    with forwarded(server, port), console.waiting(f"verify on {server.name}", server.name):
        if is_refused(port, login):
            raise Exit(
                f"{server.name} refuses the password of {login.username}. ./fab client says where "
                f"it is kept; give the right one in {USERNAME} and {PASSWORD}. A lost one: ./fab "
                "users.reset-admin"
            )
        failure = _trial(server, login, url(port), made)
    # Whatever others did meanwhile, what was made has to go.
    # First, for a bucket that fails its proof is no reason to leave it there.
    steps = [_cleaning(server, made), owner.watching(server.settings), proof_again(server)]
    reports = server.apply("verify from the host", steps, decided=False)
    counts = json.loads(reports[0]) if reports else {}
    if failure:
        raise Exit(f"{server.name} fails the trial: {failure}. See its side: ./fab logs")
    if not counts.get("found"):
        raise Exit(
            f"No object under s3://{server.settings.bucket}/{server.settings.artifact_prefix}/"
            f"{made.get('experiment')}/: artifacts went elsewhere. Type ./fab deploy again."
        )
    server.say(f"  {counted(counts['found'], 'object')} in the bucket, where they belong")
    if counts["left"]:
        server.warn(
            f"s3:DeleteObject is denied: {counted(counts['left'], 'object')} left under "
            f"{counts['place']}"
        )
    server.say("✓ verified: login, tracking, model, registry and artifacts work", "green")


def _trial(server: Server, login: Login, uri: str, made: dict[str, str]) -> str | None:
    """Run the trial as a program of its own; return why it failed, or None."""
    words = [sys.executable, "-m", "tasks.laptop.trial"]
    if server.settings.artifact_access == "proxied":
        words.append("--proxied")

    def heard(said: dict[str, Any]) -> None:
        if "step" in said:
            server.say(f"  {said['step']}")
        made.update(said.get("made", {}))

    return play(words, client_environment(login, uri), heard)
