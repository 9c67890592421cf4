"""The host's side without a host: its programs in this process, its scripts in a home folder.

A store plays S3: moto, behind a door that can refuse.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.s3.models import s3_backends
from moto.server import create_backend_app
from stand_ins import SETTINGS, blank
from werkzeug.serving import WSGIRequestHandler, make_server

from tasks.changes.files import ready_script, start_script
from tasks.engine import templates
from tasks.engine.change import Change, bundle
from tasks.engine.facts import READY
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


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # else every request needs a connection and a thread of its own

    def log(self, *words: Any) -> None:
        pass


class Store:
    """moto behind a door that can refuse: notes every request, fails what it is told to."""

    def __init__(self) -> None:
        self._moto = create_backend_app("s3")
        self.requests: list[str] = []
        self.faults: list[list[Any]] = []  # pattern, status, code, how often
        self.deaf_to: tuple[str, ...] = ()
        self.guard: Callable[[str], bool] | None = None
        self._clients: dict[str, Any] = {}
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def refuse(
        self, pattern: str, code: str = "AccessDenied", status: int = 403, times: float = math.inf
    ) -> None:
        """Answer requests such as 'GET /bucket/key?query' with an error of S3's, so many times."""
        self.faults.append([pattern, status, code, times])

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        query = environ.get("QUERY_STRING")
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        request += f"?{query}" if query else ""
        self.requests.append(request)
        # A policy that holds for this request alone.
        denied = [["", 403, "AccessDenied", 1]] if self.guard and not self.guard(request) else []
        for fault in denied + self.faults:
            pattern, status, code, times = fault
            if times and re.match(pattern, request):
                fault[3] -= 1
                length = int(environ.get("CONTENT_LENGTH") or 0)
                environ["wsgi.input"].read(length)
                body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
                if status == 200:
                    body = b"other than what was sent"
                if request.startswith("HEAD"):
                    body = b""
                start_response(f"{status} x", [("Content-Length", str(len(body)))])
                return [body]
        for header in self.deaf_to:
            environ.pop(header, None)
        return self._moto(environ, start_response)

    def close(self) -> None:
        self._server.shutdown()

    def reset(self) -> None:
        """Forget all buckets, which moto keeps in this very process."""
        self.requests, self.faults, self.deaf_to, self.guard = [], [], (), None
        s3_backends.reset()

    def client(self, region: str = "us-east-1") -> Any:
        """Look into it as nobody's script; clients are made once, for they take long to make."""
        if region not in self._clients:
            self._clients[region] = boto3.session.Session().client(
                "s3", endpoint_url=self.url, region_name=region, **TOY
            )
        return self._clients[region]

    def listing(self, bucket: str = "my-bucket") -> list[str]:
        found = self.client().list_objects_v2(Bucket=bucket)
        return [entry["Key"] for entry in found.get("Contents", [])]

    def body(self, key: str) -> bytes:
        return self.client().get_object(Bucket="my-bucket", Key=key)["Body"].read()


class Session(boto3.session.Session):
    """Make one client for all who ask alike: making it takes longer than most tests."""

    @cached_property
    def made(self) -> dict[str, Any]:
        return {}

    def client(self, service: str, *words: Any, **options: Any) -> Any:
        config = getattr(options.get("config"), "_user_provided_options", None)
        asked = repr((service, words, sorted((options | {"config": config}).items())))
        if asked not in self.made:
            self.made[asked] = super().client(service, *words, **options)
        return self.made[asked]


def session(*keys: str, **options: str) -> Any:
    """Return the session asked for; that of the environment's keys is one while it asks alike."""
    elsewhere = keys or options or Path.home().joinpath(".aws").exists()
    if elsewhere or "AWS_SECRET_ACCESS_KEY" not in os.environ:  # where it may ask for anything
        return Session(*keys, **options)
    return _session(*sorted(pair for pair in os.environ.items() if pair[0].startswith("AWS_")))


@cache
def _session(*variables: tuple[str, str]) -> Session:
    made = Session()
    made.get_credentials()  # these, whatever the environment is once somebody wants a client
    return made


TOY = {"aws_access_key_id": "toy", "aws_secret_access_key": "toy"}


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


# -- a server whose state can be switched -------------------------------------------------------

# What a state is made of, as far as both kinds of switch touch it.
PARTS = (
    "mlflow.db", "mlflow.db-wal", "basic_auth.db", "server.env", ".server-id",
    ".mlflow_auth_config", "start_mlflow_server.sh", "venv",
)  # fmt: skip
NAME = "20261124T100000Z"

