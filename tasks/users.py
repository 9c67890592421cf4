"""Users of the tracking server: who they are, what they may do, and how they get back in.

Passwords travel as staged files on SSH's standard input, and are kept on this machine before they
are sent: a connection that is lost half way must not lose one, and the same command typed again
finishes the work with the same password.
"""

from __future__ import annotations

import csv
import hashlib
import json as serialised
import re
import shlex
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.files import workers
from tasks.changes.presence import absent, required_login
from tasks.changes.team import PERMISSIONS, _permission, _plain, team
from tasks.changes.users import asking, forgetting, forgetting_one, resetting
from tasks.engine import credentials, paths
from tasks.engine import login as login_engine
from tasks.engine.configuration import nearest
from tasks.engine.console import console, interactive
from tasks.engine.facts import is_deployed
from tasks.engine.login import NAME, Login
from tasks.engine.seen_names import USERS, note
from tasks.engine.tables import counted
from tasks.engine.task import remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from tasks.engine.change import Change
    from tasks.engine.server import Server
    from tasks.engine.task import Host

NAMESPACE = "users"

_asking = threading.Lock()

MODEL = "the name is a registered model's, not an experiment's"


def show(answers: Mapping[str, Any]) -> None:
    """Print one table for all hosts."""
    from rich.table import Table
    from rich.text import Text

    table = Table("host", "user", "admin", "grants", box=None)
    for host, rows in answers.items():
        for row in rows:
            grants = ", ".join(map(spelt, row["grants"])) or "-"
            table.add_row(host, Text(row["user"]), "yes" if row["admin"] else "", Text(grants))
    console.show(table)


def spelt(grant: Mapping[str, Any]) -> str:
    """Spell one grant: READ on iris (experiment 3)."""
    where = "model" if grant["on"] == "model" else f"experiment {grant['id']}"
    return f"{grant['permission']} on {grant['name'] or 'one that is gone'} ({where})"


@remote(name="list", once=True, report=show, help={"json": "print JSON instead of a table"})
def list_(c: Host, json: bool = False) -> list[dict[str, Any]]:
    """List the users and their grants.

    What somebody without a grant may do with others' experiments is `default_permission`.

    Example: fab -H ec2 users.list
    """
    server = c.server
    return _listed(server)


@remote(
    once=True, help={"name": "name of the new user", "admin": "may do everything, users included"}
)
def add(c: Host, name: str, admin: bool = False) -> None:
    """Make a user, with a password of its own.

    The password is asked for on a terminal (Enter generates one), else generated, and kept in a
    file that only you can read, to be handed over.

    Example: fab -H ec2 users.add alice
    """
    server = _deployed(c.server)
    with _new_password(server, _plain(name)) as login:
        step = asking(server, "add", name=name, password=login.password, admin=admin)
        _change(server, f"users.add {name}", step)
    server.say(f"✓ added {name}{', an admin' if admin else ''}", "green")
    server.say(f"the login is in {paths.shown(file_of(server, name))}; in a shell: source it")


@remote(once=True, help={"name": "name of the user", "yes": "do not ask"})
def remove(c: Host, name: str, yes: bool = False) -> None:
    """Remove a user and its grants.

    Experiments, runs and models that the user made stay.

    Example: fab -H ec2 users.remove alice
    """
    server = _deployed(c.server)
    rows = _listed(server)
    names = [row["user"] for row in rows]
    if name not in names:
        _forget_file(server, name)  # a removal that lost its connection left it
        known = nearest(name, names)
        raise Exit(f"There is no user {name!r}{known}. Who is there: ./fab users.list")
    grants = [spelt(grant) for row in rows if row["user"] == name for grant in row["grants"]]
    loses = f" It loses: {', '.join(grants)}." if grants else ""
    question = f"Remove {name} from {server.place}?"
    with _asking:
        if not server.confirm(question, yes, f"{name} can then no longer log in.{loses}"):
            raise Exit("Nothing was changed.")
    _change(server, f"users.remove {name}", asking(server, "remove", name=name), at_once=True)
    _forget_file(server, name)
    server.say(f"✓ removed {name}", "green")


def _listed(server: Server) -> list[dict[str, Any]]:
    """Ask who there is; TAB offers them from then on."""
    rows = list(serialised.loads(server.look("users.list", [asking(server, "list")])[-1]))
    note(USERS, server.name, server.settings.label, (row["user"] for row in rows))
    return rows


def _forget_file(server: Server, name: str) -> None:
    for file in (file_of(server, name), _pending(server, name)):
        file.unlink(missing_ok=True)


