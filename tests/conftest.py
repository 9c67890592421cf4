"""A world of its own for every test: no home, no keys, no hosts of the developer's."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_ins import Network

from tasks import paths
from tasks.console import console

OPERATORS = ("AWS_", "MLFLOW_", "FABRIC_", "XDG_", "BOTO_")


numbers = itertools.count(1)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the home folders lie: `tmp_path` would cost every test ten times as much."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(scope="session")
def sockets() -> Iterator[Path]:
    """Where the runtime folders lie: a socket's path must be short."""
    folder = Path(tempfile.mkdtemp(prefix="a run ", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def home(
    request: pytest.FixtureRequest, homes: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Take everything of the developer's out of reach; return the home folder instead."""
    if request.node.get_closest_marker("e2e"):
        return Path.home()  # its hosts and caches are real
    for name in os.environ:
        if name.startswith(OPERATORS) or name in ("SSH_AUTH_SOCK", "NO_COLOR"):
            monkeypatch.delenv(name)
    number = next(numbers)
    name = f"{number} home"
    home = homes / name
    home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets / str(number)))
    # boto3 would look for an instance's role on the network.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    state = homes / f"{name}-state"
    monkeypatch.setattr(paths, "state", lambda: state)
    monkeypatch.setattr(console, "tagged", False)
    monkeypatch.setattr(console, "quiet_stdout", False)
    monkeypatch.setattr(console, "_secrets", set())
    return home


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """SSH servers on loopback; the folder of their configuration has a space in its name."""
    network = Network(tmp_path / "a network")
    yield network
    network.close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Somebody who answers: put the answers in this list; what is left was not asked for."""
    answers: list[str] = []
    asked: list[str] = []

    def answer(question: str = "") -> str:
        asked.append(question)
        if not answers:
            raise AssertionError(f"nobody expected to be asked {question!r}")
        return answers.pop(0)

    for module in ("console", "connection", "credentials", "sandbox", "users"):
        monkeypatch.setattr(f"tasks.{module}.interactive", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("tasks.credentials.getpass", answer)
    yield answers
    assert not answers, f"asked only {asked}"


@pytest.fixture(autouse=True)
def _nobody(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `terminal` nobody is there, wherever the tests are started from."""
    if "terminal" in request.fixturenames or request.node.get_closest_marker("e2e"):
        return
    for module in ("console", "connection", "credentials", "sandbox", "users"):
        monkeypatch.setattr(f"tasks.{module}.interactive", lambda: False)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what the imports left: boto3 and moto are a million objects."""
    gc.freeze()
