"""The host's side without a host: its programs in this process, its scripts in a home folder."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from store_side import Store

from tasks.engine import templates
from tasks.engine.change import Change, bundle
from tasks.engine.templates import source


def _staged() -> Path:
    """Lay all of the host's programs side by side, as they are staged there."""
    folder = Path(tempfile.mkdtemp(prefix="staged-"))
    atexit.register(shutil.rmtree, folder)
    for name, path in templates.programs().items():
        (folder / name).symlink_to(path)
    return folder


HOST = _staged()


def program(
    capsys: pytest.CaptureFixture[str], name: str, /, *words: str, staged: Path = HOST,
    **request: Any,
) -> tuple[int, str]:  # fmt: skip
    """Run one of the host's programs in this process; return its exit code and output.

    The request lies beside it while it runs; `words` are what a script gives it. `staged` is the
    folder that it lies in.
    """
    boto3.DEFAULT_SESSION = None  # it would remember the former test's keys
    argv, sys.argv = sys.argv, [str(staged / name), *words]
    # As where it is staged, its neighbours are found.
    sys.path.insert(0, str(staged))
    beside = (staged / name).with_suffix(".json")
    if request:
        beside.write_text(json.dumps(request, default=str))
    try:
        file = staged / name
        exec(_compiled(file, file.read_text()), {"__name__": "__main__", "__file__": str(file)})
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = argv
        sys.path.remove(str(staged))
        if request:
            beside.unlink()
    return code, capsys.readouterr().out


def seen_in(out: str) -> dict[str, Any]:
    """Read what a look reports: a value a line, by its name."""
    lines = [line.removeprefix("@report ").partition("\t") for line in out.splitlines()]
    return {key: json.loads(value) for key, _, value in lines}


def place_in(store: Store, **other: str) -> dict[str, str]:
    """Say where a server keeps what it has in this bucket, as `surroundings.place` does."""
    return {
        "bucket": "my-bucket", "prefix": "mlflow-artifacts", "backup_prefix": "mlflow-backups",
        "environment": "default", "region": "", "endpoint": store.url, **other,
    }  # fmt: skip


@cache
def _compiled(file: Path, text: str) -> types.CodeType:
    return compile(text, file, "exec")


class Machine:
    """A home folder where changes arrive as on a host, staged below it instead of in /run."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self.folder = home, folder
        self.root = home / "a server"
        (folder / "bin").mkdir(parents=True)
        self.stub("mktemp", f'mkdir -p "{folder}/staged" && echo "{folder}/staged"')

    @property
    def staged(self) -> Path:
        return self.folder / "staged"

    def command(
        self, generation: int | str, task: str = "task", who: str = "me@laptop"
    ) -> list[str]:
        script = source("receive.sh")
        arguments = ("change.sh", str(self.root), who, task, str(generation))
        return ["bash", "-c", script, "remote-mlflow", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}

    def stub(self, name: str, body: str = "exit 0") -> None:
        """Have a program of the host's do something else."""
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/bash\n{body}\n")
        file.chmod(0o755)

    def change(
        self, script: str, generation: int | str | None = None, **files: str | bytes
    ) -> list[str]:
        """Make a change; returns the lines that the host says."""
        if generation is None:
            generation = self.audit.stat().st_size if self.audit.exists() else 0
        done = subprocess.run(
            self.command(generation),
            input=bundle([Change("what", script, files)]),
            env=self.environment,
            capture_output=True,
            timeout=20,
        )
        assert done.stderr == b""
        return [line for line in done.stdout.decode().splitlines() if line]

    @property
    def audit(self) -> Path:
        return self.root / "audit.log"

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.audit.read_text().splitlines()]


# -- a store that plays S3 ---------------------------------------------------------------------


# -- who vouches for a backup ------------------------------------------------------------------

KEY, OTHER_KEY = "ab" * 32, "cd" * 32


def vouching() -> Any:
    """Return the host's module, which is found while one of its programs is."""
    if str(HOST) not in sys.path:
        sys.path.append(str(HOST))
    return importlib.import_module("vouching")


def signed(manifest: dict[str, Any], id: str, key: str = KEY) -> bytes:
    """Spell a manifest of the set of this id, signed as its server would."""
    told = manifest | {"id": id, "environment": "default"}
    return json.dumps(vouching().Key(key).signed("manifest", told)).encode()


# -- a server's folder -------------------------------------------------------------------------

