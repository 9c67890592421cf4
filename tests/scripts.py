"""What tasks send to hosts, looked through for variables that nothing sets.

On the host a script ends where it reads one; that of a task that was never run whole would only be
seen there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tasks import paths
from tasks.server import Change

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
UNSET = "SC2154"  # "… is referenced but not assigned"
PARTS = {path.name: path.read_text() for path in (paths.FILES / "host").glob("*.sh")}
_seen: set[tuple[str, frozenset[str]]] = set()


def look_through(changes: Sequence[Change], runner: str) -> None:
    """Assert that changes set all that they read; scripts of the same parts are looked at once."""
    steps = "\n".join(change.script for change in changes)
    made_of = frozenset(name for name, text in PARTS.items() if text.strip() in steps)
    if (runner, made_of) in _seen:
        return
    _seen.add((runner, made_of))
    script = "\n".join((PARTS["words.sh"], PARTS["settle.sh"], PARTS[runner], steps))
    words = [SHELLCHECK, "--shell=bash", f"--include={UNSET}", "--format=gcc", "-"]
    done = subprocess.run(words, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
