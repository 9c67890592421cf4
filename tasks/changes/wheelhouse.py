"""What an installation from wheels that were sent needs of a host, and of the wheels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.packages import lacking
from tasks.changes.releases import lock_of
from tasks.engine.change import Change
from tasks.engine.templates import read, source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings


def locks(settings: Settings) -> list[str]:
    """Return the locks of all that a host may want; raises Exit for a release without one."""
    return [read("tools.txt"), lock_of(settings), read("stream.txt")]


def refuse_packages(facts: Facts, postgres: bool) -> None:
    """Raise Exit where the host lacks packages, which no wheelhouse holds."""
    if missing := lacking(facts, postgres):
        raise Exit(
            "The host lacks packages of its system, which no wheelhouse holds. Install them there "
            "from an archive that it reaches: sudo apt-get install --no-install-recommends "
            f"{' '.join(missing)}"
        )


def checking(digests: Mapping[str, str]) -> Change:
    """Build the change that looks through what was sent, and forgets what other ones were."""
    sums = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    return Change(
        "check the wheels that were sent", source("check_wheels.sh"), {"SHA256SUMS": sums}
    )
