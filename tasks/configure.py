"""Tell the host its AWS credentials and the first user's login, and prove the bucket."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from invoke import Exit

from tasks import credentials, paths, stores
from tasks.commands import sh, when
from tasks.credentials import Keys, Login
from tasks.facts import Facts
from tasks.install import refuse_unlike_guide, refuse_without_sudo
from tasks.kinds import Host, remote
from tasks.releases import release_of
from tasks.server import Change, Server
from tasks.templates import read, render

if TYPE_CHECKING:
    from tasks.settings import Settings


SHARERS = ("share.py", "postgres.py", "databases.py")
Half = Callable[["Settings", Facts, Keys | None, Login | None], list[Change]]


def check(servers: list[Server]) -> None:
    """Refuse what is wrong on this machine alone, before anything is sent."""
    for server in servers:
        server.settings.require_bucket()
        credentials.supplied_keys(server.variables)
        credentials.supplied_login(server.settings, server.variables)


def gather(servers: list[Server]) -> None:
    """Ask for what the hosts lack, once for all of them."""
    credentials.gather_keys(servers)
    credentials.gather_logins(servers)


@remote(check=check, prepare=gather, then="deploy verify")
def configure(c: Host) -> None:
    """Give the host its AWS keys and the first login.

    AWS keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, else what the host has, else a
    prompt, else the instance role; the bucket is proved by one object. The login comes from
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, else your copy, else a prompt, else it
    is generated. A server that has users keeps them as they are.

    Example: fab -H ec2 configure
    """
    _configure(c.server, "configure", aws_changes, auth_changes)


@remote(check=check, prepare=credentials.gather_keys, then="configure-auth deploy verify")
def configure_aws(c: Host) -> None:
    """Give the host its AWS keys, and prove the bucket.

    The first half of configure.

    Example: fab -H ec2 configure-aws
    """
    _configure(c.server, "configure-aws", aws_changes)


@remote(check=check, prepare=credentials.gather_logins, then="deploy verify")
def configure_auth(c: Host) -> None:
    """Give the host the login of its first user.

    The second half of configure.

    Example: fab -H ec2 configure-auth
    """
    _configure(c.server, "configure-auth", auth_changes)


def _configure(server: Server, task: str, *halves: Half) -> None:
    facts = server.facts
    refuse_without_sudo(facts)
    refuse_unlike_guide(server.settings, facts)
    if not facts.complete:
        raise Exit(f"Nothing is installed on {server.name} yet. Type: ./fab install {task}")
    joining = facts.store is None and stores.in_common(server.settings) is not None
    if auth_changes in halves and joining:
        facts = _join(server, task)
    needed = [
        change
        for half in halves
        for change in half(server.settings, facts, server.keys, server.login)
    ]
    if auth_changes in halves:
        if not joining:
            password = credentials.database_password(server)
            needed += store_changes(server.settings, facts, password)
            needed += share_changes(server.settings, facts)
        _accept_supplied_login(server)
    if needed:
        if server.login and not facts.has_users:
            # Kept here before it is sent: a connection lost half way must not lose the password.
            copy = credentials.keep(server, server.login)
            server.say(f"the login of {server.login.username} is kept in {paths.shown(copy)}")
        server.apply(task, needed)
        server.say("✓ configured", "green")
    else:
        server.say(f"{task}: nothing to change")


def _join(server: Server, task: str) -> Facts:
    """Make a new host one of its database's, and look who the users there are."""
    settings, facts = server.settings, server.facts
    password = credentials.database_password(server)
    first = [making_env(settings, facts), *store_changes(settings, facts, password)]
    server.apply(task, [*first, *share_changes(settings, facts)])
    if server.facts.has_users:
        server.say(f"its database has {server.facts.users} users already, who stay as they are")
    return server.facts


def aws_changes(
    settings: Settings, facts: Facts, keys: Keys | None, _: Login | None = None
) -> list[Change]:
    """Decide which AWS files the host needs, and whether the bucket must be proved again."""
    needed = []
    wanted = {
        key: value
        for key, value in (
            ("region", settings.region),
            ("endpoint_url", settings.endpoint_url),
        )
        if value
    }
    new_keys = keys is not None and keys.digest != facts.credentials
    new_config = not wanted.items() <= facts.aws_config.items()
    if keys is None and facts.credentials and len(facts.credential_keys) < 2:
        raise Exit(
            f"Partial AWS credentials: profile {settings.profile} in ~/.aws/credentials on the "
            f"host lacks one of its two keys. Set {credentials.KEY_ID} and {credentials.KEY} and "
            "type configure again."
        )
    if new_keys or new_config:
        profile = {
            "profile": settings.profile,
            "credentials": keys.profile() if keys and new_keys else {},
            "config": wanted if new_config else {},
        }
        script = f'python3 "$here/write_aws.py" "$here/aws.json"\n{UNPROVE}'
        files = {
            "write_aws.py": read("host/write_aws.py"),
            "aws.json": json.dumps(profile),
        }
        names = " and ".join(
            name for name, new in (("credentials", new_keys), ("config", new_config)) if new
        )
        needed.append(Change(f"write ~/.aws {names} (profile {settings.profile})", script, files))
    if facts.credentials and facts.credentials_mode != "600" and not new_keys:
        needed.append(Change("close ~/.aws/credentials to others", "chmod 0600 ~/.aws/credentials"))
    stamp = proof(settings, keys.digest if keys else facts.credentials)
    if needed or facts.proved != stamp:
        needed.append(proving(settings, stamp, python_of(settings, facts)))
    return needed


