"""Names of users and models as tasks saw them last: what TAB offers, without a look at any host.

One small file a server and kind, one name a line, in the folder for what can be made again.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from tasks.engine import paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

USERS, MODELS = "users", "models"

MOST = 500  # names; more are no help behind TAB

# What a shell takes as one word as it stands. Names are others' to choose.
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,199}")


def note(kind: str, host: str, label: str, names: Iterable[str]) -> None:
    """Write down the names of a server; where that cannot be, TAB offers none."""
    plain = sorted({name for name in names if PLAIN.fullmatch(name)})[:MOST]
    with contextlib.suppress(OSError):
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _file(kind, host, label).write_text("".join(f"{name}\n" for name in plain))


def known(kind: str, hosts: Sequence[str] = ()) -> list[str]:
    """List the names that were seen on these hosts, or on any; empty where none were."""
    found: set[str] = set()
    with contextlib.suppress(OSError, ValueError):
        for host in hosts or ["*"]:
            for file in _folder().glob(f"{_spelt(host)}+*.{kind}"):
                found.update(filter(PLAIN.fullmatch, file.read_text().splitlines()[:MOST]))
    return sorted(found)


def _folder() -> Path:
    return paths.cache() / "seen"


def _file(kind: str, host: str, label: str) -> Path:
    return _folder() / f"{_spelt(host)}+{label}.{kind}"


def _spelt(host: str) -> str:
    return re.sub(r"[^A-Za-z0-9.@*-]", "_", host)
