"""Render the files that land on the host: strict, and without logic."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

FILES = Path(__file__).resolve().parents[2] / "files"


def render(name: str, **values: Any) -> str:
    """Fill in `files/<name>`; a value that is missing, or given and not used, is an error."""
    template, wanted = _compiled(read(name))
    if unused := values.keys() - wanted:
        raise ValueError(f"files/{name} does not use {', '.join(sorted(unused))}")
    return str(template.render(values))


def confined(root: str, home: str) -> str:
    """Spell what confines a unit of ours: all but its folder, the network and AWS's files."""
    return render("confined.conf", root=root, home=home).rstrip("\n")


@cache
def _compiled(source: str) -> tuple[Any, set[str]]:
    """Compile a template once for all hosts; return it with the names that it uses."""
    from jinja2 import Environment, StrictUndefined, meta

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    wanted = meta.find_undeclared_variables(environment.parse(source))
    return environment.from_string(source), wanted


def read(name: str) -> str:
    """Read `files/<name>` as it is."""
    return Path(FILES, name).read_text()
