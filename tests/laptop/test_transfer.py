"""A version's files arrive as they were, are not sent twice, and end with the operator."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.engine import paths
from tasks.laptop import transfer
from tasks.laptop.transfer import Errand, Failed, fetch, run_for, send

Entry = namedtuple("Entry", "path is_dir file_size")
CONTENT = {"MLmodel": b"flavors", "data/model.pkl": b"\x00\x01", "data/a b/empty": b""}


class Artifacts:
    """An artifact repository in a folder, which notes what it is given."""

    def __init__(self, folder: Path, **content: bytes) -> None:
        self.folder = folder
        self.given: list[str] = []
        self.spoilt: set[str] = set()
        for path, data in content.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)

    def list_artifacts(self, path: str | None = None) -> list[Entry]:
        place = self.folder / (path or "")
        found = sorted(place.iterdir()) if place.is_dir() else []
        return [
            Entry(
                entry.relative_to(self.folder).as_posix(),
                entry.is_dir(),
                None if entry.is_dir() else entry.stat().st_size,
            )
            for entry in found
        ]

    def download_artifacts(self, path: str, dst_path: str) -> str:
        source, place = self.folder / path, Path(dst_path, path)
        if source.is_dir():
            shutil.copytree(source, place, dirs_exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)
        return str(place)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        place = self.folder / (artifact_path or "") / Path(local_file).name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(local_file, place)
        path = place.relative_to(self.folder).as_posix()
        self.given.append(path)
        if path in self.spoilt:
            place.write_bytes(place.read_bytes() + b"!")

    @property
    def content(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(transfer, "say", lambda **words: said.append(words))
    return said


@pytest.fixture
def source(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "source", **CONTENT)


@pytest.fixture
def target(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "target")


@pytest.fixture
def way(tmp_path: Path) -> Path:
    (tmp_path / "way").mkdir()
    return tmp_path / "way"


def test_all_files_arrive_as_they_were(source, target, way, said):
    files = fetch(source, way)
    assert [file.path for file in files] == sorted(CONTENT)
    send(target, files, way)
    assert target.content == CONTENT
    assert [word["step"] for word in said] == [
        "fetched 3 files, 9 bytes",
        "sent 3 of them; all come back with the same SHA-256",
    ]
    assert len(list(way.iterdir())) == 1, "what came back to be compared is gone"


def test_what_an_interrupted_transfer_sent_is_not_sent_again(source, target, way):
    (target.folder / "data").mkdir(parents=True)
    (target.folder / "MLmodel").write_bytes(CONTENT["MLmodel"])
    (target.folder / "data/model.pkl").write_bytes(b"\x00")  # cut short
    send(target, fetch(source, way), way)
    assert target.given == ["data/a b/empty", "data/model.pkl"]
    assert target.content == CONTENT


def test_a_file_of_the_same_size_that_differs_is_sent_again(source, target, way):
    target.folder.mkdir()
    (target.folder / "MLmodel").write_bytes(b"flavorz")
    send(target, fetch(source, way), way)
    assert target.content == CONTENT


def test_a_file_that_comes_back_other_than_it_was_sent_is_named(source, target, way):
    target.spoilt = {"data/model.pkl"}
    with pytest.raises(Failed, match=r"data/model\.pkl came back other .* the same command again"):
        send(target, fetch(source, way), way)


def test_files_of_another_model_are_not_taken_for_ours(source, target, way):
    target.folder.mkdir()
    (target.folder / "other.bin").write_bytes(b"other")
    with pytest.raises(Failed, match=r"holds other\.bin besides"):
        send(target, fetch(source, way), way)


def test_a_version_without_files_is_noticed(tmp_path, way):
    assert fetch(Artifacts(tmp_path / "none"), way) == []


def test_a_file_that_does_not_arrive_is_named(source, way, monkeypatch):
    def forgetful(path: str, dst_path: str) -> str:
        Path(dst_path, "MLmodel").write_bytes(b"flavors")
        return dst_path

    monkeypatch.setattr(source, "download_artifacts", forgetful)
    with pytest.raises(Failed, match="data/a b/empty did not arrive"):
        fetch(source, way)


def test_room_is_looked_for_before_anything_is_fetched(source, way, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: SimpleNamespace(free=17))
    with pytest.raises(Failed, match=r"need 0\.0 GB in .*Free some, or set XDG_CACHE_HOME"):
        fetch(source, way)
    assert list(way.iterdir()) == []


@pytest.mark.parametrize(
    "uri", ["mlflow-artifacts:/1/r/artifacts/model", "runs:/r/model", "http://localhost:1/x"]
)
def test_files_behind_the_server_are_fetched(uri):
    transfer.refuse_past_the_server(uri)


@pytest.mark.parametrize("uri", ["s3://bucket/x", "gs://b/x", "file:///x", "/x"])
def test_files_past_the_server_are_refused(uri):
    with pytest.raises(Failed, match="go past the server"):
        transfer.refuse_past_the_server(uri)


def test_the_digest_of_all_is_what_sha256sum_would_give(source, way):
    files = fetch(source, way)
    listing = "LC_ALL=C find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum"
    done = subprocess.run(
        ["bash", "-c", f"{listing} | sha256sum"],
        cwd=source.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert transfer.digest_of_all(list(reversed(files))) == done.stdout.split()[0]


# -- the run -----------------------------------------------------------------------------------


class Client:
    """Plays MLflow's client: experiments and runs."""

    def __init__(self, stage: str | None = None, runs: tuple[Any, ...] = ()) -> None:
        self.stage, self.runs = stage, list(runs)
        self.calls: list[tuple[Any, ...]] = []

    def get_experiment_by_name(self, name: str) -> Any:
        return self.stage and SimpleNamespace(experiment_id="4", lifecycle_stage=self.stage)

    def create_experiment(self, name: str) -> str:
        self.calls.append(("create", name))
        return "5"

    def restore_experiment(self, number: str) -> None:
        self.calls.append(("restore", number))

    def search_runs(self, numbers: list[str], condition: str, max_results: int) -> list[Any]:
        self.calls.append(("search", *numbers, condition))
        return self.runs

    def create_run(self, number: str, tags: dict[str, str], run_name: str) -> str:
        self.calls.append(("run", number, run_name, tags))
        return "new"


