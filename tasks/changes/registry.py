"""What is asked and changed of the model registry on its host."""

from __future__ import annotations

import json as serialised
from typing import TYPE_CHECKING

from tasks.changes.presence import ABSENT
from tasks.changes.proofs import stage_login
from tasks.engine import credentials
from tasks.engine.change import Change
from tasks.engine.shell import sh
from tasks.engine.templates import staged

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.login import Login
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings


def ask(server: Server, *words: str, login: Login | None = None) -> Any:
    """Ask the registry something, in one exec; the host's side says what is wrong."""
    login = login or credentials.required(server)
    step = calling(server.settings, login, server.name, *words)
    return serialised.loads(server.look(f"registry.{words[0]}", [step])[-1])


def calling(settings: Settings, login: Login, host: str, *words: str, **files: Any) -> Change:
    """Build the step that runs files/host/registry/registry.py, with more JSON files beside it."""
    staged_files = staged("registry.py")
    stage_login(staged_files, login)
    staged_files |= {f"{name}.json": serialised.dumps(value) for name, value in files.items()}
    script = "\n".join(
        (
            f'[ -x "$root/venv/bin/python" ] || fail {sh(ABSENT.format(host=host))}',
            f'"$root/venv/bin/python" "$here/registry.py" {sh(settings.port, *words)}',
        )
    )
    return Change("ask the registry", script, staged_files, announce=False)


def change(server: Server, task: str, *words: str, login: Login | None = None, **files: Any) -> Any:
    """Change the registry, under the lock: the host itself looks before it changes something."""
    login = login or credentials.required(server)
    step = calling(server.settings, login, server.name, *words, **files)
    return serialised.loads(server.apply(task, [step], decided=False)[-1])


def typed(server: Server, task: str, *words: str) -> str:
    """Spell what to type at this server's environment."""
    return server.fab(sh(task, *words))
