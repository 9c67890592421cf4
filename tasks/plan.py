"""Say what the chain would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes import (
    adopt,
    backup_key,
    bucket,
    configure,
    deploy,
    files,
    install,
    owner,
    proofs,
)
from tasks.changes.releases import release_of
from tasks.engine import credentials
from tasks.engine import login as login_engine
from tasks.engine.console import console
from tasks.engine.task import remote
from tasks.engine.templates import app_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tasks.engine.change import Change
    from tasks.engine.server import Server
    from tasks.engine.task import Host


def show(answers: Mapping[str, Any]) -> None:
    """Print what each host needs."""
    for host, row in answers.items():
        if not row["changes"]:
            console.say("nothing to change", host, "green")
        for change in row["changes"]:
            console.say(f"{change['task']}: {change['what']}", host)


@remote(report=show, help={"json": "print JSON instead of lines"})
def plan(c: Host, json: bool = False) -> dict[str, Any]:
    """Print what install configure deploy would change.

    Looks at the host once and changes nothing.

    Example: fab -H ec2 plan
    """
    changes = [
        {"task": task, "what": what} for task, sentences in steps(c.server) for what in sentences
    ]
    return {"changes": changes}


def steps(server: Server) -> list[tuple[str, list[str]]]:
    """List, for each task of the chain, what it would change."""
    settings, facts = server.settings, server.facts
    settings.require_bucket()
    keys = credentials.supplied_keys(server.variables)
    # Any login stands for the one that configure would ask for or make.
    login = credentials.known(server) or login_engine.Login(settings.username, "")
    halves = (bucket.aws_changes, configure.auth_changes)
    configuring = [change for half in halves for change in half(settings, facts, keys, login)]
    configuring += bucket.backup_changes(settings, facts, credentials.backup_keys(server))
    password = credentials.database_password(server)
    configuring += configure.store_changes(settings, facts, password)
    configuring += configure.share_changes(settings, facts)
    return [
        ("install", _sentences(install.changes(settings, facts))),
        ("configure", _sentences(configuring)),
        ("deploy", [*backup_key.missing(facts), *_deploying(server, login)]),
    ]


def _deploying(server: Server, login: login_engine.Login) -> list[str]:
    settings, facts = server.settings, server.facts
    if facts.guide and not (release_of(settings) in facts.complete and facts.server_env):
        return ["take over the guide's server, after asking"]
    if facts.guide:
        return _sentences(adopt.changes(settings, facts, login))
    if facts.complete and facts.server_env:
        facts = configure.afterwards(settings, facts)
        return _sentences(deploy.changes(settings, facts, login))
    # What comes before is not there yet, so every file is new.
    deploy.refuse_taken_port(settings, facts)
    names = [app_folder(settings.unit), *(file.path for file in files.files(settings, facts))]
    mark = owner.marking(settings).what
    return [mark, *(f"put {name}" for name in names), "start the server", proofs.CHECK]


def _sentences(changes: list[Change]) -> list[str]:
    return [sentence for change in changes for sentence in change.sentences]
