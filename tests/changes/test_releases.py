"""Which release a host has and should have, and how one without a lock of ours is locked."""

from __future__ import annotations

import base64
import json
import shlex
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from invoke import Exit
from stand_ins import SETTINGS, Reply, context, deployed
from store_side import Quiet
from werkzeug.serving import make_server

from tasks.changes import install as install_changes
from tasks.changes import releases
from tasks.changes.releases import is_behind, release_of, wanted_release
from tasks.changes.resolve import find
from tasks.engine import change as change_engine
from tasks.engine.facts import Facts
from tasks.engine.settings import Settings
from tasks.engine.templates import source

RELEASE = release_of(SETTINGS)
OLD, RENEWED = "3.16.0-00000000", "3.17.2-00000000"


def running(release: str = OLD, *more: str, **values: Any) -> Facts:
    """A deployed host that runs this release and has more."""
    return deployed(release=release, complete=frozenset({release, *more}), **values)


def test_a_version_that_is_shipped_is_named_by_its_lock():
    lock = releases.shipped("3.17.2")
    assert find(context(running()).server, "3.17.2") == (RELEASE, lock)
    assert find(context(running(OLD, RELEASE)).server, "3.17.2") == (RELEASE, None)


def test_a_version_that_the_host_has_needs_no_lock():
    there = ("3.15.0-bbbb", "3.15.0-aaaa")
    c = context(running(OLD, *there))
    assert find(c.server, "3.15.0") == ("3.15.0-aaaa", None)
    assert c.recorder.runs == []


def test_another_version_is_resolved_on_the_host():
    c = context(running())
    c.recorder.replies = [Reply('@report {"lock": "mlflow==3.15.0"}\n@exit 0\n')]
    release, lock = find(c.server, "3.15.0")
    assert lock == "mlflow==3.15.0"
    assert release == f"3.15.0-{change_engine.digest(lock)}"
    (run,) = c.recorder.runs
    assert {"look.sh", "resolve_release.py"} <= set(run.files)
    assert json.loads(run.files["resolve_release.json"]) == {"version": "3.15.0"}


@pytest.mark.parametrize("version", ["3", "latest", "3.15.0; reboot", "3.15.0-x", ""])
def test_what_is_no_version_is_never_sent(version):
    c = context(running())
    with pytest.raises(Exit, match="is no MLflow version"):
        find(c.server, version)
    assert c.recorder.runs == []


@pytest.mark.parametrize(
    ("facts", "behind"),
    [(running(RELEASE), False), (running(OLD), True), (running(RENEWED), True)],
)
def test_a_host_is_behind_where_it_runs_another_release(facts, behind):
    assert is_behind(SETTINGS, facts) is behind


def test_a_version_without_a_lock_is_compared_by_its_number():
    settings = Settings(bucket="my-bucket", version="3.15.0")
    assert is_behind(settings, running("3.15.0-abcd")) is False
    assert is_behind(settings, running(OLD)) is True


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (running(OLD), OLD),
        (running(OLD, RELEASE), OLD),
        (deployed(release=OLD, complete=frozenset()), RELEASE),
        (running(OLD, schema=None), RELEASE),
    ],
)
def test_a_host_with_databases_keeps_the_release_that_reads_them(facts, wanted):
    assert wanted_release(SETTINGS, facts) == wanted


def test_a_broken_release_that_was_resolved_is_made_anew_by_the_lock_that_was_kept():
    facts = deployed(release=OLD, complete=frozenset({RELEASE}), locked=frozenset({OLD, RELEASE}))
    (change,) = install_changes.changes(SETTINGS, facts)
    assert change.what == "make the environment of MLflow 3.16.0 anew"
    assert change.files.keys() == {"modules.txt"}, "the host's own lock is taken"
    lost = deployed(release=OLD, complete=frozenset({RELEASE}))
    with pytest.raises(Exit, match="The environment of 3"):
        install_changes.changes(SETTINGS, lost)


def test_one_of_ours_is_made_anew_by_our_lock_whatever_the_host_keeps():
    """It may be cut short there, by a full disk."""
    facts = deployed(release=RELEASE, complete=frozenset(), locked=frozenset({RELEASE}))
    (change,) = install_changes.changes(SETTINGS, facts)
    assert change.files["release.txt"] == releases.shipped(SETTINGS.version)


@pytest.mark.parametrize(("text", "code"), [("mlflow==3.16.0\n", 0), ("mlflow==6.6.6\n", 1)])
def test_a_kept_lock_is_taken_only_as_the_one_that_it_was(tmp_path, text, code):
    release = releases.named("3.16.0", "mlflow==3.16.0\n")
    (tmp_path / "releases").mkdir()
    (tmp_path / f"releases/{release}.txt").write_text(text)
    script = (
        f'fail() {{ echo "$1"; exit 1; }}; root={tmp_path} here={tmp_path} release={release}\n'
        + source("kept_lock.sh")
    )
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=False)
    assert done.returncode == code, done
    assert (tmp_path / "release.txt").exists() is not bool(code)
    assert ("Delete it, then type ./fab install again." in done.stdout) is bool(code)


