"""One change of a host, and how changes travel: as a tar on standard input."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import field
from typing import TYPE_CHECKING

from tasks.engine.records import dataclass
from tasks.engine.shell import sh
from tasks.engine.templates import source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def digest(text: str) -> str:
    """Return eight characters that change with a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Change:
    """One difference to mend: a sentence for people, a script for the host, files beside it.

    The script is bash with the helpers of files/host/engine/words.sh (`say`, `fail`, `as_root`,
    `place`); staged files lie in "$here".
    """

    what: str
    script: str
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    announce: bool = True  # False where the script itself says each thing as it does it
    usual: str = ""  # how long it usually takes, where that is long

    @property
    def sentences(self) -> list[str]:
        """Split what is done at once into what people read one by one."""
        return self.what.split("; ")


def said(change: Change) -> list[str]:
    """Return what is said before a change is made; of a long one, how long it usually takes."""
    *rest, last = change.sentences
    return [*rest, f"{last} (usually {change.usual})" if change.usual else last]


def bundle(changes: Sequence[Change], runner: str = "change.sh") -> bytes:
    """Pack the steps, their files and what runs them into a tar for the host's standard input.

    Returns the tar's bytes. Raises ValueError where two changes have different files of one name.
    """
    # What only reads has nothing to announce.
    aloud = runner == "change.sh"
    steps = "\n".join(
        "\n".join(
            [
                *(f"say {sh(line)}" for line in said(change) if change.announce and aloud),
                change.script,
            ]
        )
        for change in changes
    )
    files: dict[str, str | bytes] = {
        "words.sh": source("words.sh"),
        "variables.sh": source("variables.sh"),
        runner: source(runner),
        "steps.sh": steps + "\n",
    }
    if aloud:
        files["settle.sh"] = source("settle.sh")
    for change in changes:
        for name, content in change.files.items():
            if files.setdefault(name, content) != content:
                raise ValueError(f"two changes of one bundle stage different files as {name}")
    return packed(files)


def packed(files: Mapping[str, str | bytes]) -> bytes:
    """Return a tar of files by their paths in it; the same files are always the same bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
