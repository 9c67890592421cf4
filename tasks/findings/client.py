"""What can be wrong on the operator's machine: tunnel, variables, logins."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.case import Case, Finding

SOURCES = {
    "variables": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of this shell",
    "file": "~/.mlflow/credentials of this machine",
    "copy": "the login that is kept here for this server",
}


def client(case: Case) -> Iterator[Finding]:
    here, logins = case.here, case.symptoms.logins
    yield from _tunnel(case)
    export = f'eval "$({case.fab("client", "--export")})"'
    if logins.get("copy") == 401:
        yield case.finding(
            "login-refused",
            f"The server refuses {SOURCES['copy']}.",
            "a request with it is answered 401",
            Remedy(
                "If somebody changed the password, set the new one in MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD and type ./fab configure; if it is lost:",
                type=(case.fab("users.reset-admin", "--yes"),),
            ),
        )
    if not here.shell:
        return
    if here.half:
        yield case.finding(
            "client-variables-half",
            "Only one of MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD is set in this "
            "shell; MLflow clients need both.",
            "this shell's variables",
            Remedy(type=(export,)),
        )
    if logins.get("variables") == 401:
        yield case.finding(
            "client-variables-wrong",
            f"The server refuses {SOURCES['variables']}.",
            "a request with them is answered 401",
            Remedy(type=(export,)),
        )
    elif logins.get("file") == 401 and "variables" not in here.sources:
        yield case.finding(
            "client-file-wrong",
            f"The server refuses {SOURCES['file']}, which MLflow clients read by themselves.",
            "a request with it is answered 401"
            + (", and it is kept here as another server's" if here.file_is_anothers else ""),
            Remedy(
                "It may be another server's. To make it this one's:",
                type=(case.fab("client", "--use"),),
            ),
            # Clients of one of several servers read that one's login there, as is right.
            severity="note" if here.file_is_anothers else "problem",
        )
    if here.uri is None or not here.sources & {"variables", "file"}:
        missing = "MLFLOW_TRACKING_URI" if here.uri is None else "a login"
        yield case.finding(
            "client-variables-unset",
            f"MLflow clients started in this shell know no server: {missing} is not set.",
            "this shell's variables, and ~/.mlflow/credentials",
            Remedy(type=(export,)),
            severity="note",
        )
    elif _local_port(here.uri) not in (None, here.tunnel_port or case.settings.local_port):
        yield case.finding(
            "client-uri",
            f"MLFLOW_TRACKING_URI is {here.uri}, and this server's tunnel is on port "
            f"{here.tunnel_port or case.settings.local_port}.",
            "this shell's variables",
            Remedy(type=(export,)),
            severity="note",
        )


def _tunnel(case: Case) -> Iterator[Finding]:
    here = case.here
    reopen = (case.fab("tunnel.close"), case.fab("tunnel", "--background"))
    if here.tunnel_port and not here.tunnel_answers and case.facts.listeners:
        yield case.finding(
            "tunnel-dead",
            f"The tunnel on port {here.tunnel_port} of this machine is {here.tunnel}, but dead: "
            "the host listens, and nobody answers through it.",
            f"a request to localhost:{here.tunnel_port}",
            Remedy(type=reopen),
        )
    elif not here.tunnel_port and _local_port(here.uri) == case.settings.local_port:
        yield case.finding(
            "tunnel-closed",
            "Clients in this shell look for the tunnel, and none is open.",
            f"MLFLOW_TRACKING_URI is {here.uri}",
            Remedy(type=(case.fab("tunnel", "--background"),)),
            severity="note",
        )


def _local_port(uri: str | None) -> int | None:
    parts = urlsplit(uri or "")
    return parts.port if parts.hostname in ("localhost", "127.0.0.1") else None
