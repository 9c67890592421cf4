"""The model registry: what is there, which version serves, and copies to other environments."""

from __future__ import annotations

import hashlib
import json as serialised
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks import credentials, paths
from tasks.commands import sh
from tasks.console import console
from tasks.deploy import stage_login
from tasks.executor import configured, server_on
from tasks.kinds import Host, remote
from tasks.server import Change
from tasks.service import ABSENT
from tasks.ssh import hash_of
from tasks.templates import read
from tasks.transfer import AGAIN
from tasks.tunnel import forwarded, free_port, url
from tasks.verify import client_environment, play

if TYPE_CHECKING:
    from tasks.credentials import Login
    from tasks.server import Server
    from tasks.settings import Settings

# What the guide's stages are called now. A version has one stage: of these two aliases it gets
# the stage's own and loses the other. Archived, and no stage at all, have none.
STAGES = {"Production": "champion", "Staging": "challenger", "Archived": None, "None": None}
CHAMPION, CHALLENGER = "champion", "challenger"
ENVIRONMENT = "FABRIC_MLFLOW_ENVIRONMENT"


# -- looking -----------------------------------------------------------------------------------


def show_models(answers: Mapping[str, Any]) -> None:
    """Print one table for all hosts."""
    from rich.table import Table
    from rich.text import Text

    table = Table("host", "model", "latest", "aliases", "updated (UTC)", box=None)
    for host, models in answers.items():
        for row in models:
            aliases = [f"{alias} → {version}" for alias, version in sorted(row["aliases"].items())]
            table.add_row(
                host, Text(row["model"]), row["latest_version"] or "-", ", ".join(aliases),
                moment(row["updated"]),
            )  # fmt: skip
        if not models:
            table.add_row(host, "none yet")
    console.show(table)


@remote(name="list", report=show_models, help={"json": "print JSON instead of a table"})
def list_(c: Host, json: bool = False) -> list[dict[str, Any]]:
    """List the registered models.

    With the latest version of each, and what its aliases point at. One table for all hosts.

    Example: fab -H ec2 registry.list
    """
    return list(ask(c.server, "list"))


def show_versions(answers: Mapping[str, Any]) -> None:
    """Print each host's model, then its versions, the newest first."""
    for host, model in answers.items():
        console.say(model["model"], host, "bold")
        for line in described(model):
            console.say(f"  {line}", host)
        for row in model["versions"]:
            marks = row["aliases"] + ([f"old stage {row['stage']}"] if row["stage"] else [])
            said = [f"version {row['version']}", moment(row["created"]), ", ".join(marks)]
            console.say("  " + "  ".join(said).rstrip(), host, "bold")
            about = [f"run: {row['run'] or 'none'}", f"source: {row['source']}", *described(row)]
            for line in about:
                console.say(f"    {line}", host)
        if not model["versions"]:
            console.say("  no versions yet", host)


def described(entry: Mapping[str, Any]) -> list[str]:
    """List the lines of a description, and the tags."""
    return [
        *entry["description"].splitlines(),
        *(f"{key}: {text}" for key, text in sorted(entry["tags"].items())),
    ]


@remote(
    report=show_versions,
    help={"model": "name of the registered model", "json": "print JSON instead of a table"},
)
def show(c: Host, model: str, json: bool = False) -> dict[str, Any]:
    """Show the versions of a registered model.

    Each with its aliases, run, tags and where its files come from.

    Example: fab -H ec2 registry.show iris
    """
    return dict(ask(c.server, "show", model))


def moment(text: str) -> str:
    """Shorten 2026-11-24T11:19:35Z to what a table has room for."""
    return text[:16].replace("T", " ")


def ask(server: Server, *words: str, login: Login | None = None) -> Any:
    """Ask the registry something, in one exec; the host's side says what is wrong."""
    login = login or credentials.required(server)
    step = calling(server.settings, login, server.name, *words)
    return serialised.loads(server.look(f"registry.{words[0]}", [step])[-1])


