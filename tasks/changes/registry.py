"""What is asked and changed of the model registry on its host."""

from __future__ import annotations

import dataclasses
import json as serialised
from typing import TYPE_CHECKING

from tasks.changes.presence import ABSENT, required_login
from tasks.engine.change import Change
from tasks.engine.shell import sh
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.login import Login
    from tasks.engine.server import Server


def ask(server: Server, action: str, login: Login | None = None, **request: Any) -> Any:
    """Ask the registry something, in one exec; the host's side says what is wrong."""
    step = calling(server, action, login, **request)
    return serialised.loads(server.look(f"registry.{action}", [step])[-1])


def calling(server: Server, action: str, login: Login | None, **request: Any) -> Change:
    """Build the step that runs files/host/registry/registry.py, with what the action needs.

    Raises Exit where no login of the server's is known.
    """
    login = login or required_login(server)
    files = requested(
        "registry.py", port=server.settings.port, login=dataclasses.asdict(login), action=action,
        **request,
    )  # fmt: skip
    script = "\n".join(
        (
            f'[ -x "$root/venv/bin/python" ] || fail {sh(ABSENT.format(host=server.name))}',
            '"$root/venv/bin/python" "$here/registry.py"',
        )
    )
    return Change("ask the registry", script, files, announce=False)


def change(
    server: Server, task: str, action: str, login: Login | None = None, **request: Any
) -> Any:
    """Change the registry, under the lock: the host itself looks before it changes something."""
    step = calling(server, action, login, **request)
    return serialised.loads(server.apply(task, [step], decided=False)[-1])


def typed(server: Server, task: str, *words: str) -> str:
    """Spell what to type at this server's environment."""
    return server.fab(sh(task, *words))
