"""Have the other hosts of a database serve what the first one does, one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from invoke import Exit

from tasks import deploy, stores
from tasks.configure import SHARERS
from tasks.releases import find, installing, version_of
from tasks.restore import databases_beside, switching
from tasks.server import Change
from tasks.templates import read

if TYPE_CHECKING:
    from tasks.facts import Facts
    from tasks.server import Server
    from tasks.settings import Settings


def follow(server: Server, task: str) -> None:
    """Bring a host to the databases and the release of the one that the task began with."""
    assert server.lead
    first, lead, facts = server.lead.name, server.lead.facts, server.facts
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
    auth = deploy.auth_file(settings, after)
    start = deploy.start_script(settings, after)
    script = "\n".join(
        (
            f"unit={settings.unit} task={task} release={lead.release} current={facts.release}",
            f"well={deploy.wellness([*deploy.files(settings, after), auth], after)}",
            switching(several=True),
            read("host/follow.sh"),
        )
    )
    files = databases_beside(after) | {name: read(f"host/{name}") for name in SHARERS}
    files |= {
        "stores": stores.lines(stores.Stores(lead.store, lead.auth_store), facts.root),
        "auth": auth.text,
        "start": start.text,
    }
    return [
        *([] if lock is None else [installing(lead.release, lock)]),
        deploy.readying(settings, facts),
        Change(what, script, files),
    ]
