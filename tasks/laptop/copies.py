"""Copy a model version to another server, by way of this machine, with a login for each."""

from __future__ import annotations

import hashlib
import json as serialised
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import credentials, paths
from tasks.engine import login as login_engine
from tasks.engine.configuration import configured
from tasks.engine.console import console
from tasks.engine.hosts import server_on
from tasks.engine.ssh import hash_of
from tasks.laptop.play import client_environment, play
from tasks.laptop.transfer import AGAIN
from tasks.laptop.tunnels import forwarded, free_port, url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from tasks.engine.login import Login
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings

ENVIRONMENT = "FABRIC_MLFLOW_ENVIRONMENT"


def targets(source: Server, config: Any, to: str) -> list[Server]:
    """Return the servers of an environment: on its own hosts, else on the source's host."""
    settings, hosts = there(configured(config), os.environ, to)
    servers = [server_on(host, settings, source.client, config) for host in hosts or [source.name]]
    for server in servers:
        if (server.identity, server.settings.unit) == (source.identity, source.settings.unit):
            raise Exit(
                f"{label(server)} is where the version is already. Name another environment "
                "with --to, or the source with `use NAME` before the task."
            )
    return servers


def there(
    file: Mapping[str, Any], variables: Mapping[str, str], to: str
) -> tuple[Settings, list[str]]:
    """Settle another environment, with the hosts that it names itself.

    -H, FABRIC_HOSTS and FABRIC_MLFLOW_ENVIRONMENT say where the version comes from.
    """
    from tasks.engine.settings import settle

    ours = {"FABRIC_HOSTS", ENVIRONMENT}
    rest = {key: value for key, value in variables.items() if key not in ours}
    section = dict(file.get("mlflow") or {})
    if to == "default":  # no environment may be named so
        section.pop("environment", None)
        return settle({**file, "mlflow": section}, rest)
    return settle({"mlflow": section}, rest, to)


def origin_of(source: Server, model: str, version: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return the tags that tell where a copy came from.

    `copied_from.id` is the same for whoever copies this version to this name: an alias of the
    host, which every operator chooses, is not a part of it.
    """
    place = f"{model}/{version['version']}"
    parts = (place, version["run"], version["created"], version["source"], name)
    return {
        "copied_from.id": hashlib.sha256(repr(parts).encode()).hexdigest()[:16],
        "copied_from.server": label(source),
        "copied_from.version": place,
        "copied_from.run": version["run"] or "none",
    }


def login_there(target: Server) -> Login:
    """Return the login for the other server: the kept one, for the variables hold the source's."""
    login = credentials.kept(target) or credentials.known(target)
    if login is None:
        raise Exit(f"No login for {label(target)} is known here. {keep_it(target)}")
    return login


def keep_it(target: Server) -> str:
    variables = f"{login_engine.USERNAME}=… {login_engine.PASSWORD}=…"
    return f"Have it kept: {variables} {target.fab('configure')}"


@contextmanager
def named(server: Server) -> Iterator[None]:
    """Say of what goes wrong that it is the other server."""
    try:
        yield
    except Exit as error:
        message = error.message or ""
        if "refuses the password" in message:
            message = f"the login that is kept here is refused. {keep_it(server)}"
        raise Exit(f"{label(server)}: {server.completed(message)}") from error


def label(server: Server) -> str:
    """Name an environment and its host."""
    return f"{server.settings.label} ({server.name})"


def carry(
    source: Server,
    target: Server,
    logins: tuple[Login, Login],
    model: str,
    version: str,
    origin: Mapping[str, str],
) -> dict[str, Any]:
    """Bring the files over by a program of its own; return where they are and their digest."""
    done: dict[str, Any] = {}

    def heard(said: dict[str, Any]) -> None:
        if "step" in said:
            source.say(f"  {said['step']}")
        done.update(said.get("done", {}))

    # Copies to two servers may go on side by side.
    folder = f"{origin['copied_from.id']}-{hash_of(repr((target.identity, target.settings.port)))}"
    what = f"copy version {version} of {model} to {label(target)}"
    ports = free_port(), free_port()
    with (
        forwarded(source, ports[0]) as one,
        forwarded(target, ports[1]) as other,
        console.waiting(what, source.name),
    ):
        errand = {
            **{
                side: {"uri": url(port), "username": login.username, "password": login.password}
                for side, port, login in zip(("source", "target"), ports, logins, strict=True)
            },
            "model": model,
            "version": version,
            "run_name": f"{model}/{version} from {label(source)}",
            "tags": dict(origin),
            "folder": str(paths.cache() / "copies" / folder),
        }
        environment = client_environment(logins[0], url(ports[0])) | THROUGH_THE_SERVER
        words = [sys.executable, "-m", "tasks.laptop.transfer"]
        failure = play(words, environment, heard, serialised.dumps(errand))
        for server, tunnel in ((source, one), (target, other)):
            if failure and tunnel.poll() is not None:
                failure = f"the tunnel to {label(server)} broke. {AGAIN}"
    if failure:
        raise Exit(f"Nothing is registered on {label(target)}: {failure}")
    return done


# Whatever `artifact_access` says: this machine need not reach S3.
THROUGH_THE_SERVER = {
    # The server answers once a file is wholly in S3, and nginx waits as long for it.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "600",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
}
