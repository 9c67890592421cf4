"""From a blank host to a verified server, and no secret anywhere on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import CHAIN, ROOT, UNIT, Done, Host, Lab, processes

from tasks.engine.paths import PROJECT

# Writes every command line that it sees to a file, each once; a scan takes a few milliseconds.
SAMPLER = """
import glob, os, sys, time
seen, scans = set(), 0
with open("/root/e2e-commands", "wb", buffering=0) as found:
    while not os.path.exists("/root/e2e-stop"):
        for name in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                words = open(name, "rb").read().replace(b"\\0", b" ")
            except OSError:
                continue
            if words and words not in seen:
                seen.add(words)
                found.write(words + b"\\n")
        scans += 1
        time.sleep(0.02)
print(scans)
"""
CLIENT = """
import mlflow, mlflow.sklearn
from sklearn.linear_model import LinearRegression

mlflow.set_experiment("by a plain client")
with mlflow.start_run() as run:
    mlflow.log_param("alpha", 0.5)
    mlflow.log_metric("rmse", 1.5)
    model = mlflow.sklearn.log_model(LinearRegression().fit([[0], [1]], [0, 1]), name="model")
again = mlflow.sklearn.load_model(model.model_uri)
print(mlflow.get_run(run.info.run_id).data.params["alpha"], again.predict([[2]])[0].round())
"""
# A folder as it was logged, by files/client where that is installed.
FOLDER = """
import pathlib, sys, mlflow
from mlflow.artifacts import download_artifacts
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

def files(folder):
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}

sent, back = map(pathlib.Path, sys.argv[1:])
with mlflow.start_run() as run:
    mlflow.log_artifacts(sent, "many")
