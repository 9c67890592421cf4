"""Somebody has decided, for every field of every release, whether it is a place."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tasks.engine.templates import FILES

HERE = Path(__file__).parent
LOCKS = sorted(path.stem for path in (FILES / "releases").glob("*.txt"))
NOT_A_PLACE = "[not a place]"


def decided() -> list[str]:
    return (HERE / "decided.txt").read_text().splitlines()


def fields(python: Path | str) -> list[str]:
    """Return what the release of an environment lets clients fill."""
    whole = [str(python), str(HERE / "real.py"), "fields"]
    done = subprocess.run(whole, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def undecided(found: list[str]) -> list[str]:
    return sorted(set(found) - set(decided()))


def test_the_list_was_looked_at_for_every_lock() -> None:
    assert f"releases: {' '.join(LOCKS)}" in decided()


def test_nothing_is_decided_twice() -> None:
    lines = [line for line in decided() if line and not line.startswith(("#", "["))]
    assert len(lines) == len(set(lines))


@pytest.mark.timeout(240)
def test_every_field_of_the_newest_release_is_decided() -> None:
    assert version("mlflow") in LOCKS
    found = fields(sys.executable)
    assert len(found) > 1000
    assert undecided(found) == []


@pytest.mark.e2e
@pytest.mark.timeout(900)
@pytest.mark.parametrize("release", LOCKS)
def test_every_field_of_a_release_is_decided(release: str, tmp_path: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    python = tmp_path / "venv/bin/python"
    lock = FILES / f"releases/{release}.txt"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "-r", lock], check=True)
    assert undecided(fields(python)) == []
