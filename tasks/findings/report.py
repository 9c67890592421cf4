"""report: see the move list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.console import console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.findings.case import Finding


def verdict(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say why the exit code is 1, or None where nothing but notes was found."""
    problems = [row for row in rows if row["severity"] == "problem"]
    if not problems:
        return None
    first = problems[0]
    number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{number}: {first['what']} {_next(first)}"


def _next(row: Mapping[str, Any]) -> str:
    return f"Type: {row['type'][0]}" if row["type"] else str(row["remedy"])


def tell_findings(host: str, found: Sequence[Finding]) -> None:
    """Print each with how it was seen and what to do."""
    for finding in found:
        mark, style = ("✗", "red") if finding.severity == "problem" else ("·", "yellow")
        console.say(f"{mark} {finding.what}", host, style)
        console.say(f"    seen: {finding.seen}", host)
        if finding.remedy:
            console.say(f"    {finding.remedy}", host)
        for command in finding.type:
            console.say(f"    type: {command}", host)
