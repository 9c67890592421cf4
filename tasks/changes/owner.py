"""Whose artifacts lie under the prefix: a mark in the bucket, and the host's note that it is ours.

Two servers on one prefix each take the other's artifacts for orphans; the mark keeps them apart.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.surroundings import aws_profile_script, place
from tasks.engine.change import Change
from tasks.engine.console import interactive
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.engine.facts import Facts
    from tasks.engine.server import Server, StepFailed
    from tasks.engine.settings import Settings

PYTHON = '"$root/venv/bin/python"'  # of the release that serves

ANYBODY = "anybody"  # as files/host/deploy/owner.py spells it
# What a host says of a mark is shown to the operator: nothing but these, as that file has them.
SHAPES = {"server": r"[0-9a-f]{8}", "host": r"[A-Za-z0-9._-]{1,64}", "since": r"[0-9T:.+Z-]{10,40}"}

_asking = threading.Lock()


def is_marked(settings: Settings, facts: Facts) -> bool:
    """Tell whether this host noted that it has marked the prefix, as the server that it is now."""
    return facts.owned == mark_text(settings, facts)


def mark_text(settings: Settings, facts: Facts) -> str:
    """Spell what files/host/deploy/owner.py notes on the host once it has marked the prefix."""
    return f"{facts.server_id}@{facts.hostname} {place_text(settings)}"


def place_text(settings: Settings) -> str:
    """Spell the artifacts' place as files/host/deploy/owner.py does."""
    return f"s3://{settings.bucket}/{settings.artifact_prefix} at {settings.endpoint_url or 'AWS'}"


def confirm_takeover(server: Server, yes: bool, python: str = PYTHON) -> str:
    """Look whose the prefix is, and ask before it is taken from another server.

    `python` is a word for the script. Returns whose mark may be replaced: a server@host, ANYBODY
    with `yes`, or "" where there is none. Raises Exit where that is not wanted.
    """
    step = owning(server.settings, "look whose the prefix is", python, "look")
    mark = json.loads(server.look("deploy", [step])[-1])
    if mark is None:
        # One that comes meanwhile, as of another host of the same command, is agreed to as well.
        return ANYBODY if yes else ""
    return _confirmed(server, mark, yes)


def confirm_after(server: Server, failed: StepFailed, yes: bool) -> str:
    """Ask as confirm_takeover does, once marking the prefix has failed for another server's mark.

    Raises `failed` where a step failed for any other reason.
    """
    try:
        mark = json.loads(failed.reports[-1])
        is_mark = mark.keys() == SHAPES.keys()
    except (IndexError, ValueError, AttributeError, RecursionError):
        is_mark = False
    if not is_mark:
        raise failed
    return _confirmed(server, mark, yes)


def _confirmed(server: Server, told: Mapping[str, str], yes: bool) -> str:
    settings = server.settings
    mark = {
        name: told[name] if re.fullmatch(shape, str(told[name])) else "unknown"
        for name, shape in SHAPES.items()
    }
    where = f"s3://{settings.bucket}/{settings.artifact_prefix}/"
    whose = f"{where} belongs to the server on {mark['host']} since {mark['since']}"
    # Where nobody can be asked, this alone is said.
    question = (
        f"{whose}, and each server needs a `prefix:` of its own in fabric.yaml. Take it for "
        f"{server.place}?"
    )
    consequence = (
        f"{whose}.\nIf that server still runs, both will write there from now on, and `gc "
        "--orphans` of each would take the other's files for nobody's.\nTake it if that server is "
        "gone, or this one takes its place; else set another `prefix:` in fabric.yaml."
    )
    if interactive():
        question = f"Take {where} for {server.place}?"
    with _asking:
        if not server.confirm(question, yes, consequence):
            raise Exit("Nothing was changed. Set another `prefix:` in fabric.yaml, or agree.")
    return ANYBODY if yes else f"{mark['server']}@{mark['host']}"


def watching(settings: Settings) -> Change:
    """Build the step that warns where another server has taken the prefix over meanwhile."""
    return replace(owning(settings, "see whose the prefix is", PYTHON, "watch"), announce=False)


def marking(settings: Settings, over: str = "", python: str = PYTHON) -> Change:
    """Build the change that marks the prefix; `over` is whose mark may be replaced."""
    what = f"mark s3://{settings.require_bucket()}/{settings.artifact_prefix}/ as this server's"
    return owning(settings, what, python, "claim", over)


def owning(settings: Settings, what: str, python: str, action: str, over: str = "") -> Change:
    """Build the step that runs files/host/deploy/owner.py."""
    script = f'{aws_profile_script(settings)}\n{python} "$here/owner.py" root="$root"'
    return Change(
        what, script, requested("owner.py", place=place(settings), action=action, over=over)
    )