SERVER = transfer.Server("http://localhost:1", "admin", "horse")
TAGS = {"copied_from.id": "abc", "copied_from.run": "r"}
ERRAND = Errand(SERVER, SERVER, "iris", "2", "iris/2 from default (ec2)", TAGS, Path("/x"))
SEARCH = "tags.`copied_from.id` = 'abc'"


@pytest.mark.parametrize(
    ("client", "run", "calls"),
    [
        (
            Client(),
            "new",
            [
                ("create", "copied-models"),
                ("search", "5", SEARCH),
                ("run", "5", "iris/2 from default (ec2)", TAGS),
            ],
        ),
        (Client("active", ("begun",)), "begun", [("search", "4", SEARCH)]),
        (Client("deleted", ("begun",)), "begun", [("restore", "4"), ("search", "4", SEARCH)]),
    ],
)
def test_an_interrupted_copy_s_run_is_gone_on_with(client, run, calls):
    assert run_for(client, ERRAND) == run
    assert client.calls == calls


# -- as a program ------------------------------------------------------------------------------


def told(folder: Path) -> str:
    server = {"uri": "http://localhost:1", "username": "admin", "password": "horse"}
    return json.dumps(
        {
            "source": server, "target": server, "model": "iris", "version": "2",
            "run_name": "x", "tags": TAGS, "folder": str(folder),
        }
    )  # fmt: skip


def test_the_errand_is_read_as_it_is_written():
    assert transfer.read_errand(told(Path("/x"))) == Errand(
        SERVER, SERVER, "iris", "2", "x", TAGS, Path("/x")
    )


def test_the_transfer_ends_when_the_operator_s_process_is_gone(tmp_path):
    # It would wait for a server that never answers.
    script = (
        "import time; from tasks import transfer; transfer.transfer = lambda errand: "
        "time.sleep(50); raise SystemExit(transfer.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=paths.PROJECT, text=True, stdin=subprocess.PIPE
    )
    assert process.stdin
    process.stdin.write(told(tmp_path) + "\n")
    process.stdin.close()
    assert process.wait(20) == 1


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (Failed("there are no files"), "there are no files"),
        (
            OSError("gone\nmore"),
            "OSError: gone. Run the same command again: what was sent stays sent",
        ),
    ],
)
def test_why_it_failed_is_one_line(monkeypatch, said, tmp_path, error, wanted):
    def fail(errand: Errand) -> None:
        raise error

    monkeypatch.setattr(transfer, "transfer", fail)
    monkeypatch.setattr(transfer, "end_with_the_operator", lambda: None)
    monkeypatch.setattr("logging.disable", lambda level: None)
    monkeypatch.setattr(transfer.sys, "stdin", SimpleNamespace(readline=lambda: told(tmp_path)))
    assert transfer.main() == 1
    assert said == [{"failed": wanted}]
