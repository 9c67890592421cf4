"""Commands as an operator types them: with host, ssh configuration and environment.

Whoever writes a sentence writes `./fab TASK` alone. What a command lacks to be typed as it stands
is added here, where the sentence leaves for the operator: by Server, Chain and Case.
"""

from __future__ import annotations

import re
import shlex

from tasks.engine import paths
from tasks.engine.configuration import UNNAMED
from tasks.engine.console import console
from tasks.engine.ssh import destination

# Tasks of the operator's machine alone, and the namespaces of such.
LOCAL = ("aws", "environments", "init", "rehearse", "sandbox", "test", "wheelhouse")

# But these work on hosts, although others of their namespace do not.
REMOTE = ("aws.adopt",)

COMMAND = re.compile(
    r"\./fab (?P<options>(?:-[SiH] (?:'[^']*'|\S+) )*)(?P<use>use \S+ )?"
    r"(?=(?P<task>[a-z]+(?:[.-][a-z]+)*))"
)


def is_local(task: str) -> bool:
    """Tell whether a task is one of this machine, of which none works on a host."""
    return task.split(".")[0] in LOCAL and task not in REMOTE


def using(environment: str | None) -> str:
    """Spell what has the tasks after it work on an environment; nothing where that is so anyway."""
    if environment:
        return f"use {environment} "
    return f"use {UNNAMED} " if console.chosen else ""


def typed(host: str, environment: str | None, *words: str) -> str:
    """Spell what an operator types to have tasks run on one server, or on several by commas."""
    return completed(f"./fab {' '.join(words)}", host, environment)


def here(environment: str | None, *words: str) -> str:
    """Spell what an operator types to have a task of this machine work on an environment."""
    return f"./fab {using(environment)}{' '.join(words)}"


def completed(text: str, host: str, environment: str | None) -> str:
    """Have every command in a text name host, ssh configuration and environment, as was typed."""

    def whole(found: re.Match[str]) -> str:
        if is_local(found["task"]):
            return found[0]
        options = found["options"]
        if "-S" not in options and "-i" not in options:
            options = console.ssh_options + options
        if "-H" not in options:
            options += f"-H {host} "
        return f"./fab {options}{found['use'] or using(environment)}"

    return COMMAND.sub(whole, text)


def ssh(host: str, *words: str) -> str:
    """Spell what an operator types to be logged in on a host, or to have words run there."""
    options = console.ssh_options.replace("-S ", "-F ")
    own = next((file for file in paths.ssh_configs() if f"Host {host}\n" in file.read_text()), None)
    if "-F" not in options and own:
        options = f"-F {shlex.quote(str(own))} {options}"
    there = [word for word in destination(host) if word != "--"]
    return f"ssh {options}{' '.join((*there, *words))}"