# Every command that changes something is a step; when none is left, the whole process is killed.
# Whole folders are removed file by file.
STEPS = r"""
step() { [ "$LEFT" -gt 0 ] || kill -9 $$ $BASHPID; export LEFT=$((LEFT - 1)); }
mkdir() { step; command mkdir "$@"; }
mv() { step; command mv "$@"; }
cp() { step; command cp "$@"; }
ln() { step; command ln "$@"; }
printf() { step; builtin printf "$@"; }
sync() { step; }
rm() {
  local each
  find "${@:2}" -depth 2> /dev/null > "$HOME/doomed" || true
  while IFS= read -r each; do step; command rm -df "$each"; done < "$HOME/doomed"
}
"""
MANY = 10_000

# Says what an MLflow that was started now would serve.
MLFLOW = """#!/bin/bash
echo "venv=$(basename "$(readlink -f venv)")"
echo "server.env=$WHICH"
script=start_mlflow_server.sh
echo "$script=$(sed -n 's/.*with release \\([a-z]*\\).*/\\1/p' $script)"
for file in mlflow.db basic_auth.db .server-id .mlflow_auth_config; do
  if [ -e $file ]; then echo "$file=$(cat $file)"; fi
done
# SQLite follows a link, and looks for the log beside what it leads to.
log=$(readlink -f mlflow.db)-wal
if [ -e mlflow.db ] && [ -e "$log" ]; then echo "mlflow.db-wal=$(cat "$log")"; fi
"""


class Place:
    """A server's folder whose files say which state they belong to."""

    def __init__(self, root: Path, machine: Machine) -> None:
        self.root, self.machine = root, machine

    def make(self) -> Place:
        root, machine = self.root, self.machine
        for release in ("old", "new", "newer"):
            program = root / "releases" / release / "bin/python"
            program.parent.mkdir(parents=True)
            program.write_text(MLFLOW)
            program.chmod(0o755)
        self.fill(root, "old", PARTS)
        ready = root / READY
        ready.write_text(ready_script(SETTINGS, blank()).text)
        ready.chmod(0o700)
        machine.stub("systemctl", "exit 3")
        (machine.folder / "steps").write_text(STEPS)
        return self

    @property
    def databases(self) -> Path:
        """Where the server's databases lie."""
        data = self.root / "data"
        return data if data.exists() else self.root

    def ready(self, *words: str, left: int = MANY) -> bool:
        """Run what is run before a start; tells whether it came to its end."""
        done = self.bash(str(self.root / READY), *words, left=left)
        assert done.returncode in (0, -9), done.stderr
        return done.returncode == 0

    def copies(self) -> Iterator[tuple[int, Place]]:
        """Count, and make as many places that are just like this one."""
        for number in range(MANY):
            root = self.root.with_name(f"server {number}")
            shutil.copytree(self.root, root, symlinks=True)
            yield number, Place(root, self.machine)

    def fill(self, folder: Path, state: str, parts: tuple[str, ...]) -> None:
        folder.mkdir(exist_ok=True)
        for name in parts:
            self.write(folder / name, state)

    def write(self, path: Path, state: str) -> None:
        if path.name == "venv":
            path.symlink_to(f"releases/{state}")
        elif path.name == "start_mlflow_server.sh":
            path.write_text(start_script(SETTINGS, blank(release=state)).text)
            path.chmod(0o700)
        else:
            path.write_text(f"WHICH={state}\n" if path.name == "server.env" else state)

    def build(self, state: str = "new", parts: tuple[str, ...] = PARTS) -> None:
        """Lay a new state out beside the present one."""
        shutil.rmtree(self.root / "next.part", ignore_errors=True)
        self.fill(self.root / "next.part", state, parts)

    def bash(self, *words: str, left: int = MANY) -> subprocess.CompletedProcess[str]:
        given = {"BASH_ENV": str(self.machine.folder / "steps"), "LEFT": str(left)}
        return subprocess.run(
            ["bash", *words], env=self.machine.environment | given, text=True, capture_output=True,
            timeout=20,
        )  # fmt: skip

    def switch(self, call: str = f"switch upgrade {NAME}", left: int = MANY) -> bool:
        """Run a switch that has so many steps left; tells whether it came to its end."""
        words = f'set -euo pipefail; root="{self.root}" unit=mlflow-server here=/nowhere'
        script = "\n".join(
            (words, source("settle.sh"), source("tidy.sh"), source("switch.sh"), call)
        )
        done = self.bash("-c", script, left=left)
        assert done.returncode in (0, -9), done.stderr
        return done.returncode == 0

    def start(self, left: int = MANY) -> dict[str, str] | None:
        """Start the server; returns what it serves, None where it was cut off before."""
        done = self.bash(str(self.root / "start_mlflow_server.sh"), left=left)
        if done.returncode == -9:
            assert "venv=" not in done.stdout
            return None
        assert (done.returncode, done.stderr) == (0, "")
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "http:" not in line)

    def former(self, name: str = NAME) -> set[str]:
        return {path.name for path in (self.root / "former" / name).iterdir()}


def wholly(state: str, parts: tuple[str, ...] = PARTS) -> dict[str, str]:
    return dict.fromkeys(parts, state)


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
