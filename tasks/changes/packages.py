"""Packages of apt, and small Python environments of our own on a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.change import Change, digest
from tasks.engine.facts import PACKAGES, POSTGRES_CLIENT
from tasks.engine.shell import sh
from tasks.engine.templates import read, source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.engine.facts import Facts


def lacking(facts: Facts, postgres: bool) -> list[str]:
    """Name the packages that the host lacks."""
    wanted = [*PACKAGES, *([POSTGRES_CLIENT] if postgres else [])]
    return [name for name in wanted if name not in facts.packages]


def packages(facts: Facts, postgres: bool) -> list[Change]:
    """Build what installs the packages that the host lacks."""
    return installing(lacking(facts, postgres), [])


def installing(missing: list[str], beside: Sequence[Change]) -> list[Change]:
    """Build what installs packages, and what is done while apt is at work.

    That needs nothing of the packages but a Python, and a pip that fetches uv.
    """
    if not missing:
        return list(beside)
    what = [f"install with apt: {', '.join(missing)}", *(each.what for each in beside)]
    first = [FIRST[name] for name in missing if name in FIRST]
    words = f"packages={sh(' '.join(missing))} first={sh(' '.join(first))}\n"
    if beside:
        words += "\n".join(("beside() {", *(each.script for each in beside), "}\n"))
    files = {name: text for each in beside for name, text in each.files.items()}
    script = words + source("install_packages.sh")
    usual = "20 s to 2 min" if beside else "45 to 80 s"
    return [Change("; ".join(what), script, files, usual=usual)]


# What environments need, and the package that it is in; those with pip of their own need more.
FIRST = {
    "python3": "python3",
    "python3-venv": "python3-pip-whl",
    "ca-certificates": "ca-certificates",
}

# The guide's own commands find it where the host has no other.
LINK = (
    "if ! command -v aws > /dev/null; then "
    'as_root ln -sfn "$root/tools/bin/aws" /usr/local/bin/aws; fi'
)


def wheels(sent: bool = False) -> str:
    """Spell the words that install locked wheels; `sent` says that no others may be used."""
    return f"sent={'yes' if sent else 'no'}\n{source('wheels.sh')}"


def environment(name: str, what: str, then: str = "", sent: bool = False) -> Change:
    """Build the change that makes a small environment from files/<name>.txt; see `wheels`."""
    lock = read(f"{name}.txt")
    words = f"{wheels(sent)}folder={name} digest={digest(lock)}"
    script = f"{words}\n{source('install_tools.sh')}{then}"
    return Change(what, script, {f"{name}.txt": lock}, usual="10 to 30 s")
