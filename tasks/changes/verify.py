"""The changes of `verify`: the bucket proved anew, and what the trial left removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes.bucket import proof, proving
from tasks.changes.surroundings import aws_profile_script, place
from tasks.engine.change import Change
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from tasks.engine.server import Server


def proof_again(server: Server) -> Change:
    """Prove the bucket whatever was proved before: permissions change behind our back."""
    keys = server.facts.credentials
    return proving(server.settings, proof(server.settings, keys))


def _cleaning(server: Server, made: dict[str, str]) -> Change:
    settings = server.settings
    script = "\n".join(
        (
            aws_profile_script(settings),
            'read_variables "$root/server.env"',
            '"$root/venv/bin/python" "$here/clean_trial.py" root="$root"',
        )
    )
    files = requested(
        "clean_trial.py", place=place(settings), experiment=made.get("experiment", "")
    )
    return Change("look for the objects in the bucket, and remove what was made", script, files)
