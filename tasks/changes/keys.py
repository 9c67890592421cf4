"""Whose AWS keys a host is to be given: looked at there, and asked about, before they are kept."""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.releases import python_of
from tasks.engine.change import Change
from tasks.engine.login import KEY, KEY_ID
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tasks.engine.login import Keys
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings

BETTER = (
    f"Better: unset {KEY_ID} and {KEY} where the instance has a role, or give keys that may do "
    "what docs/security.md lists, and nothing else."
)

_asking = threading.Lock()


def confirmed_keys(server: Server, keys: Keys, yes: bool) -> Keys | None:
    """Return the keys for a host, once it is said whose they are, and asked where no server should
    have such.

    None where its instance has a role that this project made: the operator's own keys, by which
    that was done, never go there. Raises Exit where the answer is no. Another store than AWS's own
    tells nobody.
    """
    if server.settings.endpoint_url:
        server.say(f"the keys are those with the ID {keys.key_id}")
        return keys
    python = python_of(server.settings, server.facts)
    found = json.loads(server.look("configure", [looking(server.settings, keys, python)])[-1])
    if is_ours(found["role"], server.settings):
        server.say(f"the instance has the server's own role ({found['role']}): no keys go there")
        return None
    whose = found["arn"] or f"an unknown user ({keys.key_id})"
    doubts = doubts_about(found)
    if not doubts:
        why = f": AWS does not say whose ({found['why']})" if found["why"] else ""
        server.say(f"the keys are those of {whose}{why}")
        return keys
    with _asking:
        for doubt in doubts:
            server.warn(doubt)
        question = f"Give {server.place} the AWS keys of {whose}?"
        if not server.confirm(question, yes, BETTER):
            raise Exit(f"Nothing was changed. {BETTER}")
    return keys


def is_ours(role: str | None, settings: Settings) -> bool:
    """Tell by its name whether a role's session is of a server's own role (`Names.role`)."""
    region = r"[a-z]{2}(-[a-z]+)+-[0-9]+"
    return bool(re.search(rf":assumed-role/{re.escape(settings.unit)}-{region}/", role or ""))


def doubts_about(found: Mapping[str, Any]) -> list[str]:
    """Say why these keys are better not on a server, a sentence each."""
    arn, doubts = found["arn"] or "", []
    if found["role"]:
        doubts.append(f"The instance has a role ({found['role']}), and needs no keys.")
    if arn.endswith(":root"):
        doubts.append(f"The keys are those of the root user of account {found['account']}.")
    elif found["may"]:
        more = ", ".join(found["may"])
        doubts.append(f"The keys may do more than a server needs. AWS answered: {more}.")
    return doubts


def looking(settings: Settings, keys: Keys, python: str) -> Change:
    """Return the step that looks whose keys these are; they travel as a file."""
    files = requested("look_at_keys.py", keys=keys.profile(), region=settings.region or "")
    return Change("look whose the keys are", f'{python} "$here/look_at_keys.py"', files)