UNPROVE = 'rm -f "$root/.proved"'


def python_of(settings: Settings, facts: Facts) -> str:
    """Spell the Python of MLflow's environment: the new one's beside a server of the guide's."""
    folder = f"releases/{release_of(settings)}" if facts.guide else "venv"
    return f'"$root/{folder}/bin/python"'


def proving(settings: Settings, stamp: str, python: str = '"$root/venv/bin/python"') -> Change:
    """Prove from the host that the bucket can be listed, written, read and deleted from."""
    bucket = settings.require_bucket()
    command = sh(
        "python", bucket, settings.artifact_prefix, settings.region or "",
        settings.endpoint_url or "",
    ).removeprefix("python ")  # fmt: skip
    script = (
        f"{environment(settings)}\n"
        f'{python} "$here/prove_bucket.py" {command}\n'
        f'echo {stamp} > "$root/.proved"'
    )
    return Change(
        f"prove access to s3://{bucket}/{settings.artifact_prefix}/",
        script,
        {name: read(f"host/{name}") for name in ("prove_bucket.py", "bucket.py")},
    )


def environment(settings: Settings) -> str:
    """Spell the AWS profile for a script on the host; a profile in no file hides the role."""
    header = sh(rf"^\[\(profile \)\?{settings.profile}\]")
    named = f"grep -qs {header} ~/.aws/credentials ~/.aws/config"
    return when(named, f"export AWS_PROFILE={sh(settings.profile)}")


def proof(settings: Settings, keys_digest: str | None) -> str:
    """Digest what the proof of the bucket covers: it holds until one of these changes."""
    parts = (
        settings.bucket, settings.artifact_prefix, settings.region, settings.endpoint_url,
        settings.profile, keys_digest,
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def auth_changes(
    settings: Settings, facts: Facts, _: Keys | None, login: Login | None
) -> list[Change]:
    """Decide what a server without users needs for its first start."""
    needed = []
    if "MLFLOW_FLASK_SERVER_SECRET_KEY" not in facts.server_env:
        needed.append(making_env(settings, facts))
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


def making_env(settings: Settings, facts: Facts) -> Change:
    """Build the change that makes server.env, or the key that it lost."""
    return Change(
        "make server.env with a secret key",
        read("host/make_server_env.sh"),
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
    path = f"{facts.root}/{stores.PASS_FILE}"
    line = named.pass_line(password) if password else None
    if line and not is_there(facts, path, line, "600"):
        script = f'place "$here/pass" "$root/{stores.PASS_FILE}" 0600'
        needed.append(Change(f"write {stores.PASS_FILE} for {named.role}", script, {"pass": line}))
    if needed or facts.schema is None:
        needed.append(proving_stores(settings, facts))
    return needed


def share_changes(settings: Settings, facts: Facts) -> list[Change]:
    """Have all servers of the database be one: with one secret key, and one id in the bucket."""
    if facts.shared or not stores.current(settings, facts).apart:
        return []
    python = python_of(settings, facts)
    script = f'(set -a; . "$here/stores"; exec {python} "$here/share.py" "$root")'
    files: dict[str, str | bytes] = {name: read(f"host/{name}") for name in SHARERS}
    files["stores"] = stores.lines(stores.current(settings, facts), facts.root)
    what = "agree on secret key and id with the database's other servers"
    return [Change(what, script, files)]


def proving_stores(settings: Settings, facts: Facts) -> Change:
    """Prove from the host that both PostgreSQL databases take the server's role and its tables."""
    # In a shell of its own: for the steps that follow, a database is where server.env says.
    python = python_of(settings, facts)
    script = f'(set -a; . "$here/stores"; exec {python} "$here/prove_stores.py")'
    named = stores.current(settings, facts)
    place = named.host or "this host"
    files: dict[str, str | bytes] = {
        name: read(f"host/{name}") for name in ("prove_stores.py", "postgres.py", "databases.py")
    }
    files["stores"] = stores.lines(named, facts.root)
    return Change(f"prove access to PostgreSQL on {place}", script, files)


def auth_config(settings: Settings, users: str, username: str, password: str = "") -> str:
    """Render the file that MLFLOW_AUTH_CONFIG_PATH names; deploy takes the password away again.

    `users` is the address of the database of users.
    """
    return render(
        "mlflow_auth_config.ini",
        default_permission=settings.default_permission,
        # MLflow reads the file with interpolation, where a lone % is an error.
        database_uri=users.replace("%", "%%"),
        username=username,
        password=password and f" {password.replace('%', '%%')}",
    )


def is_there(facts: Facts, path: str, text: str, mode: str) -> bool:
    """Tell whether the host has this file with this content and mode."""
    found = facts.files.get(path)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return found is not None and found.digest == digest and found.mode == mode


def _accept_supplied_login(server: Server) -> None:
    """Check a login that was given for a server with users, and keep it if it is right."""
    given = credentials.supplied_login(server.settings, server.variables)
    if server.facts.guide:
        return  # deploy tries it on the server that it makes
    if given is None or not server.facts.has_users or given == credentials.kept(server):
        return
    if server.facts.unit(f"{server.settings.unit}.service").active != "active":
        server.warn(f"the login of {given.username} cannot be checked while the server is stopped")
        return
    from tasks.deploy import login_check

    server.apply("check a login", [login_check(server.settings, given)])
    server.say(f"the login of {given.username} is right, and kept in "
               f"{paths.shown(credentials.keep(server, given))}")  # fmt: skip
