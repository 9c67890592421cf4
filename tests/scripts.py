"""What tasks send to hosts, looked through for variables that nothing sets.

On the host a script ends where it reads one; that of a task that was never run whole would only be
seen there.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

from tasks.engine.templates import programs, source

# Kept as it is: a test may have what a task starts played, and this is no task.
POPEN = Popen
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
UNSET = "SC2154"  # "… is referenced but not assigned"
PARTS = {name: source(name) for name in programs() if name.endswith(".sh")}
RUN_TOGETHER = ("variables.sh", "words.sh", "settle.sh", "change.sh", "look.sh", "steps.sh")
_seen: set[frozenset[str]] = set()


def look_through(bundle: bytes, seen: Path) -> None:
    """Assert that what a bundle runs sets all that it reads; the same parts are seen once.

    `seen` is a folder that outlives the run: it holds a file for every script that was in order.
    """
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        names = [name for name in RUN_TOGETHER if name in archive.getnames()]
        script = "\n".join(archive.extractfile(name).read().decode() for name in names)  # type: ignore[union-attr]
    made_of = frozenset(name for name, text in PARTS.items() if text.strip() in script)
    if made_of in _seen:
        return
    _seen.add(made_of)
    known = seen / hashlib.sha256(script.encode()).hexdigest()
    if known.exists():
        return
    words = [SHELLCHECK, "--shell=bash", f"--include={UNSET}", "--format=gcc", "-"]
    with POPEN(words, stdin=PIPE, stdout=PIPE, stderr=STDOUT, text=True) as process:
        said, _ = process.communicate(script)
    assert process.returncode == 0, said
    known.touch()
