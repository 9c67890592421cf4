"""The task `test`: which commands it runs, in which environment, and what it says it did not."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from invoke import Context, Exit

from tasks import selftest as check
from tasks.engine import paths

LINT = ["ruff check .", "ruff format --check .", "mypy"]
UNIT = "pytest -m not e2e -n 3 --dist loadfile"
HOSTS = "pytest tests/e2e -m e2e -n 3 --dist loadscope"


class Runs:
    """Notes what would be run; fails what it is told to fail."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.options: list[dict[str, Any]] = []
        self.codes: dict[str, int] = {}

    def __call__(self, words: list[str], **options: Any) -> SimpleNamespace:
        assert words[:2] == [sys.executable, "-m"]
        command = " ".join(words[2:])
        self.commands.append(command)
        self.options.append(options)
        return SimpleNamespace(returncode=self.codes.get(command, 0))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(subprocess, "run", runs)
    monkeypatch.setattr(check, "_why_no_hosts", lambda: None)
    return runs


C = Context()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [*LINT, UNIT, HOSTS]),
        ({"unit": True}, [*LINT, UNIT]),
        ({"full": True}, [*LINT, f"{UNIT} --full", f"{HOSTS} --full"]),
        ({"keyword": "lock"}, [*LINT, f"{UNIT} -k lock", f"{HOSTS} -k lock"]),
        ({"unit": True, "keyword": "lock"}, [*LINT, f"{UNIT} -k lock"]),
    ],
)
def test_the_options_choose_what_runs(runs, options, wanted):
    check.test(C, **options)
    assert runs.commands == wanted


def test_where_no_host_can_run_the_last_line_says_so(runs, monkeypatch, capsys):
    monkeypatch.setattr(check, "_why_no_hosts", lambda: "It needs root.")
    check.test(C)
    assert runs.commands == [*LINT, UNIT]
    assert capsys.readouterr().err.splitlines()[-1] == (
        "The end-to-end part was not run: It needs root."
    )


def test_who_asks_for_the_quick_part_is_not_told_why(runs, monkeypatch, capsys):
    monkeypatch.setattr(check, "_why_no_hosts", lambda: "It needs root.")
    check.test(C, unit=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("failing", LINT)
def test_lint_and_types_come_first_and_end_it(runs, failing):
    runs.codes[failing] = 1
    with pytest.raises(Exit, match=f"{failing.split()[0]} found something"):
        check.test(C)
    assert runs.commands[-1] == failing


@pytest.mark.parametrize("failing", [UNIT, HOSTS])
def test_a_failing_test_is_exit_1_without_another_word(runs, failing):
    runs.codes[failing] = 1
    with pytest.raises(Exit) as caught:
        check.test(C)
    assert caught.value.code == 1
    assert not caught.value.message
    assert runs.commands[-1] == failing


def test_nothing_to_run_is_a_failure_unless_a_pattern_was_given(runs):
    runs.codes = {UNIT: 5, f"{UNIT} -k lock": 5}
    check.test(C, unit=True, keyword="lock")
    with pytest.raises(Exit):
        check.test(C, unit=True)


def test_nothing_of_the_operator_s_reaches_the_tests(runs, monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "FABRIC_HOSTS"):
        monkeypatch.setenv(name, "real")
    monkeypatch.setenv("KEPT", "yes")
    check.test(C, unit=True)
    for options in runs.options:
        assert "real" not in options["env"].values()
        assert options["env"]["KEPT"] == "yes"
        assert options["cwd"] == paths.PROJECT
