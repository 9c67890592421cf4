"""Logins and AWS keys: from the variables, the operator's copy, a prompt, or generated.

Nothing here reaches a command line. The operator's copy is one 0600 file per host and environment;
`~/.mlflow/credentials`, which MLflow clients read by themselves, holds one login only and is
written when it is absent or already this server's.
"""

from __future__ import annotations

import configparser
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import paths, stores
from tasks.engine.console import console, interactive
from tasks.engine.login import (
    KEY,
    KEY_ID,
    PASSWORD,
    TOKEN,
    USERNAME,
    Keys,
    Login,
    better,
    long_enough,
    unfit,
)
from tasks.engine.questions import ask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.engine.server import Server
    from tasks.engine.settings import Settings
    from tasks.engine.stores import Stores

OF_DATABASE = "--postgres.json"  # what copies of a role's password end in


def supplied_login(settings: Settings, variables: Mapping[str, str]) -> Login | None:
    """Return the login in the variables; raises Exit where its password is too short."""
    password = variables.get(PASSWORD)
    if not password:
        return None
    console.protect(password)
    return Login(variables.get(USERNAME) or settings.username, long_enough(password, PASSWORD))


def supplied_keys(variables: Mapping[str, str]) -> Keys | None:
    """Return the AWS keys in the variables; raises Exit where only one of the two is there."""
    key_id, secret, token = (variables.get(name, "").strip() for name in (KEY_ID, KEY, TOKEN))
    console.protect(secret, token)
    if not key_id and not secret:
        return None
    if not key_id or not secret:
        there, missing = (KEY_ID, KEY) if key_id else (KEY, KEY_ID)
        raise Exit(
            f"Partial AWS credentials: {there} is set, {missing} is not. Set both, or unset both "
            "to keep what the host has."
        )
    return Keys(key_id, secret, token or None)


def backup_keys(server: Server) -> Keys | None:
    """Return the AWS keys of `backup_profile`, as the operator's own AWS files have them.

    None where backups use the server's, or these files have no such profile. Raises Exit where it
    lacks one of its two keys.
    """
    name = server.settings.backup_profile
    if name is None:
        return None
    file = Path(server.variables.get("AWS_SHARED_CREDENTIALS_FILE") or _aws_path()).expanduser()
    config = configparser.RawConfigParser()
    try:
        config.read(file)
    except configparser.Error as error:
        raise Exit(f"{file} cannot be read: {str(error).splitlines()[0]}. Fix it.") from None
    if not config.has_section(name):
        return None
    found = dict(config[name])
    variables = {key: found.get(key.lower(), "") for key in (KEY_ID, KEY, TOKEN)}
    try:
        return supplied_keys(variables)
    except Exit:
        raise Exit(
            f"The profile {name} in {file} lacks one of its two keys. Give it both, then type "
            "./fab configure again."
        ) from None


def _aws_path() -> Path:
    return Path.home() / ".aws" / "credentials"


def database_password(server: Server) -> str | None:
    """Return PostgreSQL's password: the address's, PGPASSWORD, or the operator's copy.

    None leaves it to the host's own file, or to a host that is known by its user.
    """
    uri = server.settings.backend_store_uri
    if uri is None or not stores.is_postgres(uri):
        return None
    named = stores.of(uri)
    kept = kept_database_password(named.role, named.host)
    password = named.password or server.variables.get("PGPASSWORD") or kept
    if password:
        console.protect(password)
    return password


def keep_database_password(named: Stores, password: str) -> Path:
    """Write the operator's copy of a role's password at one PostgreSQL server; returns the copy."""
    copy = _password_file(named.role, named.host)
    write_privately(copy, json.dumps({"password": password}))
    return copy


def kept_database_password(role: str, host: str) -> str | None:
    """Return the operator's copy of a role's password at one PostgreSQL server."""
    try:
        return str(json.loads(_password_file(role, host).read_text())["password"])
    except FileNotFoundError:
        return None


def _password_file(role: str, host: str) -> Path:
    return paths.config() / f"{role}@{host.replace('/', '_')}{OF_DATABASE}"


def copy_of(server: Server) -> Path:
    """Name the operator's copy of this server's login: one for all that have a database in common.

    Their users are the same, whichever host is asked.
    """
    if named := stores.in_common(server.settings):
        return paths.config() / f"{_plain(f'{named.role}@{named.host}_{named.database}')}.json"
    return _copy_of_host(server)


def _copy_of_host(server: Server) -> Path:
    suffix = f"--{server.settings.environment}" if server.settings.environment else ""
    return paths.config() / f"{_plain(server.identity)}{suffix}.json"


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "@.-_" else "_" for c in name)


def kept(server: Server) -> Login | None:
    """Return the login in the operator's copy; the host's own is from before it had company.

    None where there is none. Raises Exit where a copy cannot be read.
    """
    return _read(copy_of(server)) or _read(_copy_of_host(server))


def is_anothers(server: Server, login: Login) -> bool:
    """Tell whether a login is kept here as that of another server."""
    others = set(paths.config().glob("*.json")) - {copy_of(server), _copy_of_host(server)}
    return login in [_read(other) for other in others if not other.name.endswith(OF_DATABASE)]