def calling(settings: Settings, login: Login, host: str, *words: str, **files: Any) -> Change:
    """Build the step that runs files/host/registry.py on the host, with more JSON files beside."""
    staged: dict[str, str | bytes] = {
        name: read(f"host/{name}") for name in ("registry.py", "tracking.py")
    }
    stage_login(staged, login)
    staged |= {f"{name}.json": serialised.dumps(value) for name, value in files.items()}
    script = "\n".join(
        (
            f'[ -x "$root/venv/bin/python" ] || fail {sh(ABSENT.format(host=host))}',
            f'"$root/venv/bin/python" "$here/registry.py" {sh(settings.port, *words)}',
        )
    )
    return Change("ask the registry", script, staged, announce=False)


# -- aliases -----------------------------------------------------------------------------------


@remote(
    help={
        "model": "name of the registered model",
        "version": "number of the version that gets the alias",
        "alias": "alias that shall point at it (default: champion)",
        "stage": "one of MLflow's old stages, as an alias: Production, Staging, Archived or None",
    }
)
def promote(
    c: Host, model: str, version: str, alias: str | None = None, stage: str | None = None
) -> None:
    """Point an alias at a version of a model.

    Clients that load models:/MODEL@champion get that version from then on. MLflow's stages are
    deprecated: with --stage, Production is the alias champion, Staging is challenger, and Archived
    or None take both away from the version.

    Example: fab -H ec2 registry.promote iris 2 --alias champion
    """
    wanted, unwanted = aliases(alias, stage)
    if stage:
        c.server.say(f"stages are deprecated in MLflow; {in_aliases(wanted, unwanted)}")
    words = ("point", model, version, ",".join(wanted), ",".join(unwanted))
    done = change(c.server, "registry.promote", *words)
    if not done["changed"]:
        c.server.say(f"registry.promote: nothing to change, {as_it_is(model, done, wanted)}")
        return
    report(c.server, model, done["changed"])


@remote(
    help={
        "model": "name of the registered model",
        "alias": "alias that is taken away (default: champion)",
    }
)
def demote(c: Host, model: str, alias: str = CHAMPION) -> None:
    """Take an alias away from a model.

    The version that had it stays; clients that load models:/MODEL@champion fail from then on.

    Example: fab -H ec2 registry.demote iris --alias challenger
    """
    done = change(c.server, "registry.demote", "demote", model, alias)
    if not done["changed"]:
        c.server.say(f"registry.demote: nothing to change, {model} has no alias {alias}")
        return
    report(c.server, model, done["changed"])


def aliases(alias: str | None, stage: str | None) -> tuple[list[str], list[str]]:
    """Return the aliases that a version shall have, and those that it shall not."""
    from tasks.settings import nearest

    if alias is not None and stage is not None:
        raise Exit("--alias and --stage both say what the version becomes. Give one of them.")
    if alias is not None and (not alias or "," in alias):
        raise Exit(f"{alias!r} is no alias. Give letters, digits, _ and -, such as champion.")
    if stage is None:
        return [alias or CHAMPION], []
    known = {name.lower(): name for name in STAGES}
    if stage.lower() not in known:
        near = nearest(stage.capitalize(), STAGES)
        raise Exit(f"Unknown stage {stage!r}{near}. Name one of {', '.join(STAGES)}.")
    own = STAGES[known[stage.lower()]]
    return [own] if own else [], [name for name in (CHAMPION, CHALLENGER) if name != own]


def in_aliases(wanted: list[str], unwanted: list[str]) -> str:
    if wanted:
        return f"here the version gets the alias {wanted[0]}, and not {unwanted[0]}"
    return f"here the version loses the aliases {' and '.join(unwanted)}"


def as_it_is(model: str, done: Mapping[str, Any], wanted: list[str]) -> str:
    version = f"version {done['version']} of {model}"
    return f"{version} is {wanted[0]} already" if wanted else f"{version} has neither alias"


