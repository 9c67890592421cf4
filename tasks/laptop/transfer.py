"""Bring a model version's files from one tracking server to another, as their client would.

A program of its own, run by `registry.copy`: MLflow keeps its state in the process. On standard
input it gets one line of JSON (see `Errand`) and then nothing, until the end tells that whoever
started it is gone. Prints one JSON object a line: {"step": ...} as it goes, {"done": ...} with the
run that holds the files now, {"failed": ...} once.

What an interrupted transfer sent is not sent again: its run is found by its tag.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.engine.records import dataclass
from tasks.engine.tables import counted

if TYPE_CHECKING:
    from typing import Any

EXPERIMENT = "copied-models"

PLACE = "model"  # within the run, where MLflow's own clients put a model

TAG = "copied_from.id"

AGAIN = "Run the same command again: what was sent stays sent"

# MLflow prints of its own; only our own lines belong on standard output.
LINES = sys.stdout


class Failed(Exception):
    """What cannot be copied, and why."""


@dataclass(frozen=True)
class Server:
    """A tracking server as its client knows it."""

    uri: str
    username: str
    password: str

    def become_its_client(self) -> Any:
        """Talk to this server from now on: MLflow has one login in a process."""
        import mlflow

        os.environ["MLFLOW_TRACKING_USERNAME"] = self.username
        os.environ["MLFLOW_TRACKING_PASSWORD"] = self.password
        mlflow.set_tracking_uri(self.uri)
        return mlflow.MlflowClient(self.uri)


@dataclass(frozen=True)
class Errand:
    """What is copied: a version of a model, to a run of this name with these tags."""

    source: Server
    target: Server
    model: str
    version: str
    run_name: str
    tags: dict[str, str]
    folder: Path  # for the files on their way; made and removed


def say(**words: Any) -> None:
    """Print one line for `registry.copy` to read."""
    print(json.dumps(words), file=LINES, flush=True)


def transfer(errand: Errand) -> None:
    """Fetch, send and compare; raises Failed or whatever MLflow raises."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    shutil.rmtree(errand.folder, ignore_errors=True)  # what a killed transfer left
    errand.folder.mkdir(mode=0o700, parents=True)
    try:
        client = errand.source.become_its_client()
        # Not models:/NAME/VERSION, for which MLflow adds a file of its own.
        uri = client.get_model_version_download_uri(errand.model, errand.version)
        refuse_past_the_server(uri)
        if not (files := fetch(get_artifact_repository(uri), errand.folder)):
            raise Failed(f"there are no files at {uri}. Their run may have been removed")
        client = errand.target.become_its_client()
        run = run_for(client, errand)
        send(get_artifact_repository(f"{run.info.artifact_uri}/{PLACE}"), files, errand.folder)
        client.set_terminated(run.info.run_id)
    finally:
        shutil.rmtree(errand.folder, ignore_errors=True)
    say(done={
        "run_id": run.info.run_id,
        "source": f"{run.info.artifact_uri}/{PLACE}",
        "files": len(files),
        "sha256": digest_of_all(files),
    })  # fmt: skip


def refuse_past_the_server(uri: str) -> None:
    """Raise Failed for files that this machine would need cloud keys of its own for."""
    kind = urlsplit(uri).scheme
    if kind not in ("mlflow-artifacts", "runs", "http", "https"):
        raise Failed(
            f"the files are at {uri}, where clients go past the server. Log the model again in an "
            "experiment whose artifacts are at mlflow-artifacts:/"
        )


@dataclass(frozen=True)
class File:
    """A file of the model, here on its way; `path` is relative to the model, `size` in bytes."""

    path: str
    local: Path
    size: int
    sha256: str