def _read(copy: Path) -> Login | None:
    try:
        data = json.loads(copy.read_text())
        login = Login(data["username"], data["password"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Exit(
            f"{copy} cannot be read ({error}). Move it away and give the login in {USERNAME} and "
            f"{PASSWORD}."
        ) from None
    console.protect(login.password)
    return login


def keep(server: Server, login: Login) -> Path:
    """Write the operator's copy and return it; MLflow's own file too where it is nobody else's."""
    copy = copy_of(server)
    former = kept(server)
    write_privately(copy, json.dumps({"username": login.username, "password": login.password}))
    client_file = mlflow_file()
    if not server.rehearsal and (client_file is None or client_file in (former, login)):
        use(login)
    return copy


def known(server: Server) -> Login | None:
    """Return the login to use for this server: the variables' one first."""
    return supplied_login(server.settings, server.variables) or kept(server)


def required(server: Server) -> Login:
    """Return the login for this server; raises Exit that says how to give one."""
    login = known(server)
    if login is None:
        raise Exit(
            f"No login for {server.name} is known here. Set {USERNAME} and {PASSWORD}; for a lost "
            "one type ./fab users.reset-admin; for the first one ./fab configure deploy"
        )
    return login


def mlflow_file() -> Login | None:
    """Return the login that MLflow clients on this machine read by themselves."""
    config = configparser.ConfigParser()
    try:
        config.read(_mlflow_path())
        if not config.has_section("mlflow"):
            return None
        values = dict(config["mlflow"])
    except (configparser.Error, ValueError):
        values = {}  # somebody else's, and MLflow cannot read it either
    return Login(values.get(USERNAME.lower(), ""), values.get(PASSWORD.lower(), ""))


def use(login: Login) -> Path:
    """Make this the login that MLflow clients on this machine read; returns the file it is in."""
    # MLflow reads the file with interpolation, where a lone % is an error.
    name, password = (text.replace("%", "%%") for text in (login.username, login.password))
    text = f"[mlflow]\n{USERNAME.lower()} = {name}\n{PASSWORD.lower()} = {password}\n"
    write_privately(_mlflow_path(), text)
    return _mlflow_path()


def _mlflow_path() -> Path:
    return Path.home() / ".mlflow" / "credentials"


def write_privately(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Several hosts' threads may keep one and the same login at once.
    part = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
    part.replace(file)


def generated() -> str:
    """Return a new password: 24 characters of 64, which is 144 bits."""
    import secrets

    return secrets.token_urlsafe(18)


def ask_password(username: str, names: str) -> str | None:
    """Ask twice for a new password, and return it; None where Enter leaves it to us."""
    question = f"New password of {username} on {names} (Enter generates one): "
    while True:
        password = ask(question, secret=True)
        if not password:
            return None
        if reason := unfit(password):
            console.warn(f"{reason} Type {better(password)} one, or press Enter to generate one.")
            continue
        if ask("Repeat the password: ", secret=True) == password:
            console.protect(password)
            return password
        console.warn("The two passwords differ. Type the new password again.")


def ask_keys(names: str) -> Keys | None:
    """Ask for AWS keys, and return them; None where Enter says that the instance has a role.

    Raises Exit where an ID is given without its key.
    """
    key_id = ask(f"AWS access key ID for {names} (Enter uses the instance role): ")
    if not key_id:
        return None
    secret = ask("AWS secret access key: ", secret=True).strip()
    if not secret:
        raise Exit("Partial AWS credentials: no secret access key. Type ./fab configure again.")
    console.protect(secret)
    return Keys(key_id, secret)


def gather_keys(servers: list[Server]) -> dict[str, Keys | None]:
    """Settle which keys each host gets, asking once for all hosts that have none.

    Returns them by the host's name; None leaves a host what it has, or its instance role. Raises
    Exit where only half of them is given.
    """
    bare = [server for server in servers if _lacks_keys(server)]
    asked = ask_keys(places(bare)) if bare and interactive() else None
    return {
        server.name: supplied_keys(server.variables) or (asked if server in bare else None)
        for server in servers
        # The guide's server serves with the keys that it has.
        if not (server.facts.guide and len(server.facts.credential_keys) == 2)
    }


def _lacks_keys(server: Server) -> bool:
    facts = server.facts
    return not (server.rehearsal or supplied_keys(server.variables) or facts.credentials
                or facts.proved or facts.guide)  # fmt: skip


def gather_logins(servers: list[Server]) -> dict[str, Login]:
    """Settle the first user's login for each host without users, asking once for all of them.

    Returns them by the host's name. A host that has users is not among them: nothing is generated,
    asked for or rewritten there. Those that have a database in common get one login. Raises Exit
    where MLflow would not take the password that is given.
    """
    new = [server for server in servers if not server.facts.has_users]
    blank = [server for server in new if known(server) is None]
    asking = [server for server in blank if not server.rehearsal] if interactive() else []
    asked = ask_password(asking[0].settings.username, places(asking)) if asking else None
    made: dict[Path, Login] = {}
    logins = {}
    for server in new:
        password = asked if asked and server in asking else generated()
        own = Login(server.settings.username, password)
        login = known(server) or made.setdefault(copy_of(server), own)
        console.protect(login.password)
        logins[server.name] = login
    return logins


def places(servers: list[Server]) -> str:
    """Name hosts in a question, with their environment where they are of a named one."""
    names = ", ".join(server.name for server in servers)
    environment = servers[0].settings.environment
    return f"{names}, environment {environment}" if environment else names