@remote(once=True, help={"name": "whose (default: the login that is kept here)"})
def passwd(c: Host, name: str | None = None) -> None:
    """Give a user a new password.

    Your own by default: afterwards server, your copy and ~/.mlflow/credentials agree. It is asked
    for on a terminal (Enter generates one), else generated.

    Example: fab -H ec2 users.passwd --name alice
    """
    server = _deployed(c.server)
    own = required_login(server)
    user = name or own.username
    with _new_password(server, user) as login:
        step = asking(server, "passwd", name=user, password=login.password)
        _change(server, f"users.passwd {user}", step, at_once=True)
    server.say(f"✓ {user} has a new password", "green")
    if user == own.username:
        _keep(server, login)
    else:
        server.say(f"the login is in {paths.shown(file_of(server, user))}; in a shell: source it")


@remote(
    name="reset-admin",
    once=True,
    help={
        "name": "whose (default: username of the settings)",
        "yes": "do not ask",
    },
)
def reset_admin(c: Host, name: str | None = None, yes: bool = False) -> None:
    """Set a lost admin password anew, on the host itself.

    No login is needed: it is written to the database of users. The service stays up. Makes the
    admin again where that database is gone. The new password comes from MLFLOW_TRACKING_PASSWORD,
    a prompt, or is generated.

    Example: fab -H ec2 users.reset-admin
    """
    server = _deployed(c.server)
    user = name or server.settings.username
    question = f"Give {user} of {server.place} a new password?"
    with _asking:
        if not server.confirm(question, yes, f"{user} becomes an admin, if it is none."):
            raise Exit("Nothing was changed.")
    supplied = credentials.supplied_login(server.settings, server.variables)
    # The variable of a client may hold the password that is lost; only another one is meant.
    given = supplied.password if supplied and supplied != credentials.kept(server) else None
    with _new_password(server, user, given) as login:
        steps = [resetting(server, login), forgetting_one(server, login)]
        reports = server.apply(f"users.reset-admin {user}", steps, decided=False)
        made = serialised.loads(reports[0])["made"]
    if user == server.settings.username:
        _keep(server, login)
    else:
        server.say(f"the login is in {paths.shown(file_of(server, user))}; in a shell: source it")
    if made:
        server.warn(f"{user} did not exist and was made. Other users are as the database has them.")
    server.say(f"✓ {user} has a new password", "green")
    if workers(server.settings, server.facts) > 1:
        server.say("the old one may work for a minute more on some workers; restart ends that")


@remote(
    once=True,
    help={
        "name": "name of the user",
        "experiment": "the experiment's name or number",
        "permission": f"one of {', '.join(PERMISSIONS)}",
        "model": MODEL,
    },
)
def grant(c: Host, name: str, experiment: str, permission: str, model: bool = False) -> None:
    """Let a user do something with an experiment.

    Replaces what was granted before for the same experiment.

    Example: fab -H ec2 users.grant alice iris EDIT
    """
    server = _deployed(c.server)
    wanted = _permission(permission)
    step = asking(server, "grant", name=name, on=experiment, model=model, permission=wanted)
    done = _change(server, f"users.grant {name}", step)
    if done["former"] == wanted:
        server.say(f"users.grant: nothing to change, {name} has {wanted} on {done['on']}")
        return
    former = f" instead of {done['former']}" if done["former"] else ""
    server.say(f"✓ {name} has {wanted} on {done['on']}{former}", "green")


@remote(
    once=True,
    help={
        "name": "name of the user",
        "experiment": "the experiment's name or number",
        "model": MODEL,
    },
)
def revoke(c: Host, name: str, experiment: str, model: bool = False) -> None:
    """Take a grant back.

    What is left is `default_permission`; DENY is a grant of its own that shuts somebody out.

    Example: fab -H ec2 users.revoke alice iris
    """
    server = _deployed(c.server)
    step = asking(server, "revoke", name=name, on=experiment, model=model)
    done = _change(server, f"users.revoke {name}", step)
    if not done["revoked"]:
        server.say(f"users.revoke: nothing to change, {name} has no grant on {done['on']}")
        return
    left = server.settings.default_permission
    server.say(f"✓ {name} has on {done['on']} what everybody has: {left}", "green")


