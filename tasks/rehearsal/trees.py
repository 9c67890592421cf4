"""Folders that only one process at a time may change, and folders that must go, mounts and all."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def alone(folder: Path, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a folder for this process alone; wait for another one to let go of it.

    The lock is on the folder itself, so nothing is left behind, not even after a crash.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(held, folder, say)
            if _is_still(folder, held):
                yield
                return
        finally:
            os.close(held)


def clear(tree: Path) -> None:
    """Delete a tree, after whatever is mounted inside has been unmounted."""
    for mount in mounted_in(tree, mountinfo()):
        subprocess.run(["umount", "--lazy", str(mount)], check=True)
    if tree.exists():
        try:
            shutil.rmtree(tree)
        except PermissionError:  # root is refused only what chattr(1) has made immutable
            subprocess.run(["chattr", "-R", "-f", "-i", "-a", str(tree)], check=False)
            shutil.rmtree(tree)


def mountinfo() -> str:
    """Read the mounts that this process sees."""
    return Path("/proc/self/mountinfo").read_text()


def mounted_in(tree: Path, mounts: str) -> list[Path]:
    """List the mount points at or under a folder, deepest first."""
    points = [Path(point) for point, _ in _mounts(mounts)]
    return sorted((point for point in points if point.is_relative_to(tree)), reverse=True)


def filesystem(path: Path, mounts: str) -> str:
    """Name the type of the file system that a path lies on."""
    holding = [(Path(p), kind) for p, kind in _mounts(mounts) if path.is_relative_to(p)]
    # The last of several mounts on one point is the one that is seen: sort is stable.
    return sorted(holding, key=lambda mount: len(mount[0].parts))[-1][1] if holding else ""


def room(path: Path) -> int:
    """Count the free bytes where a path is, or is going to be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _mounts(text: str) -> list[tuple[str, str]]:
    # proc(5): the fifth word is the mount point, the first after " - " the file system's type.
    halves = [line.partition(" - ")[::2] for line in text.splitlines()]
    return [(_unescaped(left.split()[4]), right.split()[0]) for left, right in halves]


def _unescaped(word: str) -> str:
    for escape, character in (
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ):
        word = word.replace(escape, character)
    return word


def _lock(held: int, folder: Path, say: Callable[[str], None] | None) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if say:
            say(f"waiting for another process that works in {folder}")
        fcntl.flock(held, fcntl.LOCK_EX)


def _is_still(folder: Path, held: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(held))
    except FileNotFoundError:
        return False
