"""The words that a switch of a server's whole state is written with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.templates import source, staged

if TYPE_CHECKING:
    from tasks.engine.facts import Facts


def switching(several: bool = False) -> str:
    """Spell the words that a switch of the state is written with.

    Where `several` hosts serve, balancers send nothing here meanwhile.
    """
    names = ("health", "stream", "tidy", "drain" if several else "alone", "switch")
    return "".join(source(f"{name}.sh") for name in names)


def databases_beside(facts: Facts) -> dict[str, str | bytes]:
    """Return what makes and drops databases beside those of a server on PostgreSQL."""
    return staged("beside.py") if facts.database == "postgresql" else {}
