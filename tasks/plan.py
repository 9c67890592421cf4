"""Say what the chain would do, without doing it."""

from __future__ import annotations

import base64
import difflib
import re
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import (
    adopt,
    backup_key,
    bucket,
    configure,
    deploy,
    elsewhere,
    files,
    install,
    owner,
    proofs,
)
from tasks.changes.releases import is_behind, release_of, version_of
from tasks.engine import credentials
from tasks.engine import login as login_engine
from tasks.engine.change import Change
from tasks.engine.console import console
from tasks.engine.facts import is_deployed
from tasks.engine.shell import sh
from tasks.engine.tables import counted
from tasks.engine.task import remote
from tasks.engine.templates import app_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tasks.changes.files import File
    from tasks.engine.server import Server
    from tasks.engine.task import Host


CHANGES = 2  # exit code of --detailed-exitcode, as Terraform's

# A line that says a password or key: its name, and what must not be shown.
SECRET = re.compile(r"(?im)^([+ -]*\w*(?:password|secret|passphrase|token|_key)\w* *=)(.*)$")

STYLES = {"+": "green", "-": "red"}


def show(answers: Mapping[str, Any]) -> None:
    """Print what each host needs: each change, what differs in a file, and how much it is."""
    for host, row in answers.items():
        for change in row["changes"]:
            console.say(f"{change['task']}: {change['what']}", host)
            for line in change.get("diff", ()):
                console.say(f"    {line}", host, STYLES.get(line[:1]))
        console.say(closing(row), host, None if row["changes"] else "green")


def closing(row: Mapping[str, Any]) -> str:
    """Say how much there is to do, and what clients notice of it."""
    tasks = [change["task"] for change in row["changes"]]
    if not tasks:
        return "nothing to change"
    counts = ", ".join(f"{tasks.count(task)} by {task}" for task in dict.fromkeys(tasks))
    number = counted(len(tasks), "change")
    restart = "is restarted: requests wait, none is lost" if row["restart"] else "is not restarted"
    return f"{number}: {counts}. A server that runs {restart}."


def verdict(row: Mapping[str, Any]) -> Exit | None:
    """Return the end with the exit code for changes, where that was asked for."""
    said = "There is something to change, which is what the exit code says"
    return Exit(said, CHANGES) if row.get("exit_code") == CHANGES else None


@remote(
    report=show,
    verdict=verdict,
    help={
        "json": "print JSON instead of lines",
        "detailed_exitcode": "exit with 2 where there is something to change",
    },
)
def plan(c: Host, json: bool = False, detailed_exitcode: bool = False) -> dict[str, Any]:
    """Print what install configure deploy would change.

    Looks at the host, changes nothing, and shows what differs in each file; secrets are blotted
    out. Another MLflow release than the host's is told too, which upgrade alone moves to.

    Example: fab -H ec2 plan --detailed-exitcode
    """
    server = c.server
    changes: list[dict[str, Any]] = [
        {"task": task, "what": what} for task, sentences in steps(server) for what in sentences
    ]
    differences = differing(server)
    for change in changes:
        if lines := differences.get(change["what"].removeprefix("put ")):
            change["diff"] = lines
    changes += [
        {"task": task, "what": server.completed(what)} for task, what in left_to_others(server)
    ]
    row = {"changes": changes, "restart": restarts(server)}
    if detailed_exitcode:
        row["exit_code"] = CHANGES if changes else 0
    return row


def left_to_others(server: Server) -> list[tuple[str, str]]:
    """List what the settings want and the chain does not do, each with the task that does."""
    settings, facts = server.settings, server.facts
    found = []
    if elsewhere.is_changing(settings, facts):
        found = [("deploy --move-artifacts", f"copy, or deploy stops: {each}")
                 for each in elsewhere.left(server)]  # fmt: skip
    if facts.release and not facts.guide and is_behind(settings, facts):
        version = version_of(facts.release)
        move = f"move from MLflow {version} to {settings.version}"
        if version == settings.version:
            move = f"renew what MLflow {version} runs with"
        found.append(("upgrade", f"{move} (what that would do: ./fab upgrade --check)"))
    return found


def restarts(server: Server) -> bool:
    """Tell whether clients would notice a restart."""
    settings, facts = server.settings, server.facts
    return bool(facts.server_env and facts.release) and deploy.restarts(settings, facts)


def differing(server: Server) -> dict[str, list[str]]:
    """Return the difference of each file that the host has otherwise; one exec where there is one.

    Files that it has not are not among them: all in them is new.
    """
    settings, facts = server.settings, server.facts
    if not (is_deployed(settings, facts) and facts.server_env and facts.release):
        return {}
    wanted = deploy.wanted_files(settings, facts)
    others = [file for file in wanted if file.path in facts.files and files.differs(facts, file)]
    if not others:
        return {}
    present = fetched(server, others)
    return {file.path: difference(present.get(file.path, ""), file.text) for file in others}


def fetched(server: Server, wanted: list[File]) -> dict[str, str]:
    """Return the present texts of files by their paths."""
    script = "\n".join(
        f'report {sh(file.path)} "$(as_root base64 -w0 {sh(file.path)})"' for file in wanted
    )
    reports = server.look("plan", [Change("look at the files that differ", script)])
    pairs = (report.partition("\t")[::2] for report in reports)
    return {path: base64.b64decode(text).decode(errors="replace") for path, text in pairs}


def difference(present: str, wanted: str) -> list[str]:
    """Return what differs as lines with + and -, secrets blotted out; a mode alone says so."""
    lines = list(difflib.unified_diff(present.splitlines(), wanted.splitlines(), n=0, lineterm=""))
    told = [line for line in lines[2:] if not line.startswith("@@")]
    return SECRET.sub(r"\1 ********", "\n".join(told)).split("\n") if told else ["(its mode)"]


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
