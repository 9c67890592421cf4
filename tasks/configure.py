"""Tell the host its AWS credentials and the first user's login, and prove the bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.bucket import aws_changes, backup_changes
from tasks.changes.configure import (
    auth_changes,
    has_outdated_env,
    making_env,
    share_changes,
    store_changes,
)
from tasks.changes.guide import refuse_unlike_guide
from tasks.changes.keys import confirmed_keys
from tasks.changes.proofs import login_check
from tasks.engine import credentials, paths, stores
from tasks.engine.change import Change
from tasks.engine.credentials import gather_keys, gather_logins
from tasks.engine.facts import Facts, refuse_without_sudo
from tasks.engine.login import Keys, Login
from tasks.engine.tables import counted
from tasks.engine.task import remote

if TYPE_CHECKING:
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings
    from tasks.engine.task import Host

Half = Callable[["Settings", Facts, Keys | None, Login | None], list[Change]]


def check(servers: list[Server]) -> None:
    """Refuse what is wrong on this machine alone, before anything is sent."""
    for server in servers:
        server.settings.require_bucket()
        credentials.supplied_keys(server.variables)
        credentials.backup_keys(server)
        credentials.supplied_login(server.settings, server.variables)


YES = {"yes": "give the host AWS keys that may do more than a server needs, without asking"}


@remote(check=check, prepare=(gather_keys, gather_logins), then="deploy verify", help=YES)
def configure(c: Host, yes: bool = False) -> None:
    """Give the host its AWS keys and the first login.

    AWS keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, else what the host has, else a
    prompt, else the instance role; the bucket is proved by one object. Whose they are is said
    before the host gets them, and asked where they are too good for that. The login comes from
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, else your copy, else a prompt, else it
    is generated. A server that has users keeps them as they are. With `backup_profile` the backups
    get keys of their own, from your ~/.aws/credentials.

    Example: fab -H ec2 configure
    """
    _configure(c, "configure", aws_changes, auth_changes, yes=yes)


@remote(check=check, prepare=(gather_keys,), then="configure-auth deploy verify", help=YES)
def configure_aws(c: Host, yes: bool = False) -> None:
    """Give the host its AWS keys, and prove the bucket.

    The first half of configure.

    Example: fab -H ec2 configure-aws
    """
    _configure(c, "configure-aws", aws_changes, yes=yes)


@remote(check=check, prepare=(gather_logins,), then="deploy verify")
def configure_auth(c: Host) -> None:
    """Give the host the login of its first user.

    The second half of configure.

    Example: fab -H ec2 configure-auth
    """
    _configure(c, "configure-auth", auth_changes)


def _configure(c: Host, task: str, *halves: Half, yes: bool = False) -> None:
    server, facts = c.server, c.server.facts
    keys, login = (c.turn.answers.get(question) for question in (gather_keys, gather_logins))
    refuse_without_sudo(facts)
    refuse_unlike_guide(server.settings, facts)
    if not facts.complete:
        raise Exit(f"Nothing is installed on {server.name} yet. Type: ./fab install {task}")
    if aws_changes in halves and keys and keys.digest != facts.credentials:
        keys = confirmed_keys(server, keys, yes)
    joining = facts.store is None and stores.in_common(server.settings) is not None
    if auth_changes in halves and joining:
        facts = _join(server, task)
    needed = [change for half in halves for change in half(server.settings, facts, keys, login)]
    if aws_changes in halves:
        needed += backup_changes(server.settings, facts, credentials.backup_keys(server))
    if auth_changes in halves:
        if not joining:
            password = credentials.database_password(server)
            needed += store_changes(server.settings, facts, password)
            needed += share_changes(server.settings, facts)
        _accept_supplied_login(server)
    if needed:
        if login and not facts.has_users:
            # Kept here before it is sent: a connection lost half way must not lose the password.
            copy = credentials.keep(server, login)
            server.say(f"the login of {login.username} is kept in {paths.shown(copy)}")
        server.apply(task, needed)
        if has_outdated_env(server.settings, server.facts):
            server.warn("the server uses its former keys until the next: ./fab deploy")
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
        there = counted(server.facts.users, "user")
        server.say(f"its database has {there} already, who stay as they are")
    return server.facts


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
    server.apply("check a login", [login_check(server.settings, given)])
    server.say(f"the login of {given.username} is right, and kept in "
               f"{paths.shown(credentials.keep(server, given))}")  # fmt: skip
