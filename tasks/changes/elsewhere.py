"""Files of runs at a place in the bucket that the server no longer uses.

MLflow keeps where a file is below the artifacts' place, not the place itself: where the settings
come to name another `bucket`, `prefix` or `endpoint_url`, former runs' files are found no more.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import owner
from tasks.changes.surroundings import aws_profile_script, place
from tasks.engine.change import Change
from tasks.engine.records import dataclass
from tasks.engine.shell import sh
from tasks.engine.tables import counted, size_text
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.engine.facts import Facts
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings

PLACE = re.compile(r"s3://[a-z0-9.-]+/[^\s|]+ at [^\s|]+")

COUNT_TIMEOUT = 600  # seconds; a bucket with a million files is a thousand pages twice


@dataclass(frozen=True)
class Left:
    """What lies at one former place and is missing at the present one."""

    place: str
    files: int
    bytes: int
    runs: int

    def __str__(self) -> str:
        """Spell it for people."""
        have = "has" if self.runs == 1 else "have"
        whose = f"{counted(self.runs, 'run')} {have} " if self.runs else ""
        what = f"{counted(self.files, 'file')} ({size_text(self.bytes)})"
        return f"{whose}{what} under {spelt(self.place)}"


def spelt(place: str) -> str:
    """Spell a place for people, who know of no other store than AWS unless they use one."""
    return place.removesuffix(" at AWS").replace(" at ", "/ at ")


def former(settings: Settings, facts: Facts) -> list[str]:
    """Return the places where files may have been left: noted ones, and the one until now."""
    noted = (facts.elsewhere or "").split("|")
    found = [text for text in dict.fromkeys([*noted, until_now(facts)]) if PLACE.fullmatch(text)]
    return [text for text in found if text != owner.place_text(settings)]


def until_now(facts: Facts) -> str:
    """Return the place that the server marked, and so uses; empty where it marked none."""
    return (facts.owned or "").partition(" ")[2]


def is_changing(settings: Settings, facts: Facts) -> bool:
    """Tell whether the settings name another place than the one that the server uses."""
    return until_now(facts) in former(settings, facts)


def refuse_changing(settings: Settings, facts: Facts) -> None:
    """Raise Exit where the settings name another place: deploy alone looks what that would lose."""
    if is_changing(settings, facts):
        raise Exit(
            f"The settings name {spelt(owner.place_text(settings))} for artifacts, and the server "
            f"uses {spelt(until_now(facts))}. Put that back into fabric.yaml, or "
            "first type: ./fab deploy"
        )


def left(server: Server, leave: bool = False) -> list[Left]:
    """Look what lies at the former places, and is missing at the present one; one exec.

    Raises Exit where a place cannot be looked at, but for one that is to be left anyway.
    """
    places = former(server.settings, server.facts)
    step = moving(server.settings, places, "leave" if leave else "count")
    reports = server.look("deploy", [step], timeout=COUNT_TIMEOUT)
    found = [Left(**json.loads(report)) for report in reports]
    return [each for each in found if each.files]


def refuse_left(settings: Settings, found: Sequence[Left]) -> None:
    """Raise Exit where files would be found no more."""
    if found:
        raise Exit(
            f"{'; '.join(map(str, found))}, and the settings name "
            f"{spelt(owner.place_text(settings))}: MLflow would no longer find them. Copy them "
            "there: ./fab deploy --move-artifacts. Leave them: ./fab deploy --leave-artifacts. Or "
            "put the former place back into fabric.yaml."
        )


def noting(places: Sequence[str]) -> Change:
    """Build the step that notes on the host where files were left, until they are copied."""
    script = f'printf "%s\\n" {sh("|".join(places))} > "$root/.elsewhere"'
    return Change("note where files were left", script, announce=False)


def moving(settings: Settings, places: Sequence[str], action: str) -> Change:
    """Build the step that runs files/host/deploy/move_artifacts.py with one of its actions."""
    program = f'{owner.PYTHON} "$here/move_artifacts.py" root="$root"'
    script = f"{aws_profile_script(settings)}\n{program}"
    files = requested(
        "move_artifacts.py", place=place(settings), action=action, former=list(places)
    )
    what = f"copy what is missing under {spelt(owner.place_text(settings))}"
    return Change(what, script, files, announce=False)
