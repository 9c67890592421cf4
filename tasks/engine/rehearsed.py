"""What rehearsal hosts of this clone are told instead of the operator's own settings.

Written by `sandbox.up`, so that whatever is typed at a rehearsal host, no real bucket, key or
password is ever used there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tasks.engine import paths
from tasks.engine.records import dataclass
from tasks.engine.settings import checked

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.engine.settings import Settings

# What an environment is on a rehearsal host too.
OPERATORS = ("environment", "root", "port", "local_port", "version", "workers", "confirm")


@dataclass(frozen=True)
class Rehearsed:
    """Settings and standard variables (AWS_*, MLFLOW_*) for one rehearsal host."""

    settings: Settings
    variables: dict[str, str]

    def as_environment(self, settings: Settings) -> Settings:
        """Return what the host is told of an environment: the operator's, without the bucket."""
        if settings.environment is None:
            return self.settings
        own = {key: getattr(settings, key) for key in OPERATORS}
        prefix = f"{self.settings.artifact_prefix}-{settings.environment}"
        return self.settings.model_copy(update={**own, "prefix": prefix})


def rehearsed(machine: str) -> Rehearsed | None:
    """Return what a rehearsal host is told, or None for a machine that is none of this clone's.

    Machines are known by their names: the alias `sandbox` means another one in another clone.
    """
    try:
        hosts = json.loads(_file().read_text())
    except FileNotFoundError:
        return None
    if machine not in hosts:
        return None
    return Rehearsed(checked(hosts[machine]["settings"]), dict(hosts[machine]["variables"]))


def remember(hosts: dict[str, dict[str, dict[str, str]]]) -> None:
    """Write down what each rehearsal host is told."""
    _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _file().write_text(json.dumps(hosts, indent=2) + "\n")


def forget() -> None:
    """Forget them all."""
    _file().unlink(missing_ok=True)


def _file() -> Path:
    return paths.state() / "rehearsed.json"
