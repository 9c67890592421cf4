"""Tell an MLflow client on this machine how to reach the server."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.presence import required_login
from tasks.changes.site import balancer_addresses
from tasks.engine import credentials, paths
from tasks.engine import login as login_engine
from tasks.engine.console import console
from tasks.engine.task import remote
from tasks.laptop import tunnels

if TYPE_CHECKING:
    from tasks.engine.server import Server
    from tasks.engine.task import Host

SNIPPET = """\
import mlflow

mlflow.set_tracking_uri("{uri}")
mlflow.set_experiment("my-experiment")
with mlflow.start_run():
    mlflow.log_param("param", "value")
    mlflow.log_metric("metric", 1.0)"""


@remote(
    help={
        "export": 'print only export lines, password included: eval "$(fab client --export)"',
        "use": "make this the login that MLflow clients read by themselves",
    }
)
def client(c: Host, export: bool = False, use: bool = False) -> None:
    """Print what an MLflow client needs to connect.

    The password is printed only by --export, which is meant for eval.

    Example: eval "$(fab -H ec2 client --export)"
    """
    server = c.server
    login = required_login(server)
    uri = address(server)
    if export:
        for name, value in (
            ("MLFLOW_TRACKING_URI", uri),
            (login_engine.USERNAME, login.username),
            (login_engine.PASSWORD, login.password),
        ):
            console.answer(f"export {name}={shlex.quote(value)}")
        return
    if use:
        if server.rehearsal:
            raise Exit("A rehearsal host's login is not written to ~/.mlflow/credentials. "
                       'Type: eval "$(./fab client --export)"')  # fmt: skip
        file = credentials.use(login)
        server.say(
            f"✓ MLflow clients on this machine now use {login.username} ({paths.shown(file)})",
            "green",
        )
        return
    first: tuple[str, ...] = ("# 1. Open the tunnel:", "./fab tunnel --background")
    if server.settings.balancers and not tunnels.opened(server):
        first = ("# 1. No tunnel is needed: a balancer stands in front.",)
    elif uri.startswith("https:"):
        first = ("# 1. No tunnel is needed; only a certificate of a private authority, so:",
                 "# export MLFLOW_TRACKING_SERVER_CERT_PATH=/path/to/its-root.pem")  # fmt: skip
    server.say(
        "\n".join(
            (
                *first,
                "",
                "# 2. In the shell of the client (the login is kept in "
                f"{paths.shown(credentials.copy_of(server))}, the backup key beside it):",
                'eval "$(./fab client --export)"',
                "# which sets:",
                f"export MLFLOW_TRACKING_URI={uri}",
                f"export {login_engine.USERNAME}={shlex.quote(login.username)}",
                f"export {login_engine.PASSWORD}=...",
                "# Beside MLflow, this has a folder's files sent eight at a time:",
                f"pip install {shlex.quote(str(paths.PROJECT / 'files/client'))}",
                "",
                "# 3. In Python:",
                SNIPPET.format(uri=uri),
            )
        )
    )


def address(server: Server) -> str:
    """Return where a client on this machine finds the server.

    The tunnel that is open, else the public name or the balancer, else the tunnel that would be
    opened.
    """
    there, name = tunnels.opened(server), server.settings.public_name
    if there is None and name:
        return f"https://{name.lower()}"
    if there is None and (balancers := balancer_addresses(server.settings)):
        return f"http://{balancers[0]}:{server.settings.port}"
    return tunnels.url(there.local_port if there else server.settings.local_port)
