"""What is asked and changed of MLflow's users on their host."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tasks.changes.presence import required_login
from tasks.changes.service import awaiting
from tasks.engine.change import Change
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.login import Login
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings


def resetting(server: Server, login: Login) -> Change:
    """Build the change that writes a new password to the database of users.

    A server that lost that database under it holds on to the deleted file: it is restarted.
    """
    files = requested("reset_admin.py", name=login.username, password=login.password)
    service = f"{server.settings.unit}.service"
    script = "\n".join(
        (
            'gone=no; [ -e "$root/basic_auth.db" ] || gone=yes',
            '"$root/venv/bin/python" "$here/reset_admin.py" root="$root"',
            f"if [ $gone = yes ] && systemctl is-active --quiet {service}; then",
            awaiting(server.settings, "restart"),
            "fi",
        )
    )
    return Change(f"write a new password of {login.username}", script, files)


def forgetting_one(server: Server, login: Login) -> Change:
    """Build the request that has the server forget an old password: it changes nothing else.

    A stopped server remembers none, and must not be woken.
    """
    step = asking(server, "forget", login, name=login.username)
    script = (
        f"if systemctl is-active --quiet {server.settings.unit}.service; then\n{step.script}\nfi"
    )
    return dataclasses.replace(step, script=script)


def asking(server: Server, action: str, login: Login | None = None, **request: Any) -> Change:
    """Build the step that runs files/host/users/users.py on the host, with what the action needs.

    Raises Exit where no login of the server's is known.
    """
    login = login or required_login(server)
    files = requested(
        "users.py", port=server.settings.port, login=dataclasses.asdict(login), action=action,
        **request,
    )  # fmt: skip
    return Change("ask for users", 'python3 "$here/users.py"', files, announce=False)


def forgetting(settings: Settings) -> Change:
    """Build the restart that ends the memory of logins: each worker has its own, for a minute."""
    script = awaiting(settings, "restart")
    return Change("restart, so that every worker knows (no request is lost)", script)
