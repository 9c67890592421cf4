"""Make PostgreSQL databases, and move a server's runs and users into them."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import configure, proofs
from tasks.changes import files as files_changes
from tasks.changes.backup import backing_up
from tasks.changes.packages import packages
from tasks.changes.switch import switching
from tasks.engine import stores
from tasks.engine.change import Change
from tasks.engine.shell import sh
from tasks.engine.templates import requested, source

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.facts import Facts
    from tasks.engine.login import Login
    from tasks.engine.settings import Settings
    from tasks.engine.stores import Stores

NAMELESS = "Setting `mlflow: backend_store_uri:` names no role. Write {}://ROLE@HOST/DATABASE"


def refuse_unfit(settings: Settings, facts: Facts, named: Stores) -> None:
    """Raise Exit where a server cannot be moved to PostgreSQL."""
    if facts.store and stores.is_postgres(facts.store) and not stores.serves(facts, named):
        raise Exit(
            f"This server is on PostgreSQL already, at {facts.store}. From one PostgreSQL server "
            "to another go its own tools: ./fab backup, then docs/postgres.md."
        )
    if facts.schema is None:
        raise Exit("The server has no database that can be read. See why: ./fab doctor")
    if facts.unit(f"{settings.unit}-stream.service").active == "active":
        raise Exit("A stream sends the SQLite databases. End it first: ./fab backup.stream off")


def moving(
    settings: Settings, facts: Facts, password: str | None, login: Login | None
) -> list[Change]:
    """Build the whole of a move to PostgreSQL, a backup first."""
    assert settings.backend_store_uri
    named = stores.of(settings.backend_store_uri)
    after = replace(facts, store=named.tracking, auth_store=named.users)
    wanted = [*files_changes.files(settings, after), files_changes.auth_file(settings, after)]
    files = proofs.deep_check(settings, login) | {
        "stores": stores.lines(named, facts.root),
        "auth": files_changes.auth_file(settings, after).text,
        **requested("move_store.py", tracking=named.tracking, users=named.users),
    }
    script = "\n".join(
        (
            f"unit={settings.unit} current={facts.release}",
            f'python="$root/venv/bin/python" well={files_changes.deploy_digest(wanted, after)}',
            switching(),
            source("move_to_postgres.sh"),
        )
    )
    return [
        *packages(facts, postgres=True),
        *configure.store_changes(settings, after, password),
        files_changes.readying(settings, facts),
        backing_up(settings),
        Change(f"move the databases to {named.tracking}", script, files),
    ]


def addresses(text: str) -> list[str]:
    """Read a list of addresses and networks; raises Exit naming what is none."""
    found = [word for word in text.split(",") if word]
    for word in found:
        try:
            ipaddress.ip_network(word)
        except ValueError:
            raise Exit(
                f"--clients: {word!r} is neither an address nor a network. Give what the MLflow "
                "hosts come from, such as 10.0.1.5 or 10.0.1.0/24."
            ) from None
    return found


def placed(settings: Settings) -> Stores:
    """Return the databases to make: those of the settings, else some named for the environment."""
    if settings.backend_store_uri and stores.is_postgres(settings.backend_store_uri):
        named = stores.of(settings.backend_store_uri)
        if not named.role:
            raise Exit(NAMELESS.format(stores.DRIVER))
        return named
    name = "_".join(["mlflow", *(settings.environment or "").split("-")]).rstrip("_")
    return stores.of(f"{stores.DRIVER}://{name}@/{name}")


def installing(
    named: Stores, user: str, permitted: list[str], password: str | None, known: bool
) -> Change:
    """Build the change that makes PostgreSQL serve the role; `user` is who is it on the host.

    A password that is not `known`, but made here, never replaces the one that a role has.
    """
    words = {
        "role": named.role, "database": named.database, "osuser": user,
        "clients": " ".join(permitted), "known": "yes" if known else "",
    }  # fmt: skip
    script = "\n".join(
        (
            "packages=postgresql",
            'if [ -x /usr/bin/pg_lsclusters ] && [ -n "$(pg_lsclusters -h)" ]; then packages=; fi',
            *(f"{name}={sh(value)}" for name, value in words.items()),
            "install_packages() {", source("install_packages.sh"), "}",
            source("install_postgres.sh"),
        )
    )  # fmt: skip
    files = requested("scram.py", password=password) if password else {}
    return Change(f"make PostgreSQL serve {named.database}", script, files)


def served(named: Stores, made: dict[str, Any], own: tuple[str, ...], apart: bool) -> str:
    """Spell the address that the MLflow hosts use; `own` are the database host's addresses."""
    port = "" if made["port"] == stores.PORT else f":{made['port']}"
    if named.host:
        return named.tracking
    if not apart:
        query = f"?host={made['socket']}" + (f"&port={made['port']}" if port else "")
        return f"{stores.DRIVER}://{named.role}@/{named.database}{query}"
    listening = made["listen"].split(",")
    host = next(address for address in (*own, *listening) if address in listening[1:])
    return f"{stores.DRIVER}://{named.role}@{host}{port}/{named.database}?sslmode=require"
