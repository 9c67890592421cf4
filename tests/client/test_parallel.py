"""A folder's files are sent several at a time, and otherwise as MLflow sends them."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from tasks.engine.templates import FILES

sys.path.insert(0, str(FILES / "client"))

import remote_mlflow_client
from remote_mlflow_client import ParallelArtifactsRepository

URI = "mlflow-artifacts:/0/a-run/artifacts"
SERVER = "http://localhost:5001"
ASKED: ContextVar[str] = ContextVar("asked", default="")
AT_PYTHON_S_END = """
import atexit, os, sys
from remote_mlflow_client import ParallelArtifactsRepository
repository = ParallelArtifactsRepository(*sys.argv[1:3])
repository.log_artifact = lambda file, path=None: os.write(1, f"{path}\\n".encode())
atexit.register(repository.log_artifacts, *sys.argv[3:])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as models are: files on three floors, and an empty one."""
    for name in ("a", "b.txt", "code/c.py", "code/deep/d", "code/deep/e é.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty").mkdir()
    return tmp_path


def repository(monkeypatch: pytest.MonkeyPatch, send: Any) -> ParallelArtifactsRepository:
    """Return one whose files are given to `send` instead of a server."""
    made = ParallelArtifactsRepository(URI, SERVER)
    monkeypatch.setattr(made, "log_artifact", send)
    return made


@pytest.mark.parametrize("path", [None, "model"])
def test_it_sends_what_mlflow_sends(
    folder: Path, path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, list[Any]] = {"ours": [], "MLflow's": []}
    repository(monkeypatch, lambda *file: sent["ours"].append(file)).log_artifacts(folder, path)
    known = MlflowArtifactsRepository(URI, SERVER)
    monkeypatch.setattr(known, "log_artifact", lambda *file: sent["MLflow's"].append(file))
    known.log_artifacts(folder, path)
    assert len(sent["ours"]) == 5
    assert sorted(sent["ours"], key=str) == sorted(sent["MLflow's"], key=str)


def test_eight_are_on_their_way_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(16):
        (tmp_path / str(number)).touch()
    together = threading.Barrier(8)
    now, most, lock = 0, 0, threading.Lock()

    def send(*file: Any) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(10)
        with lock:
            now -= 1

    repository(monkeypatch, send).log_artifacts(tmp_path)
    assert (now, most) == (0, 8)


def test_folders_that_are_logged_at_a_time_share_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        (tmp_path / str(number)).touch()
    now, most, lock, sent = 0, 0, threading.Lock(), []

    def send(*file: Any) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            sent.append(file)
        time.sleep(0.01)
        with lock:
            now -= 1

    several = [
        threading.Thread(target=repository(monkeypatch, send).log_artifacts, args=[tmp_path])
        for _ in range(3)
    ]
    for each in several:
        each.start()
    for each in several:
        each.join()
    assert len(sent) == 3 * 30
    assert most <= 3 + 7  # the callers' own, and what is shared: MLflow keeps ten connections
    free = remote_mlflow_client.free
    given_back = [free.acquire(blocking=False) for _ in range(8)]
    free.release(given_back.count(True))
    assert given_back == [True] * 7 + [False]


def test_a_folder_has_the_threads_of_one_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        (tmp_path / str(number)).touch()
    free, together, numbers = remote_mlflow_client.free, threading.Barrier(8), itertools.count()
    assert all(free.acquire(blocking=False) for _ in range(7))

    def send(*file: Any) -> None:
        if next(numbers) == 0:
            free.release(7)  # as the other folder's end does
        else:
            together.wait(10)

    repository(monkeypatch, send).log_artifacts(tmp_path)
    assert next(numbers) == 9


def test_where_one_fails_no_more_begin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_mlflow_client, "AT_ONCE", 2)
    numbers, ended = itertools.count(1), []

    def send(*file: Any) -> None:
        number = next(numbers)
        if number == 2:
            raise MlflowException("the disk of the store is full")
        time.sleep(0.5)  # the first is still on its way
        ended.append(number)

    with pytest.raises(MlflowException, match="disk of the store"):
        repository(monkeypatch, send).log_artifacts(folder)
    assert next(numbers) == 3
    assert ended == [1]  # it is there once the error is raised


def test_ctrl_c_waits_for_nobody_and_begins_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_mlflow_client, "AT_ONCE", 3)
    sent, over, begun = [], threading.Event(), threading.Barrier(3)

    def send(*file: Any) -> None:
        sent.append(file)
        begun.wait(10)
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        over.wait(10)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        repository(monkeypatch, send).log_artifacts(folder)
    assert time.monotonic() - started < 5
    helpers = [each for each in threading.enumerate() if each.name == "log_artifacts"]
    assert [each.daemon for each in helpers] == [True, True]  # Python waits for nobody either
    over.set()
    for each in helpers:
        each.join()
    assert len(sent) == 3


def test_without_another_thread_each_is_sent_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    sent: list[Any] = []
    monkeypatch.setattr(threading.Thread, "start", start)
    repository(monkeypatch, lambda *file: sent.append(file)).log_artifacts(folder)
    assert len(sent) == len({str(file) for file in sent}) == 5


def test_what_the_caller_s_context_holds_each_file_s_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    token = ASKED.set("a workspace")
    try:
        repository(monkeypatch, lambda *file: found.append(ASKED.get())).log_artifacts(folder)
    finally:
        ASKED.reset(token)
    assert found == ["a workspace"] * 5


def test_as_python_ends_files_are_sent_as_well(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_PYTHON_S_END, URI, SERVER, folder, "model"],
        env={"PYTHONPATH": str(FILES / "client")}, text=True, capture_output=True,
    )  # fmt: skip
    assert sorted(done.stdout.split()) == sorted(
        ["model"] * 2 + ["model/code"] + ["model/code/deep"] * 2
    )
    assert done.stderr == ""