@remote(
    name="import",
    once=True,
    help={"file": "CSV with the columns name, admin, experiment, permission"},
)
def import_(c: Host, file: str) -> None:
    """Make the users of a team from a CSV file.

    Columns: name; and, where wanted, admin (yes), experiment or model with permission. A user may
    stand in several lines, one a grant. Users that are there already stay as they are. The
    passwords are generated, and kept in one file that only you can read.

    Example: fab -H ec2 users.import team.csv
    """
    server = _deployed(c.server)
    users, grants = team(Path(file).expanduser())
    place = folder_of(server) / f"import-{Path(file).stem}.csv"
    passwords = _kept_passwords(place)
    for user in users:
        user["password"] = passwords.get(user["name"]) or credentials.generated()
        console.protect(user["password"])
    _write_passwords(place, users)
    step = asking(server, "import", users=users, grants=grants)
    done = _change(server, f"users.import {counted(len(users), 'user')}", step)
    _write_passwords(place, [user for user in users if user["name"] in done["new"]])
    if done["there"]:
        server.say(f"there already, and left as they are: {', '.join(done['there'])}")
    new = counted(len(done["new"]), "user")
    server.say(f"✓ {new} with {counted(len(grants), 'grant')}", "green")
    if done["new"]:
        server.say(f"their passwords are in {paths.shown(place)}")
    else:
        place.unlink()


def _kept_passwords(place: Path) -> dict[str, str]:
    if not place.exists():
        return {}
    with place.open(newline="") as stream:
        return {row["name"]: row["password"] for row in csv.DictReader(stream)}


def _write_passwords(place: Path, users: list[dict[str, Any]]) -> None:
    lines = ["name,password", *(f"{user['name']},{user['password']}" for user in users)]
    credentials.write_privately(place, "\n".join(lines) + "\n")


def _change(server: Server, task: str, step: Change, at_once: bool = False) -> Any:
    """Change something under the lock; `at_once` has workers forget what they remember of it."""
    steps = [step]
    if at_once and workers(server.settings, server.facts) > 1:
        steps.append(forgetting(server.settings))
    reports = server.apply(_one_line(task), steps, decided=False)
    return serialised.loads(reports[0])


def _one_line(task: str) -> str:
    # It stands in the audit log, one line a task, its fields parted by tabs.
    return re.sub(r"\s+", " ", task)


def _deployed(server: Server) -> Server:
    if not is_deployed(server.settings, server.facts):
        raise Exit(absent(server))
    return server


def folder_of(server: Server) -> Path:
    """Name the folder of the logins that were made here for others."""
    return credentials.copy_of(server).with_suffix("") / "users"


def file_of(server: Server, name: str) -> Path:
    """Name the file with a user's login, for a shell to source."""
    plain = name if NAME.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()[:16]
    return folder_of(server) / f"{plain}.env"


def _pending(server: Server, name: str) -> Path:
    return file_of(server, name).with_suffix(".env.new")


@contextmanager
def _new_password(server: Server, name: str, given: str | None = None) -> Iterator[Login]:
    """Give a new password, kept on this machine before it is used, until it is in place.

    Where an earlier attempt was cut short its password is taken again: the server may have it.
    """
    pending = _pending(server, name)
    password = given or _read(pending)
    if password is None and interactive() and not server.rehearsal:
        with _asking:
            password = credentials.ask_password(name, credentials.places([server]))
    login = Login(name, password or credentials.generated())
    console.protect(login.password)
    credentials.write_privately(pending, _shell(server, login))
    yield login
    pending.replace(file_of(server, name))


def _shell(server: Server, login: Login) -> str:
    """Spell a login for a shell: what an admin hands to a colleague."""
    return "".join(
        (
            f"# {login.username} at the MLflow server {server.name} ({server.settings.label}).\n"
            "# In a shell: source this file, and set MLFLOW_TRACKING_URI.\n",
            f"export {login_engine.USERNAME}={shlex.quote(login.username)}\n",
            f"export {login_engine.PASSWORD}={shlex.quote(login.password)}\n",
        )
    )


def _read(file: Path) -> str | None:
    if not file.exists():
        return None
    words = shlex.split(file.read_text(), comments=True)
    values = dict(word.partition("=")[::2] for word in words)
    return values.get(login_engine.PASSWORD)


def _keep(server: Server, login: Login) -> None:
    """Keep one's own new login where clients and tasks look for it, and nowhere else."""
    copy = credentials.keep(server, login)
    file_of(server, login.username).unlink(missing_ok=True)
    server.say(f"the login is kept in {paths.shown(copy)}")
    if server.variables.get(login_engine.PASSWORD) not in (None, "", login.password):
        server.warn(
            f'{login_engine.PASSWORD} of this shell is the old one: eval "$(./fab client --export)"'
        )
