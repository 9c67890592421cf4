"""Remove for good what was deleted in MLflow, and files that no run knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.presence import ABSENT
from tasks.changes.surroundings import aws_profile_script, place
from tasks.engine.change import Change
from tasks.engine.shell import sh
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.server import Server

AGE = "30d"

UNITS = {"h": 3600, "d": 86400, "w": 604800}  # seconds


def age(text: str, option: str = "--older-than") -> int:
    """Return an age such as 30d in seconds; raises Exit that names the option where it is none."""
    found = re.fullmatch(r"([0-9]{1,5})([hdw])", text)
    if not found:
        raise Exit(
            f"{option} is {text!r}, which is no age. Give a number with h, d or w for hours, "
            f"days or weeks, such as {AGE}."
        )
    return int(found[1]) * UNITS[found[2]]


def collecting(server: Server, action: str, older_than: str) -> Change:
    """Build the step that runs files/host/gc/collect.py."""
    what = {
        "find": "look for what was deleted",
        "check": "see that files can be deleted",
        "remove": f"remove what was deleted more than {older_than} ago",
    }[action]
    return running(server, what, "collect.py", action, age=age(older_than))


def on_orphans(server: Server, action: str, what: str) -> Change:
    """Build the step that runs files/host/gc/orphans.py."""
    return running(server, what, "orphans.py", action)


def running(server: Server, what: str, program: str, action: str, **request: Any) -> Change:
    """Build the step that runs a program in the server's own environment."""
    settings = server.settings
    script = "\n".join(
        (
            f'[ -e "$root/server.env" ] || fail {sh(ABSENT.format(host=server.name))}',
            aws_profile_script(settings),
            'read_variables "$root/server.env"',
            f'"$root/venv/bin/python" "$here/{program}" root="$root" action={action}',
        )
    )
    return Change(what, script, requested(program, place=place(settings), **request))
