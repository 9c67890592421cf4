"""journalctl, as root."""

import re

from tasks.commands import option, sh


def log(
    unit: str,
    lines: int | None = None,
    since: str | None = None,
    grep: str | None = None,
    follow: bool = False,
) -> str:
    """Print a unit's log; `since` takes 1h or 30min as well as what journalctl takes."""
    return sh(
        "journalctl", "--no-pager", "-o", "short-iso", "-u", unit,
        option("--lines", lines),
        option("--since", ago(since) if since else None),
        option("--grep", grep),
        "--follow" if follow else None,
    )  # fmt: skip


def ago(since: str) -> str:
    """Spell a bare duration as journalctl wants it: 1h is -1h."""
    return f"-{since}" if re.fullmatch(r"\d+ ?(s|sec|m|min|h|d|w)\w*", since) else since
