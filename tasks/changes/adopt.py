"""Take over a server that the guide made, without losing a run, and give it back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import backup_key, deploy, files, owner, proofs, wall
from tasks.changes.backup import backing_up
from tasks.changes.configure import env_changes
from tasks.changes.guide import refuse_unlike_guide
from tasks.changes.releases import python_of, release_of
from tasks.changes.site import site_words
from tasks.changes.switch import switching
from tasks.changes.upgrade import rehearsing
from tasks.engine import credentials
from tasks.engine.change import Change
from tasks.engine.facts import refuse_closed_nginx, refuse_without_sudo
from tasks.engine.shell import sh
from tasks.engine.tables import counted
from tasks.engine.templates import source, staged

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.facts import Facts, Guide
    from tasks.engine.login import Login
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings


def adopt(server: Server, yes: bool) -> None:
    """Say what was found, ask, and take it over; raises Exit where it must stay as it is."""
    settings, facts = server.settings, server.facts
    login = credentials.known(server)
    needed = changes(settings, facts, login)
    assert facts.guide is not None
    server.say(described(facts.guide, facts))
    for difference in differences(settings, facts.guide):
        server.warn(difference)
    question = f"Take over the guide's server on {server.place}?"
    if not server.confirm(question, yes, PLAN.format(version=settings.version)):
        raise Exit(f"Nothing was changed: {left_as_it_is(facts.guide)}")
    if not owner.is_marked(settings, facts):
        over = owner.confirm_takeover(server, yes, python_of(settings, facts))
        needed = changes(settings, facts, login, over)
    needed = [*backup_key.agreeing(server), *needed]
    reports = [json.loads(report) for report in server.apply("deploy", needed)]
    server.say(f"✓ MLflow {settings.version} serves. To undo: ./fab rollback", "green")
    if login is not None:
        credentials.keep(server, login)
    server.say("The users keep their passwords.")
    for name in next((report["well_known"] for report in reports if "well_known" in report), ()):
        which = "" if name == settings.username else f" --name {name}"
        server.warn(
            f"{name}'s password is the one that every guide names (password1234), and MLflow "
            f"{settings.version} refuses it. Give {name} another: ./fab users.reset-admin{which}"
        )


PLAN = (
    "MLflow {version} is tried on a copy while the old server runs, and both databases are backed "
    "up; then the old server is stopped for about half a minute. Whatever fails gives it back, and "
    "`rollback` does so later."
)


def described(guide: Guide, facts: Facts) -> str:
    """Say what was found."""
    how = "stopped by a task that was cut off" if guide.cut_off else "stopped"
    if guide.active:
        how = f"run by the unit {guide.unit}" if guide.unit else f"run by process {guide.pid}"
    return (
        f"Found the guide's server in {facts.root}: MLflow {guide.version}, {how}, "
        f"{counted(facts.runs, 'run')}, {counted(facts.users, 'user')}; artifacts in "
        f"{guide.destination}, AWS profile {guide.profile}"
    )


def left_as_it_is(guide: Guide) -> str:
    """Say how the guide's server is left where the answer was no."""
    if guide.cut_off:
        return "the guide's server stays stopped. It runs again after: ./fab rollback"
    return f"the guide's server {'runs on' if guide.active else 'stays stopped'}."


def differences(settings: Settings, guide: Guide) -> list[str]:
    """Say what clients would find changed, and which setting keeps it as it was."""
    found = []
    if guide.host not in ("127.0.0.1", "localhost", settings.bind) and settings.bind != "0.0.0.0":
        found.append(
            f"It listens on {guide.host}, the new one will listen on {settings.bind} alone: "
            f"clients come in by ./fab tunnel. To keep it open: `bind: {guide.host}` under "
            "`mlflow:` in fabric.yaml."
        )
    if guide.port != settings.port:
        found.append(
            f"It has port {guide.port}, the new one will have {settings.port}. To keep it: "
            f"`port: {guide.port}` under `mlflow:` in fabric.yaml."
        )
    return found


def changes(settings: Settings, facts: Facts, login: Login | None, over: str = "") -> list[Change]:
    """Build what takes the guide's server over; raises Exit where something must come first.

    `over` is the server whose mark on the prefix may be replaced.
    """
    settings.require_bucket()
    refuse_without_sudo(facts)
    refuse_unlike_guide(settings, facts)
    release, guide = release_of(settings), facts.guide
    assert guide is not None
    if release not in facts.complete:
        raise Exit("MLflow is not installed beside it yet. Type: ./fab install configure deploy")
    if not facts.server_env:
        raise Exit("server.env is not there yet. Type: ./fab configure deploy")
    deploy.refuse_taken_port(settings, facts)
    refuse_closed_nginx(settings, facts)
    after = replace(facts, release=release, guide=None)
    login_file = files.auth_file(settings, after)
    wanted = [*files.files(settings, after), login_file]
    python = python_of(settings, facts)
    words = "\n".join(
        (
            f"unit={settings.unit} release={release} version={sh(guide.version)}",
            site_words(settings, after),
            switching(),
            source("guide.sh"),
        )
    )
    programs = guide_program() | {
        "start": files.start_script(settings, after).text,
        "auth": login_file.text,
    }
    shipment = deploy.Shipment(
        "; ".join([*(f"put {file.path}" for file in wanted), proofs.CHECK]),
        wanted,
        login_file,
        files.deploy_digest(wanted, after),
    )
    return [
        *env_changes(settings, facts),
        rehearsing(
            settings,
            f"rehearse the move from MLflow {guide.version} to {settings.version} on a copy",
            words,
            python,
        ),
        backing_up(settings, python),
        *([] if owner.is_marked(settings, facts) else [owner.marking(settings, over, python)]),
        Change(
            "stop the guide's server; adopt its databases and users",
            source("adopt.sh"),
            programs,
            announce=False,
        ),
        wall.putting(settings),
        deploy.deploying(settings, after, shipment, login),
        Change(
            "look for a password that everybody knows",
            'say "nobody was served for $((SECONDS - paused)) s"\n'
            '"$root/venv/bin/python" "$here/well_known.py" users="$root/basic_auth.db"',
            staged("well_known.py"),
        ),
    ]


def giving_back(settings: Settings, facts: Facts, former: Any) -> list[Change]:
    """Build what has the guide's server serve again."""
    script = "\n".join(
        (
            f"unit={settings.unit} current={facts.release}",
            f"former={sh(former['name'])} release={sh(former['release'])}",
            site_words(settings, facts),
            switching(),
            source("guide.sh"),
            source("give_up.sh"),
        )
    )
    what = f"give the guide's server back, as of {former['name']}"
    return [Change(what, script, guide_program()), starting_again(settings, facts)]


def starting_again(settings: Settings, facts: Facts) -> Change:
    """Build the end of that, which is all that is left to do where it was cut off."""
    script = "\n".join(
        (
            f"unit={settings.unit} port={settings.port} {site_words(settings, facts)}",
            source("guide.sh"),
            source("guide_again.sh"),
        )
    )
    return Change("have the guide's server run as it ran", script, guide_program())


def guide_program() -> dict[str, str | bytes]:
    """Return the program that stops and starts the guide's server."""
    return staged("guide_service.py")
