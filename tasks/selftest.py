"""Check this project itself: lint, types, unit tests, then the promises on rehearsal hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import paths
from tasks.engine.console import console
from tasks.engine.task import local

if TYPE_CHECKING:
    from invoke import Context

# What the tests must not see of the operator's: no real key and no real bucket is ever touched.
OPERATORS = ("AWS_", "MLFLOW_", "FABRIC_")

# Three on two cores: a test waits for disks and hosts as much as it computes.
SIDE_BY_SIDE = ("-n", "3")


@local(
    help={
        "unit": "only the quick part: no root, no network, no hosts",
        "full": "all counts of the costly promises, not a sample",
        "keyword": "only tests whose names match (pytest's -k)",
    }
)
def test(c: Context, unit: bool = False, full: bool = False, keyword: str | None = None) -> None:
    """Check this project: ruff, mypy, unit and end-to-end.

    The end-to-end part boots rehearsal hosts, which needs root on Linux; without, the last line
    says that it was not run.

    Example: fab test --unit
    """
    _run("ruff", "check", ".")
    _run("ruff", "format", "--check", ".")
    _run("mypy")
    chosen = ["-k", keyword] if keyword else []
    # With a pattern it is right that one of the two halves has nothing to run.
    empty = (5,) if keyword else ()
    scope = ["--full"] if full else []
    why_not = None if unit else _why_no_hosts()
    # A file's tests share what is dear to make, MLflow's import above all.
    _pytest("-m", "not e2e", *SIDE_BY_SIDE, "--dist", "loadfile", *scope, *chosen, allowed=empty)
    if why_not:
        console.warn(f"The end-to-end part was not run: {why_not}")
    if unit or why_not:
        return
    words = ["tests/e2e", "-m", "e2e", *SIDE_BY_SIDE, "--dist", "loadscope"]
    _pytest(*words, *scope, *chosen, allowed=empty)


def _why_no_hosts() -> str | None:
    from tasks.rehearsal import ours

    return ours().why_not()


def _run(*words: str) -> None:
    console.say(f"… {' '.join(words)}")
    # Beside this Python, not what PATH may name: plain `fab` has no activated environment.
    if subprocess.run(
        [sys.executable, "-m", *words], cwd=paths.PROJECT, env=_clean(), check=False
    ).returncode:
        raise Exit(f"{words[0]} found something; it stands above.")


def _pytest(*words: str, allowed: tuple[int, ...] = ()) -> None:
    console.say(f"… pytest {' '.join(words)}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=paths.PROJECT, env=_clean(), check=False
    )
    if done.returncode not in (0, *allowed):
        raise Exit(code=1)


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OPERATORS)}
