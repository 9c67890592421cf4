"""What every start reads of fabric.yaml and the command line, as plain data.

Checking it is `settings`' matter: that needs pydantic, which takes longer to load than all else.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from invoke import Exit

if TYPE_CHECKING:
    from typing import Any

    import fabric

# What people call the server that stands in no `environments:`.
UNNAMED = "default"


def load_yaml(path: str) -> dict[str, Any]:
    """Read a configuration file; raises Exit that names file and line of a mistake."""
    import yaml

    try:
        with open(path) as stream:
            data = yaml.safe_load(stream)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise Exit(f"{path}{line} is not YAML: {reason}. Fix that line.") from None
    if not isinstance(data, dict | None):
        raise Exit(f"{path} holds no `key: value` lines at its top. Start from the one in git.")
    return data or {}


def configured(config: fabric.Config) -> dict[str, Any]:
    """Return fabric.yaml as plain data."""
    return {key: _plain(config.get(key)) for key in ("mlflow", "hosts")}


def _plain(value: Any) -> Any:
    """Turn Invoke's configuration proxies into plain data."""
    if hasattr(value, "keys"):
        return {key: _plain(value[key]) for key in value.keys()}  # noqa: SIM118 (a proxy, no dict)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def host_names(text: str) -> list[str]:
    """Split what -H was given."""
    return [name for name in re.split(r"[,\s]+", text) if name]


def nearest(word: str, known: Any) -> str:
    """Spell ', did you mean ...?' or nothing."""
    close = difflib.get_close_matches(word, [str(name) for name in known], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
