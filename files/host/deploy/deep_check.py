"""Prove that the server is usable, not only up: login, database and bucket, through nginx.

Runs on the host. Where the operator has no login, only what needs none is asked. /health alone
proves neither the database nor the bucket.
"""

import dataclasses

import talk
from tracking import NOBODY, Tracking

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


@dataclasses.dataclass(frozen=True)
class Request:
    port: int
    login: dict | None  # {"username", "password"}


def ask(port, path, login=None):
    """Return the status of one GET."""
    try:
        return Tracking(port, login).ask("GET", path)[0]
    except OSError as error:
        talk.fail(f"The server does not answer on port {port}: {error}. Type: ./fab logs")


def prove_up(port):
    """End with one line unless the server answers, and lets nobody in without a login."""
    status = ask(port, "/health")
    if status != 200:
        talk.fail(f"The server's /health says {status}. Type: ./fab logs")
    status = ask(port, SEARCH, NOBODY)
    if status != 401:
        talk.fail(
            f"The server answers {status} without a login, where 401 is right. Type: ./fab logs"
        )


def prove_usable(port, login):
    """End with one line unless the login is taken, and database and bucket are reached."""
    status = ask(port, SEARCH, login)
    if status == 401:
        talk.fail(
            f"The server refuses the password of {login['username']}. Type ./fab client to see "
            "which login is kept here, and give the right one in MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD. A lost one: ./fab users.reset-admin"
        )
    if status == 403:
        talk.fail(f"The server refuses the Host header 127.0.0.1:{port}. Type ./fab deploy again.")
    if status != 200:
        talk.fail(f"The server cannot search its database ({status}). Type: ./fab logs")
    status = ask(port, "/api/2.0/mlflow-artifacts/artifacts?path=", login)
    if status != 200:
        talk.fail(
            f"The server cannot list the bucket ({status}). Type ./fab configure, which names why."
        )


request = talk.request(Request)
prove_up(request.port)
if request.login:
    prove_usable(request.port, request.login)