def fetch(repository: Any, folder: Path) -> list[File]:
    """Download all files of an artifact repository into a folder.

    Raises Failed where there is no room for them, or one of them does not come.
    """
    expected = listed(repository)
    if not expected:
        return []
    needed, free = 2 * sum(expected.values()), shutil.disk_usage(folder).free
    if free < needed:  # twice, since each comes back from the other server to be compared
        raise Failed(
            f"the files on their way need {needed / 1e9:.1f} GB in {folder.parent}, and "
            f"{free / 1e9:.1f} are free. Free some, or set XDG_CACHE_HOME"
        )
    place = Path(repository.download_artifacts("", dst_path=str(fresh(folder))))
    files = [
        File(local.relative_to(place).as_posix(), local, local.stat().st_size, digest(local))
        for local in sorted(place.rglob("*"))
        if local.is_file()
    ]
    if missing := expected.keys() - {file.path for file in files}:
        raise Failed(f"{min(missing)} did not arrive. {AGAIN}")
    say(
        step=f"fetched {counted(len(files), 'file')}, {megabytes(sum(file.size for file in files))}"
    )
    return files


def listed(repository: Any) -> dict[str, int]:
    """List all files of an artifact repository with their sizes in bytes."""
    found: dict[str, int] = {}
    folders = [""]
    while folders:
        for entry in repository.list_artifacts(folders.pop() or None):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                found[entry.path] = entry.file_size or 0
    return found


def run_for(client: Any, errand: Errand) -> Any:
    """Return the run for this copy: an interrupted one's, or a new one."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        number = client.create_experiment(EXPERIMENT)
    else:
        number = experiment.experiment_id
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(number)
    begun = client.search_runs([number], f"tags.`{TAG}` = '{errand.tags[TAG]}'", max_results=1)
    if begun:
        return begun[0]
    return client.create_run(number, tags=errand.tags, run_name=errand.run_name)


def send(repository: Any, files: list[File], folder: Path) -> None:
    """Send what is not there as it should be; compare everything as it comes back.

    Raises Failed where it comes back other than it was sent.
    """
    there = listed(repository)
    sent = 0
    for file in files:
        if there.get(file.path) == file.size and returned(repository, file, folder) == file.sha256:
            continue
        parent = Path(file.path).parent.as_posix()
        repository.log_artifact(str(file.local), None if parent == "." else parent)
        sent += 1
        if returned(repository, file, folder) != file.sha256:
            raise Failed(f"{file.path} came back other than it was sent. {AGAIN}")
    if foreign := there.keys() - {file.path for file in files}:
        raise Failed(f"its run there holds {min(foreign)} besides. Delete the run, then "
                     "run the same command again")  # fmt: skip
    say(step=f"sent {sent} of them; all come back with the same SHA-256")


def returned(repository: Any, file: File, folder: Path) -> str:
    """Digest a file as the server gives it back."""
    place = fresh(folder)
    found = digest(Path(repository.download_artifacts(file.path, dst_path=str(place))))
    shutil.rmtree(place)
    return found


def fresh(folder: Path) -> Path:
    """Make an empty folder within another."""
    return Path(tempfile.mkdtemp(dir=folder))


def digest(path: Path) -> str:
    """Digest a file with SHA-256."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def digest_of_all(files: list[File]) -> str:
    """Digest what `sha256sum` would print for all files, in the order of their paths."""
    lines = sorted((file.path, file.sha256) for file in files)
    text = "".join(f"{sha256}  {path}\n" for path, sha256 in lines)
    return hashlib.sha256(text.encode()).hexdigest()


def megabytes(size: int) -> str:
    """Spell a size in bytes."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"


def read_errand(line: str) -> Errand:
    """Read what `registry.copy` wrote."""
    data = json.loads(line)
    return Errand(
        **data
        | {
            "source": Server(**data["source"]),
            "target": Server(**data["target"]),
            "folder": Path(data["folder"]),
        }
    )


def end_with_the_operator() -> None:
    """End this process once nobody waits for it any more."""
    sys.stdin.read()
    os._exit(1)


def main() -> int:
    import logging
    import warnings

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    errand = read_errand(sys.stdin.readline())
    threading.Thread(target=end_with_the_operator, daemon=True).start()
    try:
        with redirect_stdout(sys.stderr):
            transfer(errand)
    except Exception as error:  # noqa: BLE001 (whatever MLflow raises is the finding)
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        unforeseen = f"{type(error).__name__}: {reason}. {AGAIN}"
        say(failed=reason if isinstance(error, Failed) else unforeseen)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
