"""A world of its own for every test: no home, no keys, no hosts of the developer's."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import sys
import tempfile
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scripts import look_through
from stand_ins import Network

from tasks.engine import change, paths, server
from tasks.engine.console import console

if TYPE_CHECKING:
    from host_side import Machine
    from store_side import Store
    from switch_side import Place

# Workers and the programs that tests start import thousands of modules: compiled once, not each
# time, even where the developer's shell says otherwise.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

OPERATORS = ("AWS_", "MLFLOW_", "FABRIC_", "XDG_", "BOTO_")

# What is no line of text to whoever asks.
TYPED = {"Ctrl-D": EOFError, "Ctrl-C": KeyboardInterrupt}

# Who asks whether somebody is there.
ASKING = (
    "engine.console", "engine.connection", "engine.credentials", "restore", "sandbox", "users",
    "init",
)  # fmt: skip

PARTS = 3  # of the tests and cases that are sampled, one a day

numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="store_true",
        help="write tests/changes/golden anew, for git diff to show",
    )
    parser.addoption(
        "--full", action="store_true", help="all counts of the costly promises, not a sample"
    )
    parser.addoption(
        "--third",
        type=int,
        choices=range(PARTS),
        default=date.today().toordinal() % PARTS,
        help="which third of the sampled tests; by default another one each day",
    )


@pytest.fixture
def third(request: pytest.FixtureRequest) -> int | None:
    """Tell which third of a sampled test's cases is wanted; all of them when None."""
    options = request.config.option
    return None if options.full else int(options.third)


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
    monkeypatch.setattr(console, "chosen", False)
    monkeypatch.setattr(console, "ssh_options", "")
    monkeypatch.setattr(console, "_secrets", set())
    return home


@pytest.fixture(autouse=True)
def _looked_through(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look through every script that a task would send."""
    if request.node.get_closest_marker("e2e"):
        return  # there they run
    packed, seen = change.bundle, request.config.cache.mkdir("looked-through")

    def bundle(changes: Sequence[change.Change], runner: str = "change.sh") -> bytes:
        sent = packed(changes, runner)
        look_through(sent, seen)
        return sent

    monkeypatch.setattr(server, "bundle", bundle)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """SSH servers on loopback; the folder of their configuration has a space in its name."""
    network = Network(tmp_path / "a network")
    yield network
    network.close()


# -- the host's side: what it needs is imported where it is used, for it takes a second ------------


@pytest.fixture
def machine(home: Path, tmp_path: Path) -> Machine:
    """A home folder where changes arrive as on a host."""
    from host_side import Machine

    return Machine(home, tmp_path / "machine")


@pytest.fixture
def place(machine: Machine) -> Place:
    """A server's folder whose files say which state they belong to."""
    from switch_side import Place

    return Place(machine.root, machine).make()


@pytest.fixture(scope="session")
def shared_store() -> Iterator[Store]:
    from store_side import Store, session

    store = Store()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("boto3.Session", "boto3.session.Session"):
            patch.setattr(name, session)
        yield store
    store.close()


@pytest.fixture
def store(shared_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket, and keys that it takes."""
    shared_store.reset()
    shared_store.client().create_bucket(Bucket="my-bucket")
    shared_store.requests.clear()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "toy")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "toy")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    return shared_store


@pytest.fixture
def root(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server's folder with both databases, as MLflow leaves them."""
    from host_side import serverfolder

    root = serverfolder(home / "mlflow-server")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{root}/mlflow.db")
    return root


@pytest.fixture
def backup_key(homes: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the host a backup key, as a script lays it for its programs; return its text."""
    from host_side import KEY

    file = homes / "backup.key"
    file.write_text(KEY)
    monkeypatch.setenv("REMOTE_MLFLOW_BACKUP_KEY_FILE", str(file))
    return KEY


@pytest.fixture
def run_program(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run one of the host's programs in this process; returns its exit code and output."""
    from host_side import program

    return lambda name, /, *arguments, **options: program(
        capsys, name, *map(str, arguments), **options
    )


@pytest.fixture
def back_up(
    store: Store, root: Path, run_program: Any, backup_key: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[int, str]]:
    """Make a backup of that folder in that bucket."""
    from host_side import place_in

    # It would make the rest of the tests wait.
    monkeypatch.setattr(os, "nice", lambda more: 0)
    return lambda: run_program("back_up.py", root=root, place=place_in(store))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Somebody who answers: put the answers in this list; what is left was not asked for."""
    answers: list[str] = []
    asked: list[str] = []

    def answer(question: str, secret: bool = False) -> str:
        asked.append(question)
        if not answers:
            raise AssertionError(f"nobody expected to be asked {question!r}")
        said = answers.pop(0)
        if said in TYPED:
            raise TYPED[said]
        return said

    for module in ASKING:
        monkeypatch.setattr(f"tasks.{module}.interactive", lambda: True)
    monkeypatch.setattr("tasks.engine.questions.read", answer)
    yield answers
    assert not answers, f"asked only {asked}"


@pytest.fixture(autouse=True)
def _nobody(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `terminal` nobody is there, wherever the tests are started from."""
    if "terminal" in request.fixturenames or request.node.get_closest_marker("e2e"):
        return
    for module in ASKING:
        monkeypatch.setattr(f"tasks.{module}.interactive", lambda: False)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what the imports left: boto3 and moto are a million objects."""
    gc.freeze()


@pytest.fixture
def unreached(monkeypatch: pytest.MonkeyPatch) -> None:
    """No database of advisories can be reached."""

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no way out")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
