"""Commands as an operator types them, with the environment that they are for."""

from __future__ import annotations

import re

from tasks.engine.configuration import UNNAMED
from tasks.engine.console import console


def using(environment: str | None) -> str:
    """Spell what has the tasks after it work on an environment; nothing where that is so anyway."""
    if environment:
        return f"use {environment} "
    return f"use {UNNAMED} " if console.chosen else ""


def typed(host: str, environment: str | None, *words: str) -> str:
    """Spell what an operator types to have tasks run on one server."""
    return f"./fab -H {host} {using(environment)}{' '.join(words)}"


def completed(text: str, environment: str | None) -> str:
    """Have every command in a text name the environment, so that it can be typed as it stands."""
    return COMMAND.sub(lambda found: found[0] + using(environment), text)


COMMAND = re.compile(r"\./fab (?:-H \S+ )?(?!use |-)")
