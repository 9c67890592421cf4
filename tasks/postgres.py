"""Keep runs and users in PostgreSQL: make it serve them, move them there, and look into it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import backup_key
from tasks.changes.postgres import addresses, installing, moving, placed, refuse_unfit, served
from tasks.changes.presence import absent, refuse_absent
from tasks.engine import credentials, paths, stores
from tasks.engine.console import console, interactive
from tasks.engine.facts import PASS_FILE, refuse_without_sudo
from tasks.engine.shell import sh
from tasks.engine.tables import counted, held
from tasks.engine.task import remote

if TYPE_CHECKING:
    from tasks.engine.server import Server
    from tasks.engine.stores import Stores
    from tasks.engine.task import Host

NAMESPACE = "postgres"


def options(clients: str = "") -> None:
    """Refuse what is no address."""
    addresses(clients)


@remote(
    options=options,
    help={
        "clients": "addresses of the MLflow hosts, such as 10.0.1.5,10.0.2.0/24 (default: this "
        "host alone)"
    },
)
def install(c: Host, clients: str = "") -> None:
    """Make PostgreSQL serve an MLflow server's runs and users.

    Debian's own PostgreSQL, on the MLflow host or (with --clients) on another: a role that owns
    two databases, tuned from the memory, listening only where a client comes from. On the MLflow
    host the role is known by its user; from elsewhere by a password over TLS, made here, kept
    with your other logins and never in fabric.yaml.

    Example: fab -H db postgres.install --clients 10.0.1.5
    """
    server = c.server
    refuse_without_sudo(server.facts)
    named, permitted = placed(server.settings), addresses(clients)
    password, known = _password(server, named) if permitted else (None, False)
    script = installing(named, server.facts.user, permitted, password, known)
    made = json.loads(server.apply("postgres.install", [script], decided=False)[-1])
    address = served(named, made, server.facts.addresses, bool(permitted))
    if password:
        copy = credentials.keep_database_password(stores.of(address), password)
        server.say(f"the role's password is kept in {paths.shown(copy)}")
    server.say(f"✓ PostgreSQL {made['version']} serves {named.database}", "green")
    if server.settings.backend_store_uri is None:
        server.say("Put this under `mlflow:` in fabric.yaml:")
        server.say(f"  backend_store_uri: {address}")
    if server.facts.schema and not stores.is_postgres(server.facts.store or ""):
        server.say("Then move what the server has: ./fab postgres.migrate")


@remote(help={"command": "SQL to run; without it psql opens on a terminal", "users": "in the "
              "database of users"})  # fmt: skip
def psql(c: Host, command: str = "", users: bool = False) -> None:
    """Look into the server's PostgreSQL database.

    On the MLflow host, with the server's own role; no password is typed or shown.

    Example: fab -H ec2 postgres.psql --command "select count(*) from runs"
    """
    server = c.server
    facts = server.facts
    if facts.store is None:
        raise Exit(absent(server))
    if not stores.is_postgres(facts.store):
        raise Exit("This server's runs are in SQLite. To PostgreSQL: ./fab postgres.migrate")
    variable = "AUTH_STORE_URI" if users else "MLFLOW_BACKEND_STORE_URI"
    # libpq reads such an address itself, but knows no driver's name. server.env is data: nothing of
    # it is run.
    value = f"s/^{variable}=['\"]*\\([^'\"]*\\).*/\\1/p"
    address = sh("sed", "-n", value, f"{facts.root}/server.env")
    passwords = sh(f"{facts.root}/{PASS_FILE}")
    script = f'uri=$({address}); PGPASSFILE={passwords} exec psql "${{uri/+psycopg2/}}"'
    if command:
        asked = sh("bash", "-c", f"{script} -v ON_ERROR_STOP=1")
        said = server.run(asked, input=command.encode(), check=False)
        if said.exited:
            raise Exit(f"psql says: {(said.stderr.strip() or 'nothing').splitlines()[0]}")
        server.say(said.stdout.rstrip())
    elif interactive():
        subprocess.run(
            [*server.client.to(server.name, "-t"), sh("bash", "-c", script)], check=False
        )
    else:
        raise Exit('There is no terminal for psql. Give it the SQL: --command "select 1"')


@remote(help={"yes": "do not ask"})
def migrate(c: Host, yes: bool = False) -> None:
    """Move a server's runs and users from SQLite to PostgreSQL.

    To the databases that `backend_store_uri` names, which must be empty. After a backup the server
    stops; all rows are copied and compared, count by count and value by value; then it serves
    from there. Whatever fails, or differs, puts it back on SQLite, whose files stay on the host
    for `rollback`.

    Example: fab -H ec2 postgres.migrate
    """
    server = c.server
    settings, facts = server.settings, server.facts
    refuse_absent(server)
    if settings.backend_store_uri is None or not stores.is_postgres(settings.backend_store_uri):
        raise Exit(
            "`backend_store_uri:` in fabric.yaml names no PostgreSQL database to move to. "
            "postgres.install makes one, and says what to put there."
        )
    named = stores.of(settings.backend_store_uri)
    refuse_unfit(settings, facts, named)
    if stores.serves(facts, named):
        server.say("postgres.migrate: nothing to change, the server is on PostgreSQL")
        return
    consequence = (
        f"It moves {counted(facts.runs, 'run')} and {counted(facts.users, 'user')} to "
        f"{named.tracking}. Requests wait until all is copied and compared; the "
        "SQLite files stay on the host."
    )
    if not server.confirm(f"Move {server.place} to PostgreSQL?", yes, consequence):
        raise Exit("Nothing was moved.")
    moving_ = moving(settings, facts, credentials.database_password(server),
                     credentials.known(server))  # fmt: skip
    done = json.loads(
        server.apply("postgres.migrate", [*backup_key.agreeing(server), *moving_])[-1]
    )
    server.say(f"  {held(done)}; every table's rows and values agree")
    server.say(f"✓ MLflow serves from PostgreSQL; copied and compared in {done['seconds']} s",
               "green")  # fmt: skip


def _password(server: Server, named: Stores) -> tuple[str, bool]:
    """Return the role's password, and whether it is one that may replace what the role has."""
    own = [named.host] if named.host else list(server.facts.addresses)
    kept = [credentials.kept_database_password(named.role, host) for host in own]
    known = named.password or server.variables.get("PGPASSWORD") or next(filter(None, kept), None)
    password = known or credentials.generated()
    console.protect(password)
    return password, known is not None