def change(server: Server, task: str, *words: str, login: Login | None = None, **files: Any) -> Any:
    """Change the registry, under the lock: the host itself looks before it changes something."""
    login = login or credentials.required(server)
    step = calling(server.settings, login, server.name, *words, **files)
    return serialised.loads(server.apply(task, [step], decided=False)[-1])


def report(server: Server, model: str, changed: Mapping[str, Any]) -> None:
    """Say for each alias what it points at and did before, and how to take that back."""
    for alias, (before, now) in changed.items():
        if now is None:
            server.say(f"✓ {alias} no longer points at version {before} of {model}", "green")
            server.say(f"  models:/{model}@{alias} cannot be loaded until it is set again")
        else:
            was = f"before: version {before}" if before else "it is new"
            server.say(f"✓ {alias} points at version {now} of {model} ({was})", "green")
        words = ("registry.promote", model, before) if before else ("registry.demote", model)
        server.say(f"  to take it back: {typed(server, *words, '--alias', alias)}")


def typed(server: Server, task: str, *words: str) -> str:
    """Spell what to type at this server's environment."""
    return server.fab(sh(task, *words))


# -- copies ------------------------------------------------------------------------------------


@remote(
    help={
        "model": "name of the registered model",
        "version": "number of the version that is copied",
        "to": "environment of fabric.yaml that gets it; `default` is the one without a name",
        "name": "name of the model there (default: the same)",
    }
)
def copy(c: Host, model: str, version: str, to: str, name: str | None = None) -> None:
    """Copy a version of a model to another environment.

    With its files, description and tags, and a note of where it came from; every file is compared
    afterwards. The version is registered last, so what is interrupted leaves none, and the same
    command finishes it.

    Example: fab -H ec2 registry.copy iris 2 --to staging
    """
    source, name = c.server, model if name is None else name
    if not name.strip() or set(name) & set("/:"):
        raise Exit(f"{name!r} is no name for a model: MLflow allows neither / nor :, nor none.")
    for target in targets(source, c.config, to):
        try:
            copy_to(source, target, model, version, name)
        finally:
            target.connection.close()


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
    from tasks.settings import settle

    ours = {"FABRIC_HOSTS", ENVIRONMENT}
    rest = {key: value for key, value in variables.items() if key not in ours}
    section = dict(file.get("mlflow") or {})
    if to == "default":  # no environment may be named so
        section.pop("environment", None)
        return settle({**file, "mlflow": section}, rest)
    return settle({"mlflow": section}, rest, to)


def copy_to(source: Server, target: Server, model: str, version: str, name: str) -> None:
    """Copy a version to one server, unless it is there."""
    logins = credentials.required(source), login_there(target)
    found = ask(source, "version", model, version)
    (copied,) = found["versions"]
    origin = origin_of(source, model, copied, name)
    with named(target):
        already = ask(target, "copy-of", name, origin["copied_from.id"], login=logins[1])
    if already:
        source.say(
            f"registry.copy: nothing to change, version {copied['version']} of {model} is version "
            f"{already} of {name} on {label(target)}"
        )
        return
    done = carry(source, target, logins, model, copied["version"], origin)
    tags = copied["tags"] | origin | {"copied_from.sha256": done["sha256"]}
    made = {
        "model": {"name": name, "description": found["description"], "tags": found["tags"]},
        "version": {
            "source": done["source"], "run_id": done["run_id"],
            "description": copied["description"], "tags": tags,
        },
    }  # fmt: skip
    with named(target):
        number = change(target, "registry.copy", "register", login=logins[1], version=made)
    source.say(
        f"✓ version {copied['version']} of {model} is version {number} of {name} on "
        f"{label(target)}: {done['files']} files, SHA-256 {done['sha256'][:12]}",
        "green",
    )
    source.say(f"  to have it served there: {typed(target, 'registry.promote', name, number)}")


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
    variables = f"{credentials.USERNAME}=… {credentials.PASSWORD}=…"
    return f"Have it kept: {variables} {typed(target, 'configure')}"


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
        words = [sys.executable, "-m", "tasks.transfer"]
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
