"""Fetch what a host without a network needs, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.engine.console import console
from tasks.engine.locks import target
from tasks.engine.paths import shown
from tasks.engine.shell import sh
from tasks.engine.task import local
from tasks.engine.typed import here

if TYPE_CHECKING:
    from tasks.engine.task import Local


@local(
    help={
        "to": "the folder (default: wheelhouse)",
        "python": "the host's Python: 3.10 to 3.13 (default: 3.12, Ubuntu 24.04's)",
        "platform": "the host's machine: x86_64 or aarch64",
    }
)
def wheelhouse(
    c: Local, to: str = "wheelhouse", python: str = "3.12", platform: str = "x86_64"
) -> None:
    """Fetch the wheels for a host without internet.

    All that `install --from-wheelhouse` and `backup.stream` need of the package index, for the
    configured MLflow release, each compared with the lock's hash: MLflow and its packages, uv, the
    AWS CLI, Litestream. Files that are there already are kept. Debian's packages are not in it.

    Example: fab wheelhouse --to wheelhouse --python 3.12
    """
    from tasks.changes.releases import release_of
    from tasks.changes.wheelhouse import locks
    from tasks.laptop.wheelhouses import Wheelhouse, fetch

    settings, _ = c.place()
    folder, host = Path(to).expanduser().absolute(), target(python, platform)
    console.say(f"fetch MLflow {settings.version} and tools for {host}")
    wanted = Wheelhouse(folder, release_of(settings), host, {}, settings.environment)
    made = fetch(wanted, locks(settings))
    size = sum((folder / name).stat().st_size for name in made.digests)
    console.say(
        f"✓ {len(made.digests)} wheels ({size / 1e6:.0f} MB) in {shown(folder)}", style="green"
    )
    console.say(f"Next: {here(settings.environment, 'install', '--from-wheelhouse', sh(to))}")
