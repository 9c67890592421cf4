"""First login, secret key and databases of a server that is to be deployed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.changes.files import auth_config
from tasks.changes.releases import python_of
from tasks.engine import facts as facts_engine
from tasks.engine import stores
from tasks.engine.change import Change
from tasks.engine.facts import KEYS, is_there
from tasks.engine.templates import source, staged

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.login import Keys, Login
    from tasks.engine.settings import Settings


def auth_changes(
    settings: Settings, facts: Facts, _: Keys | None, login: Login | None
) -> list[Change]:
    """Decide what a server without users needs for its first start."""
    needed = env_changes(settings, facts)
    if not facts.has_users and login is not None:
        users = stores.current(settings, facts).users
        text = auth_config(settings, users, login.username, login.password)
        if not is_there(facts, f"{facts.root}/.mlflow_auth_config", text, "600"):
            needed.append(
                Change(
                    f"write .mlflow_auth_config for {login.username}",
                    'place "$here/auth_config" "$root/.mlflow_auth_config" 0600',
                    {"auth_config": text},
                )
            )
    return needed


def env_changes(settings: Settings, facts: Facts) -> list[Change]:
    """Decide whether server.env must be made, or given a key that it lacks."""
    return [] if facts.server_env >= KEYS else [making_env(settings, facts)]


def has_outdated_env(settings: Settings, facts: Facts) -> bool:
    """Tell whether the server was started before server.env was last written."""
    unit = facts.unit(f"{settings.unit}.service")
    return unit.active == "active" and unit.since < facts.server_env_changed


def afterwards(settings: Settings, facts: Facts) -> Facts:
    """Return the facts with what configuring changes of server.env done, as deploy will see it."""
    if not env_changes(settings, facts) and not share_changes(settings, facts):
        return facts
    keys = facts.server_env | KEYS
    return replace(facts, server_env=keys, server_env_changed=facts.now, shared=True)


def making_env(settings: Settings, facts: Facts) -> Change:
    """Build the change that makes server.env, or the keys that it lacks."""
    return Change(
        "make the keys of server.env",
        source("make_server_env.sh"),
        {"stores": stores.lines(stores.wanted(settings, facts), facts.root)},
    )


def store_changes(settings: Settings, facts: Facts, password: str | None) -> list[Change]:
    """Decide what a server on PostgreSQL needs beside server.env: its password, and a proof.

    Raises Exit where the settings name another database than the one that holds the runs.
    """
    stores.refuse_other(settings, facts)
    named = stores.current(settings, facts)
    if not named.postgres:
        return []
    needed = []
    path = f"{facts.root}/{facts_engine.PASS_FILE}"
    line = named.pass_line(password) if password else None
    if line and not is_there(facts, path, line, "600"):
        script = f'place "$here/pass" "$root/{facts_engine.PASS_FILE}" 0600'
        needed.append(
            Change(f"write {facts_engine.PASS_FILE} for {named.role}", script, {"pass": line})
        )
    if needed or facts.schema is None:
        needed.append(proving_stores(settings, facts))
    return needed


def share_changes(settings: Settings, facts: Facts) -> list[Change]:
    """Have all servers of the database be one: with the same keys, and one id in the bucket."""
    if facts.shared or not stores.current(settings, facts).apart:
        return []
    python = python_of(settings, facts)
    script = f'(read_variables "$here/stores"; exec {python} "$here/share.py" root="$root")'
    files = staged("share.py")
    files["stores"] = stores.lines(stores.current(settings, facts), facts.root)
    what = "agree on keys and id with the database's other servers"
    return [Change(what, script, files)]


def proving_stores(settings: Settings, facts: Facts) -> Change:
    """Prove from the host that both PostgreSQL databases take the server's role and its tables."""
    # In a shell of its own: for the steps that follow, a database is where server.env says.
    python = python_of(settings, facts)
    script = f'(read_variables "$here/stores"; exec {python} "$here/prove_stores.py")'
    named = stores.current(settings, facts)
    place = named.host or "this host"
    files = staged("prove_stores.py")
    files["stores"] = stores.lines(named, facts.root)
    return Change(f"prove access to PostgreSQL on {place}", script, files)
