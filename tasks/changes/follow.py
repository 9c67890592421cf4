"""Have the other hosts of a database serve what the first one does, one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import files as files_changes
from tasks.changes.releases import installing, version_of
from tasks.changes.resolve import find
from tasks.changes.switch import databases_beside, switching
from tasks.engine import stores
from tasks.engine.change import Change
from tasks.engine.templates import source, staged

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings


def follow(server: Server, leader: Server, task: str) -> None:
    """Bring a host to the databases and the release of the one that the task began with."""
    first, lead, facts = leader.name, leader.facts, server.facts
    if (facts.store, facts.release) == (lead.store, lead.release):
        server.say(f"{task}: nothing to change, it serves what {first} serves")
        return
    version = version_of(lead.release)
    release, lock = find(server, version)
    if release != lead.release:
        raise Exit(
            f"{first} serves {lead.release}, and the lock of MLflow {version} gives "
            f"{release} for this host. Type: ./fab upgrade --to {version}"
        )
    steps = following(server.settings, facts, lead, f"serve what {first} serves", task, lock)
    server.apply(task, steps)
    server.say(f"✓ MLflow {version} serves, on the databases that {first} has", "green")


def following(
    settings: Settings, facts: Facts, lead: Facts, what: str, task: str, lock: str | None
) -> list[Change]:
    """Build the switch; `lock` is None where the host has the release that `lead` runs."""
    assert lead.store and lead.auth_store and lead.release
    after = replace(facts, store=lead.store, auth_store=lead.auth_store, release=lead.release)
    auth = files_changes.auth_file(settings, after)
    wanted = [*files_changes.files(settings, after), auth]
    start = files_changes.start_script(settings, after)
    script = "\n".join(
        (
            f"unit={settings.unit} task={task} release={lead.release} current={facts.release}",
            f"well={files_changes.deploy_digest(wanted, after)}",
            switching(several=True),
            source("follow.sh"),
        )
    )
    files = databases_beside(after) | staged("share.py")
    files |= {
        "stores": stores.lines(stores.Stores(lead.store, lead.auth_store), facts.root),
        "auth": auth.text,
        "start": start.text,
    }
    return [
        *([] if lock is None else [installing(lead.release, lock)]),
        files_changes.readying(settings, facts),
        Change(what, script, files),
    ]