download_artifacts(run_id=run.info.run_id, artifact_path="many", dst_path=back)
assert files(back / "many") == files(sent)
print(type(get_artifact_repository(run.info.artifact_uri)).__name__)
"""


@dataclass
class First:
    """The first chain on a blank host, and what was seen while it ran."""

    host: Host
    done: Done
    commands: str
    scans: int
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def first(lab: Lab) -> Iterator[First]:
    with lab.blank() as host:
        with subprocess.Popen(
            ["nsenter", f"--target={host.pid}", "--all", "--", "python3", "-c", SAMPLER],
            stdout=subprocess.PIPE,
            text=True,
        ) as sampler:
            try:
                done = host.fab(*CHAIN, "verify", timeout=600)
            finally:
                host.run("touch /root/e2e-stop")
                scans, _ = sampler.communicate(timeout=30)
        key = host.run(f"sed -n s/^MLFLOW_FLASK_SERVER_SECRET_KEY=//p {ROOT}/server.env")
        secrets = {
            "AWS secret": lab.keys["AWS_SECRET_ACCESS_KEY"],
            "password": host.login()[1],
            "server's secret key": key,
        }
        assert all(len(secret) > 20 for secret in secrets.values())
        yield First(host, done, host.run("cat /root/e2e-commands"), int(scans), secrets)


class TestTheFirstChain:
    """One blank host for all of them."""

    def test_the_chain_turns_a_blank_host_into_a_verified_server(self, first: First) -> None:
        assert "verified: login, tracking, model, registry and artifacts work" in first.done.out
        assert first.done.err == ""
        first.host.healthy()
        print(f"the chain took {first.done.seconds:.0f} s")

    def test_a_client_with_only_three_variables_logs_a_run_and_a_model(
        self, first: First, lab: Lab
    ) -> None:
        with variables(first.host) as environment:
            assert last_line_of(CLIENT, environment) == "0.5 2.0"
            assert [p for p in processes.marked(lab.mark) if p.argv[0] == "ssh"]
        assert not [p for p in processes.marked(lab.mark) if p.argv[0] == "ssh"]

    def test_a_folder_of_many_files_arrives_whole_by_files_client(
        self, first: First, tmp_path: Path
    ) -> None:
        for number in range(200):
            file = tmp_path / f"sent/{number % 7}/deep/{number} é.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(number * 100))
        (tmp_path / "sent/large.bin").write_bytes(os.urandom(20_000_000))
        installed = tmp_path / "installed"
        uv = [sys.executable, "-m", "uv", "pip", "install", "--no-deps", "--target", installed]
        subprocess.run([*uv, PROJECT / "files/client"], check=True, capture_output=True)
        with variables(first.host) as environment:
            environment["PYTHONPATH"] = str(installed)
            said = last_line_of(FOLDER, environment, tmp_path / "sent", tmp_path / "back")
        assert said == "ParallelArtifactsRepository"

    def test_no_process_on_the_host_ever_shows_a_secret(self, first: First) -> None:
        # It looked often enough to have seen the short ones, too.
        assert first.scans > 10 * first.done.seconds
        assert "prove_bucket.py" in first.commands
        assert "mlflow server" in first.commands
        shown = [name for name, secret in first.secrets.items() if secret in first.commands]
        assert shown == []

    def test_neither_output_nor_unit_nor_journal_nor_any_readable_file_holds_a_secret(
        self,
        first: First,
    ) -> None:
        host = first.host
        places = {
            "output": first.done.out + first.done.err,
            "units": host.run(f"systemctl cat {UNIT}.service {UNIT}.socket"),
            "properties": host.run(f"systemctl show {UNIT}.service {UNIT}.socket"),
            "journal": host.run("journalctl --no-pager -o json"),
            "audit log": host.audit(),
        }
        found = [
            (name, place)
            for name, secret in first.secrets.items()
            for place, text in places.items()
            if secret in text
        ]
        assert found == []
        assert files_with(first.secrets, host, "-perm /o=r") == []

    def test_secrets_stand_in_the_two_private_files_and_the_password_in_none(
        self, first: First
    ) -> None:
        holding = files_with(first.secrets, first.host, "")
        assert sorted(holding) == ["/home/ubuntu/.aws/credentials", f"{ROOT}/server.env"]
        assert first.host.run(f"stat -c %a {' '.join(holding)}").split() == ["600", "600"]
        ini = first.host.run(f"cat {ROOT}/.mlflow_auth_config; echo .")
        assert "\nadmin_password =\n" in ini

    def test_plain_fab_from_the_environment_works_the_same(self, first: First, lab: Lab) -> None:
        ours = first.host.fab(*CHAIN)
        plain = first.host.fab(*CHAIN, program=lab.clone / ".venv/bin/fab", cwd=lab.clone)
        assert plain.out == ours.out
        status = first.host.fab(
            "status", "--json", program=lab.clone / ".venv/bin/fab", cwd=lab.clone / "files"
        )
        assert json.loads(status.out)[0]["state"] == "running"


@contextmanager
def variables(host: Host) -> Iterator[dict[str, str]]:
    """Open the tunnel for the block; gives the environment of a client with three variables."""
    username, password = host.login()
    with host.tunnel() as uri:
        yield {
            "PATH": os.environ["PATH"],
            "HOME": str(host.home),
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_TRACKING_USERNAME": username,
            "MLFLOW_TRACKING_PASSWORD": password,
        }


def last_line_of(script: str, environment: dict[str, str], *words: Path) -> str:
    """Run a client's program in its home; returns what it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env=environment,
        cwd=environment["HOME"],
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def files_with(secrets: dict[str, str], host: Host, condition: str) -> list[str]:
    """List the files on the host, of those that meet find's condition, that hold a secret."""
    text = host.run(
        "umask 077; cat > /root/e2e-patterns; trap 'rm /root/e2e-patterns' EXIT; "
        f"find / /run /tmp -xdev -type f {condition} -not -name 'e2e-*' -print0 |"
        " xargs -0 grep -lF -f /root/e2e-patterns",
        stdin="\n".join(secrets.values()),
        code=None,
    )
    return text.splitlines()
