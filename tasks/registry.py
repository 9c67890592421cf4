"""The model registry: what is there, which version serves, and copies to other environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.registry import ask, change, typed
from tasks.engine import credentials
from tasks.engine.console import console
from tasks.engine.seen_names import MODELS, note
from tasks.engine.tables import counted
from tasks.engine.task import remote
from tasks.laptop.copies import carry, label, login_there, named, origin_of, targets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tasks.engine.server import Server
    from tasks.engine.task import Host

NAMESPACE = "registry"

# What the guide's stages are called now. A version has one stage: of these two aliases it gets
# the stage's own and loses the other. Archived, and no stage at all, have none.
STAGES = {"Production": "champion", "Staging": "challenger", "Archived": None, "None": None}

CHAMPION, CHALLENGER = "champion", "challenger"


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
    server = c.server
    models = list(ask(server, "list"))
    note(MODELS, server.name, server.settings.label, (row["model"] for row in models))
    return models


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
    return dict(ask(c.server, "show", model=model))


def moment(text: str) -> str:
    """Shorten 2026-11-24T11:19:35Z to what a table has room for."""
    return text[:16].replace("T", " ")


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
    done = change(
        c.server, "registry.promote", "point",
        model=model, version=version, wanted=wanted, unwanted=unwanted,
    )  # fmt: skip
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
    done = change(c.server, "registry.demote", "demote", model=model, alias=alias)
    if not done["changed"]:
        c.server.say(f"registry.demote: nothing to change, {model} has no alias {alias}")
        return
    report(c.server, model, done["changed"])


def aliases(alias: str | None, stage: str | None) -> tuple[list[str], list[str]]:
    """Return the aliases that a version shall have, and those that it shall not."""
    from tasks.engine.configuration import nearest

    if alias is not None and stage is not None:
        raise Exit("--alias and --stage both say what the version becomes. Give one of them.")
    if alias is not None and (not alias or "," in alias):
        raise Exit(
            f"{alias!r} cannot be an alias. Give letters, digits, _ and -, such as champion."
        )
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
        raise Exit(f"{name!r} cannot be a model's name. Give one without / and :.")
    for target in targets(source, c.config, to):
        try:
            copy_to(source, target, model, version, name)
        finally:
            target.connection.close()


def copy_to(source: Server, target: Server, model: str, version: str, name: str) -> None:
    """Copy a version to one server, unless it is there."""
    logins = credentials.required(source), login_there(target)
    found = ask(source, "version", model=model, version=version)
    (copied,) = found["versions"]
    origin = origin_of(source, model, copied, name)
    with named(target):
        already = ask(target, "copy-of", logins[1], model=name, identity=origin["copied_from.id"])
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
        number = change(target, "registry.copy", "register", logins[1], entry=made)
    source.say(
        f"✓ version {copied['version']} of {model} is version {number} of {name} on "
        f"{label(target)}: {counted(done['files'], 'file')}, SHA-256 {done['sha256'][:12]}",
        "green",
    )
    source.say(f"  to have it served there: {typed(target, 'registry.promote', name, number)}")