Backup = Callable[[], tuple[int, str]]
RELEASE = "3.17.2-abc"
MIGRATIONS = {
    "mlflow.db": ("store/db_migrations/versions", ("r0", "r1")),
    "basic_auth.db": ("server/auth/db/migrations/versions", ("a1",)),
}


def serverfolder(root: Path, runs: int = 3) -> Path:
    """Make a server's folder with a release and both databases, as MLflow leaves them."""
    return shutil.copytree(_serverfolder(runs), root, symlinks=True)


@cache
def _serverfolder(runs: int) -> Path:
    root = HOST / f"server with {runs} runs"
    release = root / "releases" / RELEASE
    for place, revisions in MIGRATIONS.values():
        versions = release / "lib/python3.11/site-packages/mlflow" / place
        versions.mkdir(parents=True)
        former = None
        for revision in revisions:
            text = f'revision = "{revision}"\ndown_revision = {former!r}\n'
            (versions / f"{revision}.py").write_text(text)
            former = revision
    (root / "venv").symlink_to(f"releases/{RELEASE}")
    (root / "server.env").write_text("MLFLOW_FLASK_SERVER_SECRET_KEY=abc\n")
    (root / ".mlflow_auth_config").write_text("[mlflow]\n")
    tracking_database(root / "mlflow.db", runs)
    with contextlib.closing(sqlite3.connect(root / "basic_auth.db")) as users:
        users.executescript(
            "create table alembic_version_auth (version_num);"
            "insert into alembic_version_auth values ('a1');"
            "create table users (id integer primary key, username, password_hash, is_admin);"
            "insert into users values (1, 'admin', 'x', 1);"
        )
    return root


def tracking_database(file: Path, runs: int = 3, revision: str = "r1") -> None:
    """Make a database of so many runs, which began at 1000, 1001, … ms, and as many metrics."""
    with contextlib.closing(sqlite3.connect(file)) as base:
        base.executescript(
            "pragma journal_mode=wal; create table alembic_version (version_num);"
            "create table runs (run_uuid primary key, start_time, lifecycle_stage);"
            "create table metrics (n, filler);"
        )
        base.execute("insert into alembic_version values (?)", (revision,))
        rows = [(f"run{n}", 1000 + n, "active") for n in range(runs)]
        base.executemany("insert into runs values (?, ?, ?)", rows)
        base.executemany("insert into metrics values (?, ?)", [(n, "x" * 400) for n in range(runs)])
        base.commit()


def execute(file: Path, statement: str, *values: Any) -> None:
    """Run one statement on a database and commit it."""
    with contextlib.closing(sqlite3.connect(file)) as base, base:
        base.execute(statement, values)


def rows(file: Path, query: str) -> list[Any]:
    """Ask a database something."""
    with contextlib.closing(sqlite3.connect(file)) as base:
        return base.execute(query).fetchall()


# -- backup sets -------------------------------------------------------------------------------

PLACE = "mlflow-backups/default/"


def reported(out: str) -> dict[str, Any]:
    return json.loads(out.splitlines()[-1].removeprefix("@report "))


def unpacked(store: Store, key: str, folder: Path) -> Path:
    """Bring a packed database of the bucket's into a folder."""
    file = folder / "restored.db"
    done = subprocess.run(["zstd", "-d", "-q"], input=store.body(key), capture_output=True)
    file.write_bytes(done.stdout)
    return file


def put(store: Store, id: str, name: str, body: bytes = b"x") -> None:
    store.client().put_object(Bucket="my-bucket", Key=f"{PLACE}{id}/{name}", Body=body)


def release_with(root: Path, revision: str, former: str, name: str = "mlflow.db") -> Path:
    """Have the release know one more revision."""
    release = root / "releases" / RELEASE
    place = {"mlflow.db": "store", "basic_auth.db": "auth"}[name]
    (versions,) = (
        path for path in release.rglob("versions") if (place == "auth") == ("auth" in path.parts)
    )
    text = f"revision = '{revision}'\ndown_revision = '{former}'\n"
    (versions / f"{revision}.py").write_text(text)
    return release


def damage_index(file: Path) -> None:
    """Have an index say something else than its table: only a thorough check sees that."""
    execute(file, "pragma journal_mode=delete")
    execute(file, "create index by_n on metrics (n)")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as base:
        base.execute("pragma writable_schema=on")
        base.execute("update sqlite_master set sql = replace(sql, '(n)', '(filler)') "
                     "where name = 'by_n'")  # fmt: skip