# -- resolve_release.py ------------------------------------------------------------------------

FILES = [
    {"filename": "mlflow-3.15.0-py3-none-any.whl", "upload-time": "2026-03-02T10:00:00.123Z"},
    {"filename": "mlflow-3.15.0.tar.gz", "upload-time": "2026-03-01T09:00:00Z"},
    {"filename": "mlflow-3.15.0rc1-py3-none-any.whl", "upload-time": "2026-02-01T09:00:00Z"},
    {"filename": "mlflow-3.14.0.tar.gz"},
    {"filename": "mlflow_skinny-3.13.0.tar.gz", "upload-time": "2026-01-01T09:00:00Z"},
]


class Index:
    """Plays a package index."""

    def __init__(self) -> None:
        self.body: bytes = json.dumps({"files": FILES}).encode()
        self.asked: list[tuple[str, str]] = []
        self.logins: list[str] = []
        self._server = make_server("127.0.0.1", 0, self, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.asked.append((environ["PATH_INFO"], environ["HTTP_ACCEPT"]))
        self.logins.append(environ.get("HTTP_AUTHORIZATION", ""))
        start_response("200 OK", [("Content-Length", str(len(self.body)))])
        return [self.body]

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    index = Index()
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url + "/")
    yield index
    index.close()


@pytest.fixture
def resolve(tmp_path: Path, index: Index, run_program: Any) -> Callable[..., tuple[int, str]]:
    """Resolve by a uv that notes what it is asked for."""

    def run(version: str, uv: str = "echo 'mlflow==x'") -> tuple[int, str]:
        program = tmp_path / "tools/bin/uv"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/bash\necho "$*" > {tmp_path}/words\n'
                           f"cat > {tmp_path}/wanted\n{uv}\n")  # fmt: skip
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return run_program("resolve_release.py", f"root={tmp_path}", version=version)

    return run


def test_a_version_is_locked_as_of_the_day_after_its_first_file(resolve, tmp_path, index):
    code, out = resolve("3.15.0")
    assert code == 0
    said, report = out.splitlines()
    assert said == "@say MLflow 3.15.0 is resolved as of 2026-03-02"
    assert json.loads(report.removeprefix("@report ")) == {"lock": "mlflow==x\n"}
    words = (tmp_path / "words").read_text()
    assert words.startswith("pip compile --quiet --generate-hashes ")
    assert f" --exclude-newer 2026-03-02 --python {sys.executable} -" in words
    assert "mlflow[auth]==3.15.0\n" in (tmp_path / "wanted").read_text()
    assert index.asked == [("/simple/mlflow/", "application/vnd.pypi.simple.v1+json")]


def test_a_version_that_never_came_out_names_the_nearest(resolve, tmp_path):
    assert resolve("3.15.1") == (
        1,
        "@fail There is no MLflow 3.15.1 in the package index. Did you mean 3.15.0?\n",
    )
    assert not (tmp_path / "words").exists()


@pytest.mark.parametrize("body", [b"<html>", b"{}"])
def test_an_index_that_tells_no_times_is_one_line(resolve, index, body):
    index.body = body
    code, out = resolve("3.15.0")
    assert code == 1
    assert out.startswith("@fail The package index does not tell when MLflow 3.15.0 came out: ")
    assert out.count("\n") == 1


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "error: it failed\n  cause: the index\n  is closed. More.",
            "the index is closed.",
        ),
        ("no solution", "no solution."),
        ("", "uv said nothing."),
    ],
)
def test_uv_s_first_reason_is_the_one_line(resolve, said, reason):
    code, out = resolve("3.15.0", f"printf '%s' {shlex.quote(said)} >&2; exit 1")
    assert code == 1
    assert out.splitlines()[-1] == (
        f"@fail The packages of MLflow 3.15.0 cannot be resolved: {reason}"
    )


def test_an_index_s_login_is_sent_as_a_header_and_never_shown(resolve, index, monkeypatch):
    login = "somebody:hidden%40word@"
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url.replace("//", f"//{login}"))
    assert resolve("3.15.0")[0] == 0
    assert base64.b64decode(index.logins[0].removeprefix("Basic ")) == b"somebody:hidden@word"
    index.body = b"<html>"
    assert "hidden" not in resolve("3.15.0")[1]


def test_uv_is_given_the_index_that_the_date_came_from(resolve, index, tmp_path):
    assert resolve("3.15.0", f'echo "$UV_DEFAULT_INDEX" > {tmp_path}/index')[0] == 0
    assert (tmp_path / "index").read_text().strip() == index.url
