"""The vocabulary that commands for the host are built from: values in, one quoted string out.

A command is text for bash, and its words are quoted for whatever shell the login has. Nothing in
this module runs, prints or reads configuration, and no secret is ever an argument: secrets travel
on standard input (see `server`).
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath

Word = str | int | PurePath | None

# Within single quotes a backslash is itself; in fish it stands for what follows, if that is this.
FISH_S_OWN = re.compile(r"\\(?=['\\]|\Z)")


def sh(*words: Word) -> str:
    """Quote every word and join them; None, an option that was not asked for, drops out."""
    return " ".join(_quoted(str(word)) for word in words if word is not None)


def _quoted(word: str) -> str:
    return r"\\".join(shlex.quote(part) for part in FISH_S_OWN.split(word))


def then(*commands: str) -> str:
    """Run each command only if the one before it succeeded."""
    return " && ".join(commands)


def when(condition: str, command: str) -> str:
    """Run the command if the condition holds; succeed either way unless the command fails."""
    return f"if {condition}; then {command}; fi"


def start(*units: str) -> str:
    """Start units; those that run stay as they are."""
    return sh("systemctl", "start", *units)


def stop(*units: str) -> str:
    """Stop units, and wait until they have."""
    return sh("systemctl", "stop", *units)
