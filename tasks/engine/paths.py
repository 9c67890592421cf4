"""Where things live on the operator's machine.

Nothing here touches the disk: the module that writes a folder makes it, with the mode it needs.
"""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def state() -> Path:
    """Name the folder for what belongs to this clone: its rehearsal hosts, keys and sockets."""
    return PROJECT / ".state"


def rehearsal() -> Path:
    """Name the folder of this clone's rehearsal hosts."""
    return state() / "rehearsal"


def provisioned() -> Path:
    """Name the folder of the hosts in an AWS account that this clone made or took over."""
    return state() / "provisioned"


def ssh_configs() -> list[Path]:
    """Name the ssh configurations of this clone's own hosts that there are."""
    folders = (rehearsal(), provisioned())
    return [file for folder in folders if (file := folder / "ssh_config").is_file()]


def cache() -> Path:
    """Name the folder for what can be made again: base images of rehearsal hosts."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "remote-mlflow"


def config() -> Path:
    """Name the folder for the operator's copies of server logins."""
    return _xdg("XDG_CONFIG_HOME", ".config") / "remote-mlflow"


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The XDG base directory specification says to ignore a relative path.
    return Path(value) if os.path.isabs(value) else Path.home() / default


def shown(path: Path) -> str:
    """Spell a path the way its owner would type it."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
