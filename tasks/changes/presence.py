"""Whether there is a server of ours on a host, and what to type where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import credentials
from tasks.engine.facts import is_deployed, refuse_without_sudo

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.login import Login
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings

ABSENT = "There is no server on {host} yet. Type: ./fab install configure deploy"

GUIDES = (
    "The server on {host} is one that the guide made, and not taken over yet. "
    "Type: ./fab install configure deploy"
)


UNREADABLE = "The server's database cannot be read: {error}. See what to do: ./fab doctor"


def refuse_nothing(server: Server) -> Facts:
    """Return the facts; raises Exit where there is no server to look at."""
    facts = server.facts
    if not (is_deployed(server.settings, facts) or facts.server_env or facts.release):
        raise Exit(absent(server))
    return facts


def refuse_absent(server: Server) -> None:
    """Raise Exit where no server of ours is deployed, or sudo asks for a password."""
    if not is_deployed(server.settings, server.facts):
        raise Exit(absent(server))
    refuse_without_sudo(server.facts)


def required_login(server: Server) -> Login:
    """Return the login for this server; raises Exit where none is known, or there is no server."""
    if credentials.known(server) is None and not is_deployed(server.settings, server.facts):
        raise Exit(absent(server))
    return credentials.required(server)


def absent(server: Server) -> str:
    """Say that there is no server of ours, and what makes one."""
    if server.facts.schema_error:
        return UNREADABLE.format(host=server.name, error=server.facts.schema_error)
    return (GUIDES if server.facts.guide else ABSENT).format(host=server.name)


def is_up(settings: Settings, facts: Facts) -> bool:
    """Tell whether everything that serves a request is active."""
    names = (f"{settings.unit}.socket", f"{settings.unit}.service", "nginx.service")
    return all(facts.unit(name).active == "active" for name in names)


def refuse_other_root(settings: Settings, facts: Facts) -> None:
    """Raise Exit where the server runs from another folder: an empty one would be made."""
    runs = facts.unit(f"{settings.unit}.service").active == "active"
    if runs and is_deployed(settings, facts) and not (facts.server_env or facts.guide):
        raise Exit(
            f"{settings.unit} runs on the host, and `root:` names {facts.root}, where no server "
            "is: an empty one would be made. Put the former folder back into fabric.yaml "
            f"(it is what systemctl show -p WorkingDirectory {settings.unit} says), or move the "
            "server by a backup: docs/settings.md"
        )
