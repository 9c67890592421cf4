"""What every start reads of fabric.yaml and the command line, as plain data.

Checking it is `settings`' matter: that needs pydantic, which takes longer to load than all else.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import fabric

# What people call the server that stands in no `environments:`.
UNNAMED = "default"


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
    close = closest(word, map(str, known), 0.5)
    return f" (did you mean {close!r}?)" if close else ""


def closest(word: str, known: Iterable[str], cutoff: float) -> str | None:
    """Return what a misspelt word is most like, by difflib's ratio; None below `cutoff`.

    Of two that are as like, the one with the same letters: `prot` is `port` rather than `root`.
    """
    scores = {name: alike(word, name) for name in known}
    best = max(scores, key=lambda name: scores[name], default=None)
    return best if best is not None and scores[best] >= cutoff else None


def alike(word: str, other: str) -> float:
    """Return how like two words are: 1 where they are the same."""
    ratio = difflib.SequenceMatcher(None, word.lower(), other.lower()).ratio()
    transposed = word != other and sorted(word.lower()) == sorted(other.lower())
    return max(ratio, 0.95) if transposed else ratio
