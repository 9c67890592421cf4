"""The map is that of the code, and its worked example works."""

from __future__ import annotations

import subprocess
import sys

import pytest
from contributing import carry_out
from draw_house import COMMAND, PICTURE, picture


def test_the_picture_is_that_of_the_code():
    assert PICTURE.read_text() == picture(), f"the house has changed; type: {COMMAND}"


@pytest.mark.timeout(240)
def test_the_worked_example_is_a_task_in_good_order(tmp_path):
    copy = tmp_path / "copy"
    added = carry_out(copy)
    assert len(added) == 4, "three small files and their test"

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=copy, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert " hello  " in run("fabric", "--list")
    run("ruff", "check", *added)
    run("ruff", "format", "--check", *added)
    run("mypy", "tasks/hello.py", "tasks/changes/hello.py")
    run("tests.draw_house")
    tests = ("test_hello.py", "test_documentation.py", "test_house.py")
    run("pytest", "-n", "0", "-k", "not worked_example", *(f"tests/{name}" for name in tests))
