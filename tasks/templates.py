"""Render the files that land on the host: strict, and without logic."""

from pathlib import Path
from typing import Any

from tasks.paths import FILES


def render(name: str, **values: Any) -> str:
    """Fill in `files/<name>`; a value that is missing, or given and not used, is an error."""
    from jinja2 import Environment, StrictUndefined, meta

    source = read(name)
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    unused = values.keys() - meta.find_undeclared_variables(environment.parse(source))
    if unused:
        raise ValueError(f"files/{name} does not use {', '.join(sorted(unused))}")
    return environment.from_string(source).render(values)


def read(name: str) -> str:
    """Read `files/<name>` as it is."""
    return Path(FILES, name).read_text()
