"""Hosts that the operator's ssh configuration names: what `-H` can be given, as far as it says."""

from __future__ import annotations

import glob
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.engine import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEPEST = 16  # files that include each other, as in OpenSSH's readconf.c

# The keyword and what follows it, with blanks or a = between them: ssh_config(5).
LINE = re.compile(r"\s*(host|include)(?:\s*=\s*|\s+)(.*)", re.I)


def known_hosts_of(config_file: str | None = None) -> list[str]:
    """List the aliases of this clone's own hosts and of the operator's configuration, each once.

    `config_file` is what -S names instead of ~/.ssh/config. Patterns are no aliases.
    """
    theirs = Path(config_file).expanduser() if config_file else Path.home() / ".ssh/config"
    files = [*paths.ssh_configs(), theirs]
    return list(dict.fromkeys(alias for file in files for alias in _aliases(file)))


def _aliases(file: Path, depth: int = 0) -> Iterator[str]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        if found := LINE.fullmatch(line):
            words = _words(found[2])
            if found[1].lower() == "host":
                yield from (word for word in words if not set(word) & set("*?!"))
            elif depth < DEEPEST:
                for included in _included(words):
                    yield from _aliases(included, depth + 1)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:  # a quotation mark without its pair
        return []


def _included(patterns: list[str]) -> Iterator[Path]:
    """Name the files of an Include: those without a path lie in ~/.ssh."""
    for pattern in patterns:
        path = Path(pattern).expanduser()
        whole = path if path.is_absolute() else Path.home() / ".ssh" / path
        yield from map(Path, sorted(glob.glob(str(whole))))
