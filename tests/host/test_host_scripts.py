"""What runs on the host: the scripts by bash itself, the programs against moto on loopback."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from host_side import (
    HOST,
    OTHER_KEY,
    Machine,
    Quiet,
    Store,
    execute,
    place_in,
    program,
    signed,
)  # fmt: skip
from werkzeug.serving import make_server

from tasks.engine.change import Change, bundle
from tasks.engine.login import Keys
from tasks.engine.templates import source

# -- shell -------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", sorted(HOST.glob("*.sh")), ids=lambda path: path.name)
def test_every_shell_script_is_bash(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_program_is_python_that_an_old_host_understands():
    import ast

    for file in HOST.glob("*.py"):
        ast.parse(file.read_text(), feature_version=(3, 10))


def test_a_change_is_made_and_leaves_an_audit_line(machine):
    assert machine.change('say "in $root"') == ["@say what", f"@say in {machine.root}", "@exit 0"]
    begun, done = machine.lines
    assert begun[1:] == ["me@laptop", "task", "begun"]
    assert done[1:] == ["me@laptop", "task", "done"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", done[0])


def test_nothing_of_a_change_stays_but_what_it_made(machine):
    machine.change('place "$here/secret" "$root/kept" 0640', secret="x")
    assert not machine.staged.exists()
    assert (machine.root / "kept").read_text() == "x"
    assert (machine.root / "kept").stat().st_mode & 0o777 == 0o640
    assert machine.root.stat().st_mode & 0o777 == 0o700
    assert sorted(file.name for file in machine.root.iterdir()) == [".lock", "audit.log", "kept"]


def test_what_a_step_makes_is_closed_to_others(machine):
    machine.change('echo x > "$root/made"')
    assert (machine.root / "made").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("script", "said", "code"),
    [
        ("fail broken", ["@fail broken"], 1),
        ("echo noise >&2; exit 7", ["noise"], 7),
        ("false; say never", [], 1),
        ("false | cat; say never", [], 1),
        ('echo "$not_there"', None, 1),
        ("printf 'no end of line'; exit 3", ["no end of line"], 3),
    ],
)
def test_a_step_that_fails_ends_the_change_and_says_its_code(machine, script, said, code):
    lines = machine.change(script)
    assert lines[-1] == f"@exit {code}"
    assert said is None or lines[1:-1] == said
    assert machine.lines[-1][3] == f"failed ({code})"
    assert not machine.staged.exists()


def test_a_host_that_changed_since_it_was_looked_at_is_left_alone(machine):
    machine.change("true")
    assert machine.change('touch "$root/x"', generation=0) == ["@exit 76"]
    assert not (machine.root / "x").exists()
    assert len(machine.lines) == 2


@contextlib.contextmanager
def held(machine: Machine, session: int) -> Iterator[None]:
    machine.root.mkdir(exist_ok=True)
    with (machine.root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"you@desk\t2026-11-22T10:00:00Z\tinstall\t4711\t{session}\n")
        lock.flush()
        yield


def test_a_held_lock_says_who_and_since_when_and_nothing_is_done(machine):
    with held(machine, os.getpid()):
        lines = machine.change('touch "$root/x"')
    assert lines == ["@held you@desk\t2026-11-22T10:00:00Z\tinstall\t4711", "@exit 75"]
    assert not (machine.root / "x").exists()
    assert not machine.audit.exists()


@pytest.mark.parametrize(
    ("holder", "patience", "said"),
    [
        (
            "timer",
            "0",
            b"@say the scheduled backup is at work; waiting for it to finish\n@say what",
        ),
        # What a timer begins waits for an operator, without a word.
        ("you@desk", "20", b"@say what"),
    ],
)
def test_timer_and_operator_wait_for_each_other(machine, holder, patience, said):
    with held(machine, os.getpid()), (machine.root / ".lock").open("w") as lock:
        lock.write(f"{holder}\t2026-11-22T10:00:00Z\tbackup\t4711\t{os.getpid()}\n")
        lock.flush()
        process = subprocess.Popen(
            machine.command(0), env=machine.environment | {"REMOTE_MLFLOW_PATIENCE": patience},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(bundle([Change("what", "true")]))
        process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert not machine.audit.exists()
    assert process.stdout.read() == said + b"\n\n@exit 0\n"
    process.wait()


def test_a_later_step_of_a_chain_waits_its_turn_and_says_for_whom(machine):
    with held(machine, os.getpid()):
        process = subprocess.Popen(
            [*machine.command(0), "20"], env=machine.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(bundle([Change("what", "true")]))
        process.stdin.close()
        assert process.stdout.readline().decode() == (
            "@say install by you@desk is at work since 2026-11-22T10:00:00Z; waiting for it to "
            "finish\n"
        )
        assert not machine.audit.exists()
    assert b"@exit 0" in process.stdout.read()
    process.wait()


def test_work_whose_connection_was_lost_is_waited_for(machine):
    gone = subprocess.Popen(["true"])
    gone.wait()
    with held(machine, gone.pid):
        process = subprocess.Popen(
            machine.command(0), env=machine.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(bundle([Change("what", "true")]))
        process.stdin.close()
        line = process.stdout.readline().decode()
        assert line.startswith("@say install by you@desk lost its connection at work; waiting")
    assert b"@exit 0" in process.stdout.read()
    process.wait()


def test_the_lock_names_its_holder(machine):
    machine.change("true")
    who, _, task, pid, session = (machine.root / ".lock").read_text().split("\t")
    assert (who, task) == ("me@laptop", "task")
    assert pid.isdigit()
    assert session.strip().isdigit()


def test_a_change_goes_on_to_its_end_although_nobody_reads_any_more(machine):
    process = subprocess.Popen(
        machine.command(0), env=machine.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    script = 'say begun; for n in $(seq 2000); do echo "noise $n"; done; touch "$root/end"'
    process.stdin.write(bundle([Change("what", script)]))
    process.stdin.close()
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=20)
    assert (machine.root / "end").exists()
    assert machine.lines[-1][3] == "done"


def test_a_look_leaves_no_trace_and_waits_for_nobody(machine):
    (machine.root).mkdir()
    with (machine.root / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = subprocess.run(
            ["bash", "-c", source("receive.sh"), "remote-mlflow", "look.sh", str(machine.root)],
            input=bundle([Change("a question", 'echo "@report $(cat "$here/secret")"',
                                 {"secret": "42"})], "look.sh"),
            env=machine.environment, capture_output=True, timeout=20,
        )  # fmt: skip
    assert done.stdout.decode().split("\n") == ["@report 42", "", "@exit 0", ""]
    assert not machine.audit.exists()
    assert not machine.staged.exists()


def test_a_bundle_that_was_cut_short_changes_nothing(machine):
    whole = bundle([Change("what", 'touch "$root/x"', {"big": "x" * 100_000})])
    done = subprocess.run(
        machine.command(0), input=whole[:60_000], env=machine.environment, capture_output=True
    )
    assert done.returncode != 0
    assert b"@exit 0" not in done.stdout
    assert not machine.root.exists()


def test_no_secret_of_a_change_stands_in_the_process_list(machine):
    # The pattern does not match itself, as it stands in the command line of the search.
    search = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'hidden[-]word'"
    told = f"if {search}; then say told; else say untold; fi"
    assert machine.change(told, login="hidden-word")[1] == "@say untold"
    careless = "(exec -a hidden-word sleep 9) > /dev/null 2>&1 & until " + search + "; do :; done\n"
    assert machine.change(f"set +o pipefail; {careless}{told}; kill $!")[1] == "@say told"


def test_the_secret_key_is_made_once_and_never_again(machine):
    script = source("make_server_env.sh")
    uri = "postgresql://u@h/d%40?a=b&c"
    machine.change(script, stores=f"MLFLOW_BACKEND_STORE_URI='{uri}'\n")
    first = (machine.root / "server.env").read_text()
    machine.change(script, stores="MLFLOW_BACKEND_STORE_URI='other'\n")
    assert (machine.root / "server.env").read_text() == first
    assert (machine.root / "server.env").stat().st_mode & 0o777 == 0o600
    names = (
        "MLFLOW_BACKEND_STORE_URI MLFLOW_FLASK_SERVER_SECRET_KEY "
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
    )
    show = f'set -a; . "$1"; set +a; printenv {names}'
    done = subprocess.run(
        ["bash", "-euc", show, "bash", machine.root / "server.env"], capture_output=True, text=True
    )
    seen, key, webhooks = done.stdout.splitlines()
    assert seen == uri
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert re.fullmatch("[A-Za-z0-9_-]{43}=", webhooks)
    Fernet(webhooks)  # as MLflow takes it


def test_a_server_env_that_lost_its_key_gets_one_and_keeps_the_rest(machine):
    machine.root.mkdir()
    kept = "MLFLOW_BACKEND_STORE_URI='sqlite:////x/mlflow.db'\nOTHER=value\n"
    (machine.root / "server.env").write_text("# Made once\n" + kept)
    machine.change(source("make_server_env.sh"), stores="MLFLOW_BACKEND_STORE_URI='other'\n")
    lines = (machine.root / "server.env").read_text().splitlines(keepends=True)
    assert re.fullmatch("MLFLOW_FLASK_SERVER_SECRET_KEY=[0-9a-f]{64}\n", lines[1])
    assert re.fullmatch("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=[A-Za-z0-9_-]{43}=\n", lines[2])
    assert "".join(lines[3:]) == kept


def test_a_server_env_of_a_former_project_gets_the_key_of_webhooks_and_keeps_its_own(machine):
    machine.root.mkdir()
    kept = "MLFLOW_FLASK_SERVER_SECRET_KEY=abc\nMLFLOW_BACKEND_STORE_URI='sqlite:///x'\nX=1"
    (machine.root / "server.env").write_text(kept)
    machine.change(source("make_server_env.sh"), stores="")
    _, key, *rest = (machine.root / "server.env").read_text().splitlines()
    assert key.startswith("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=")
    assert rest == kept.splitlines()


# -- write_aws.py ------------------------------------------------------------------------------


@pytest.fixture
def write_aws(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    def write(
        credentials: dict[str, str], config: dict[str, str], profile: str = "default"
    ) -> None:
        request = {"profile": profile, "credentials": credentials, "config": config}
        assert program(capsys, "write_aws.py", **request) == (0, "")

    return write


KEYS = Keys("AKIA", "s3cr3t/+=")


def test_keys_are_written_for_their_owner_alone(write_aws, home):
    write_aws(KEYS.profile(), {"region": "eu-west-1"})
    folder = home / ".aws"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "credentials").stat().st_mode & 0o777 == 0o600
    assert (folder / "credentials").read_text() == (
        "[default]\naws_access_key_id = AKIA\naws_secret_access_key = s3cr3t/+=\n"
    )
    assert (folder / "config").read_text() == "[default]\nregion = eu-west-1\n"
    assert sorted(file.name for file in folder.iterdir()) == ["config", "credentials"]


def test_nothing_is_written_where_nothing_is_wanted(write_aws, home):
    write_aws({}, {})
    assert not (home / ".aws").exists()


FORMER = """\
# my own comment
[work]
aws_access_key_id = WORK
aws_secret_access_key = work

[ default ]
; another comment
aws_access_key_id = OLD
aws_secret_access_key=old
aws_session_token = old-token
region = us-east-1

[more]
aws_session_token = more
"""


def test_other_profiles_comments_and_keys_are_kept(write_aws, home):
    (home / ".aws").mkdir()
    file = home / ".aws/credentials"
    file.write_text(FORMER)
    file.chmod(0o644)
    write_aws(KEYS.profile(), {})
    assert file.read_text() == FORMER.replace(
        "[ default ]\n",
        "[ default ]\naws_access_key_id = AKIA\naws_secret_access_key = s3cr3t/+=\n",
    ).replace(
        "aws_access_key_id = OLD\naws_secret_access_key=old\naws_session_token = old-token\n", ""
    )
    assert file.stat().st_mode & 0o777 == 0o600


def test_writing_twice_changes_nothing(write_aws, home):
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(FORMER)
    write_aws(KEYS.profile(), {"region": "eu-west-1"})
    once = {file.name: file.read_text() for file in (home / ".aws").iterdir()}
    write_aws(KEYS.profile(), {"region": "eu-west-1"})
    assert {file.name: file.read_text() for file in (home / ".aws").iterdir()} == once


@pytest.mark.parametrize("profile", ["default", "work"])
def test_botocore_reads_what_was_written(write_aws, home, profile, monkeypatch):
    import botocore.session

    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text("[a]\naws_access_key_id = A")  # no end of line
    write_aws(
        Keys("AKIA", "s3cr3t/+=", "token==").profile(),
        {"region": "eu-west-1", "endpoint_url": "http://minio:9000"},
        profile,
    )
    monkeypatch.setenv("AWS_PROFILE", profile)
    session = botocore.session.Session()
    found = session.get_credentials()
    assert (found.access_key, found.secret_key, found.token) == ("AKIA", "s3cr3t/+=", "token==")
    assert session.get_config_variable("region") == "eu-west-1"


# -- prove_bucket.py ---------------------------------------------------------------------------

Prove = Callable[..., tuple[int, str]]


@pytest.fixture
def prove(store: Store, capsys: pytest.CaptureFixture[str]) -> Prove:
    def run(bucket: str = "my-bucket", region: str = "", endpoint: str | None = None):
        url = store.url if endpoint is None else endpoint
        place = place_in(store, bucket=bucket, region=region, endpoint=url)
        return program(capsys, "prove_bucket.py", place=place)

    return run


KEY = f"/my-bucket/mlflow-artifacts/.remote-mlflow-proof-{socket.gethostname()}"


def test_a_bucket_that_can_be_used_is_proved_and_left_as_it_was(prove, store):
    assert prove() == (0, "")
    methods = [request.split("?")[0] for request in store.requests]
    assert methods == [
        "HEAD /my-bucket", "GET /my-bucket", f"PUT {KEY}", f"GET {KEY}", f"DELETE {KEY}",
    ]  # fmt: skip
    assert "prefix=mlflow-artifacts%2F" in store.requests[1]
    assert store.listing() == []


def test_a_missing_bucket_is_named(prove):
    code, out = prove("no-such-bucket")
    assert code == 1
    assert out == (
        "@fail The bucket no-such-bucket does not exist. Create it, or fix `bucket:` in "
        "fabric.yaml.\n"
    )


def test_a_look_tells_whose_the_prefix_is(look, store):
    mark = {"server": "0badcafe", "host": "web2", "since": "2026-01-02T03:04:05Z"}
    key = "mlflow-artifacts/.remote-mlflow-owner.json"
    store.client().put_object(Bucket="my-bucket", Key=key, Body=json.dumps(mark).encode())
    assert look()["owner"] == mark


@pytest.mark.parametrize(
    ("pattern", "permission"),
    [
        ("(HEAD|GET) /my-bucket(\\?|$)", "s3:ListBucket"),
        ("GET /my-bucket\\?", "s3:ListBucket"),
        (f"PUT {KEY}", "s3:PutObject"),
        (f"GET {KEY}", "s3:GetObject"),
    ],
)
def test_a_missing_permission_is_named(prove, store, pattern, permission):
    store.refuse(pattern)
    code, out = prove()
    assert code == 1
    assert out == (
        f"@fail {permission} on s3://my-bucket/mlflow-artifacts/* is denied to the host's "
        "credentials. Allow it in their policy, then run the same command again.\n"
    )


def test_a_missing_delete_is_a_warning_and_the_next_proof_reuses_the_object(prove, store):
    store.refuse(f"DELETE {KEY}")
    for _ in range(2):
        code, out = prove()
        assert code == 0
        assert out.startswith(
            "@warn s3:DeleteObject on s3://my-bucket/mlflow-artifacts/* is denied"
        )
        assert out.count("\n") == 1
    assert store.listing() == [KEY.removeprefix("/my-bucket/")]


@pytest.mark.parametrize(
    "code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"]
)
def test_wrong_keys_are_told_from_missing_permissions(prove, store, code):
    store.refuse("HEAD|GET", code)
    exited, out = prove()
    assert exited == 1
    assert out.startswith(f"@fail AWS refuses the credentials on the host ({code}).")


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have botocore's pauses between two tries last no time."""
    from botocore.retries import standard

    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda *_: 0)


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown")])
@pytest.mark.parametrize("request_", ["HEAD /my-bucket", "GET /my-bucket", f"PUT {KEY}"])
def test_a_failure_of_the_store_s_that_passes_is_tried_again(prove, store, status, code, request_):
    store.refuse(request_, code, status, times=2)
    assert prove() == (0, "")


@pytest.mark.usefixtures("_hasty")
def test_a_failure_of_the_store_s_is_called_that(prove, store):
    store.refuse("GET /my-bucket", "InternalError", 500)
    code, out = prove()
    assert code == 1
    assert out == (
        "@fail The store itself fails: it answers ListObjectsV2 with 500 (InternalError). No "
        "setting is the cause, and it usually passes: run the same command again in a few "
        "minutes.\n"
    )
    assert len([request for request in store.requests if request.startswith("GET")]) == 4


def test_a_wrong_clock_is_named(prove, store):
    store.refuse("HEAD|GET", "RequestTimeTooSkewed")
    assert "The host's clock is wrong" in prove()[1]


def test_a_wrong_region_names_the_right_one(prove, store):
    store.client("eu-west-1").create_bucket(
        Bucket="in-ireland", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    code, out = prove("in-ireland", region="us-east-2")
    assert code == 1
    assert out == (
        "@fail The bucket in-ireland is in region eu-west-1, not us-east-2. Set "
        "`region: eu-west-1` in fabric.yaml.\n"
    )
    assert prove("in-ireland", region="eu-west-1") == (0, "")


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"AWS_ACCESS_KEY_ID": "toy"}, "lack one of their two keys"),
        ({}, "The host has no AWS credentials"),
        ({"AWS_PROFILE": "nowhere"}, "Fix `profile:` in fabric.yaml"),
    ],
)
def test_keys_that_are_not_there_are_told_apart(prove, monkeypatch, variables, wanted):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, out = prove()
    assert code == 1
    assert out.startswith("@fail ")
    assert wanted in out
    assert out.count("\n") == 1


def test_a_file_of_keys_that_cannot_be_read_is_one_line(prove, home, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text("no section\n")
    code, out = prove()
    assert code == 1
    assert out.startswith("@fail S3 cannot be used from the host: ")


def test_a_store_that_cannot_be_reached_says_where_to_look(prove):
    code, out = prove(endpoint="http://127.0.0.1:9")
    assert code == 1
    assert out.startswith("@fail The host cannot reach S3 (")
    assert "outbound network" in out


def test_a_store_that_gives_back_something_else_is_found_out(prove, store):
    store.refuse(f"GET {KEY}", status=200)
    assert "does not hold what was written to it" in prove()[1]


# -- clean_trial.py ----------------------------------------------------------------------------


class Tracking:
    """Plays MLflow's store: one experiment, and what was removed."""

    name = "remote-mlflow-verify-0123456789ab"
    lifecycle = "deleted"
    others: tuple[tuple[str, str, float], ...] = ()  # number, name, made (milliseconds)
    removed: list[str]

    def __init__(self, uri: str, root: str) -> None:
        from sqlalchemy import create_engine, text

        Tracking.removed = []
        self.engine = create_engine("sqlite://")
        with self.engine.begin() as rows:
            rows.execute(text("create table inputs (source_id)"))

    def get_experiment(self, number: str) -> Any:
        return types.SimpleNamespace(
            name=self.name, lifecycle_stage=self.lifecycle, experiment_id=number,
            creation_time=time.time() * 1000,
        )  # fmt: skip

    def search_experiments(self, **options: Any) -> list[Any]:
        return [
            types.SimpleNamespace(
                name=name, lifecycle_stage="deleted", experiment_id=number, creation_time=made
            )
            for number, name, made in self.others
        ]

    def delete_experiment(self, number: str) -> None:
        Tracking.removed.append(f"to the bin: {number}")

    def search_runs(self, *given: Any, **options: Any) -> list[Any]:
        return [types.SimpleNamespace(info=types.SimpleNamespace(run_id="run-1"))]

    def search_logged_models(self, numbers: list[str]) -> list[Any]:
        return [types.SimpleNamespace(model_id="m-1")]

    def _hard_delete_run(self, run: str) -> None:
        Tracking.removed.append(run)

    def _hard_delete_logged_model(self, model: str) -> None:
        Tracking.removed.append(model)

    def _hard_delete_experiment(self, number: str) -> None:
        Tracking.removed.append(number)


class Registry:
    """Plays the registry, which has the trial's model."""

    def __init__(self, uri: str) -> None:
        pass

    def search_registered_models(self, wanted: str) -> list[str]:
        return [wanted]

    def delete_registered_model(self, name: str) -> None:
        Tracking.removed.append(name)


@pytest.fixture
def clean(
    store: Store, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    modules = {
        "mlflow": {},
        "mlflow.entities": {"ViewType": types.SimpleNamespace(ALL=3)},
        "mlflow.store": {},
        "mlflow.store.tracking": {},
        "mlflow.store.tracking.sqlalchemy_store": {"SqlAlchemyStore": Tracking},
        "mlflow.store.model_registry": {},
        "mlflow.store.model_registry.sqlalchemy_store": {"SqlAlchemyStore": Registry},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    Tracking.removed = []
    grants = root / "grants.db"
    with contextlib.closing(sqlite3.connect(grants)) as database, database:
        database.execute("create table role_permissions (resource_type, resource_pattern)")
        database.executemany(
            "insert into role_permissions values (?, ?)",
            [
                ("experiment", "7"),
                ("experiment", "8"),
                ("registered_model", "7"),
                ("registered_model", Tracking.name),
            ],
        )
    (root / ".mlflow_auth_config").write_text(f"[mlflow]\ndatabase_uri = sqlite:///{grants}\n")
    for key in OURS + OTHERS:
        store.client().put_object(Bucket="my-bucket", Key=f"mlflow-artifacts/{key}", Body=b"x")

    def run(experiment: str = "7") -> tuple[int, str]:
        return program(
            capsys, "clean_trial.py", f"root={root}",
            place=place_in(store), experiment=experiment,
        )  # fmt: skip

    return run


# Two servers on one prefix both have an experiment 7.
OURS = ("7/run-1/artifacts/note.txt", "7/models/m-1/artifacts/model.pkl")
OTHERS = ("7/run-of-another-server/artifacts/a", "70/run-1/b", "8/c")


def report(out: str) -> dict[str, Any]:
    return json.loads(out.removeprefix("@report "))


def test_only_the_trial_s_own_objects_and_rows_are_removed(clean, store, root):
    code, out = clean()
    assert code == 0
    assert report(out) == {"found": 2, "left": 0, "place": "s3://my-bucket/mlflow-artifacts/7/"}
    assert store.listing() == sorted(f"mlflow-artifacts/{key}" for key in OTHERS)
    assert Tracking.removed == ["m-1", "run-1", "7"]
    with contextlib.closing(sqlite3.connect(root / "grants.db")) as grants:
        assert grants.execute("select * from role_permissions").fetchall() == [
            ("experiment", "8"),
            ("registered_model", "7"),
        ]


def test_objects_that_cannot_be_deleted_are_counted(clean, store):
    store.refuse("DELETE")
    assert report(clean()[1]) == {
        "found": 2,
        "left": 2,
        "place": "s3://my-bucket/mlflow-artifacts/7/",
    }
    assert len(store.listing()) == len(OURS + OTHERS)


def test_a_trial_that_failed_midway_leaves_nothing(clean, monkeypatch):
    monkeypatch.setattr(Tracking, "lifecycle", "active")
    assert clean()[0] == 0
    assert Tracking.removed == ["to the bin: 7", Tracking.name, "m-1", "run-1", "7"]


def test_a_bucket_that_fails_keeps_no_rows(clean, store):
    store.refuse("GET")
    code, out = clean()
    assert (code, report(out)["found"]) == (0, None)
    assert Tracking.removed == ["m-1", "run-1", "7"]


def test_trials_that_were_cut_off_go_as_well(clean, monkeypatch):
    now = time.time() * 1000
    name = "remote-mlflow-verify-aaaaaaaaaaa"
    monkeypatch.setattr(Tracking, "others", (
        ("3", name + "1", now - 7200e3), ("4", name + "2", now - 60e3),
        ("5", name + "1-of-mine", now - 7200e3), ("6", "my " + name + "1", now - 7200e3),
        ("7", Tracking.name, now - 7200e3),
    ))  # fmt: skip
    code, out = clean()
    assert (code, report(out)["place"]) == (0, "s3://my-bucket/mlflow-artifacts/7/")
    assert [each for each in Tracking.removed if each.isdigit()] == ["7", "3"]


def test_an_experiment_that_is_somebody_s_own_is_never_touched(clean, store, monkeypatch):
    monkeypatch.setattr(Tracking, "name", "my precious experiment")
    code, out = clean()
    assert code == 1
    assert out == "@fail experiment 7 is not a trial's; nothing was removed\n"
    assert len(store.listing()) == len(OURS + OTHERS)
    assert Tracking.removed == []


def test_a_trial_that_made_nothing_leaves_nothing_to_clean(clean, store):
    assert report(clean("")[1]) == {"found": 0, "left": 0, "place": ""}
    assert len(store.listing()) == len(OURS + OTHERS)


# -- deep_check.py -----------------------------------------------------------------------------


NOBODY = "Basic Om5vYm9keQ=="  # who has no name, and the password nobody


class Server:
    """Plays the deployed server: answers by path, with and without a login."""

    def __init__(self) -> None:
        self.health, self.without, self.search, self.artifacts = 200, 401, 200, 200
        self.logins: list[str] = []
        self._server = make_server("127.0.0.1", 0, self, request_handler=Quiet)
        self.port = str(self._server.server_port)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        login = environ.get("HTTP_AUTHORIZATION")
        path = environ["PATH_INFO"]
        if path == "/health":
            status = self.health
        elif login in (None, NOBODY):
            status = self.without
        else:
            self.logins.append(login)
            status = self.artifacts if "artifacts" in path else self.search
        start_response(f"{status} x", [("Content-Length", "0")])
        return [b""]

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def login() -> dict[str, str]:
    return {"username": "admin", "password": "pässwörd: 100%"}


def test_a_usable_server_passes_with_any_password(server, login, capsys):
    import base64

    assert program(capsys, "deep_check.py", port=server.port, login=login) == (0, "")
    assert len(server.logins) == 2
    decoded = base64.b64decode(server.logins[0].removeprefix("Basic ")).decode()
    assert decoded == "admin:pässwörd: 100%"


def test_without_a_login_only_what_needs_none_is_asked(server, capsys):
    assert program(capsys, "deep_check.py", port=server.port, login=None) == (0, "")
    assert server.logins == []


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"health": 503}, "The server's /health says 503"),
        ({"without": 200}, "The server answers 200 without a login, where 401 is right"),
        ({"search": 401}, "The server refuses the password of admin"),
        ({"search": 403}, "The server refuses the Host header"),
        ({"search": 500}, "The server cannot search its database (500)"),
        ({"artifacts": 500}, "The server cannot list the bucket (500)"),
    ],
)
def test_each_failure_is_told_from_the_others(server, login, capsys, values, wanted):
    for name, value in values.items():
        setattr(server, name, value)
    code, out = program(capsys, "deep_check.py", port=server.port, login=login)
    assert code == 1
    assert out.startswith(f"@fail {wanted}")
    assert out.count("\n") == 1
    assert "pässwörd" not in out


def test_a_server_that_does_not_answer_is_one_line(capsys):
    code, out = program(capsys, "deep_check.py", port=9, login=None)
    assert code == 1
    assert out.startswith("@fail The server does not answer on port 9")


def test_a_proxy_of_the_host_s_does_not_come_between(server, login, capsys, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert program(capsys, "deep_check.py", port=server.port, login=login) == (0, "")


# -- install_packages.sh -----------------------------------------------------------------------


def apt(machine: Machine, script: str, packages: str = "nginx git", beside: str = "") -> list[str]:
    """Install packages with an apt-get that answers as it is told; `beside` runs beside git."""
    for name, body in {
        "apt-get": script,
        "sudo": 'shift; exec "$@"',
        "sleep": "exit 0",
        "systemctl": f'echo "$*" >> "{machine.folder}/systemctl"',
        "dpkg-query": "exit 1",
        "dpkg": "exit 0",
    }.items():
        machine.stub(name, body)
    words = f"packages={shlex.quote(packages)} first=python3-venv\n"
    if beside:
        words += f"beside() {{\n{beside}\n}}\n"
    return machine.change(f"{words}{source('install_packages.sh')}")


def test_packages_are_installed_without_a_question(machine):
    lines = apt(
        machine,
        f'echo "$DEBIAN_FRONTEND $NEEDRESTART_SUSPEND $*" >> "{machine.folder}/apt"',
        "git curl",
    )
    assert lines[-1] == "@exit 0"
    update, install = (machine.folder / "apt").read_text().splitlines()
    assert update.startswith("noninteractive 1 -q -y ")
    assert update.endswith(" -o Acquire::Languages=none -o APT::Get::List-Cleanup=false update")
    assert install.endswith(" install --no-install-recommends git curl")
    assert "--force-confold" in install


def test_what_apt_is_doing_is_told_once_each_and_kept_out_of_its_output(machine):
    status = "printf '%s\\n' {} 'E: broken' && exit 100"
    lines = apt(
        machine,
        status.format(
            "'dlstatus:1:0.0:Retrieving file 1 of 2 (9s remaining)' "
            "'dlstatus:1:5.0:Retrieving file 1 of 2 (8s remaining)' "
            "'pmstatus:nginx:50.0:Unpacking nginx (amd64)'"
        ),
    )
    told = [line for line in lines if line.startswith("@now")]
    assert told == ["@now apt: retrieving file 1 of 2", "@now apt: unpacking nginx"]
    assert [line for line in lines if not line.startswith("@")] == ["E: broken"]
    assert lines[-1] == "@exit 1"


def test_a_held_apt_lock_is_waited_for_and_said_once(machine):
    held = (
        'n=$(cat "$0.n" 2>/dev/null || echo 0); echo $((n + 1)) > "$0.n"\n'
        'if [ "$n" -lt 3 ]; then echo "E: Could not get lock /var/lib/dpkg/lock-frontend. '
        'It is held by process 4711 (unattended-upgr)" >&2; exit 100; fi'
    )
    lines = apt(machine, held)
    assert lines[-1] == "@exit 0"
    assert [line for line in lines if "apt is busy" in line] == [
        "@say apt is busy with something else (process 4711 (unattended-upgr)), as on every new "
        "instance; waiting"
    ]


def test_a_host_without_network_is_told_so(machine):
    lines = apt(machine, 'echo "E: Temporary failure resolving archive.example.org"; exit 100')
    assert lines[-1] == "@exit 1"
    assert any(line.startswith("@fail The host cannot reach its package archive") for line in lines)


def test_environments_are_made_while_apt_installs_all_but_what_they_need(machine):
    noted = f'echo "$*" >> "{machine.folder}/apt"'
    lines = apt(
        machine,
        f'{noted}; case "$*" in *" git") until [ -e "$HOME/made" ]; do /bin/sleep 0.1; done;; esac',
        "python3-venv git",
        beside='echo one >> "$HOME/made"',
    )
    assert lines[-1] == "@exit 0"
    asked = [line.split()[-1] for line in (machine.folder / "apt").read_text().splitlines()]
    assert asked[:2] == ["update", "python3-venv"]
    assert (machine.home / "made").read_text() == "one\n", "once, while apt was at work"


def test_what_failed_beside_apt_is_done_again_and_says_why(machine):
    again = 'echo x >> "$HOME/tried"; [ "$(wc -l < "$HOME/tried")" = 2 ] || fail "no network"'
    assert apt(machine, "exit 0", "git", beside=again) == ["@say what", "@exit 0"]
    (machine.home / "tried").unlink()
    lines = apt(machine, "exit 0", "git", beside='echo x >> "$HOME/tried"; fail "no network"')
    assert lines[-2:] == ["@fail no network", "@exit 1"]
    assert (machine.home / "tried").read_text() == "x\nx\n"


def test_what_runs_beside_an_apt_that_fails_comes_to_its_end(machine):
    broken = 'case "$*" in *" git") exit 1;; esac'
    lines = apt(machine, broken, "git", beside='/bin/sleep 1; touch "$HOME/made"')
    assert lines[-1] == "@exit 1"
    assert (machine.home / "made").exists()


def test_a_fresh_nginx_never_starts_by_itself(machine):
    apt(machine, "exit 0")
    assert (machine.folder / "systemctl").read_text().splitlines() == [
        "mask --runtime --quiet nginx.service",
        "unmask --runtime --quiet nginx.service",
    ]


# -- look_at_bucket.py -------------------------------------------------------------------------


@pytest.fixture
def look(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    def run(
        bucket: str = "my-bucket", region: str = "", endpoint: str = "", root: Path | str = ""
    ) -> dict[str, Any]:
        place = place_in(store, bucket=bucket, region=region, endpoint=endpoint or store.url)
        request = {"place": place, "backups": place, "root": root or tmp_path}
        code, out = program(capsys, "look_at_bucket.py", **request, patience=1.4)
        assert code == 0
        return reported(out)

    return run


def reported(out: str) -> dict[str, Any]:
    lines = [line.removeprefix("@report ").partition("\t") for line in out.splitlines()]
    return {key: json.loads(value) for key, _, value in lines}


def test_a_look_at_a_good_bucket_finds_nothing_and_writes_nothing(look, store):
    seen = look()
    assert (seen["bucket"], seen["backup"]) == (None, None)
    assert seen["owner"] == {}, "nobody marked it"
    assert abs(seen["skew"]) < 60
    assert store.listing() == []
    assert not [request for request in store.requests if request.startswith("DELETE")]


@pytest.mark.parametrize(
    ("pattern", "permission"),
    [
        ("(HEAD|GET) /my-bucket(\\?|$)", "s3:ListBucket"),
        ("GET /my-bucket/mlflow-artifacts/", "s3:GetObject"),
        ("PUT /my-bucket/mlflow-artifacts/", "s3:PutObject"),
    ],
)
def test_a_look_names_the_missing_permission(look, store, pattern, permission):
    store.refuse(pattern)
    assert look()["bucket"]["kind"] == "permission"
    assert permission in look()["bucket"]["what"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ExpiredToken", "credentials-expired"),
        ("InvalidAccessKeyId", "credentials-wrong"),
        ("SignatureDoesNotMatch", "credentials-wrong"),
        ("RequestTimeTooSkewed", "clock"),
        ("SlowDown", "bucket-failing"),
    ],
)
def test_a_look_names_what_s3_says_no_for(look, store, code, kind):
    store.refuse("HEAD|GET", code, 503 if code == "SlowDown" else 403)
    found = look()["bucket"]
    assert found["kind"] == kind
    assert found["remedy"]


@pytest.mark.parametrize("request_", ["HEAD", "GET", "PUT", "GET /my-bucket\\?.*mlflow-backups"])
def test_a_look_passes_over_a_failure_that_passes(look, store, request_):
    store.refuse(request_, "SlowDown", 503, times=2)
    seen = look()
    assert (seen["bucket"], seen["backup"]) == (None, None)


def test_a_look_at_a_bucket_that_is_not_there_or_not_here(look, store, monkeypatch):
    assert look("no-such-bucket")["bucket"]["kind"] == "bucket-missing"
    assert look(endpoint="http://127.0.0.1:9")["bucket"]["kind"] == "bucket-unreachable"
    store.client("eu-west-1").create_bucket(
        Bucket="in-ireland", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    assert look("in-ireland", region="us-east-2")["bucket"]["kind"] == "region-wrong"
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert look()["bucket"]["kind"] == "credentials-partial"


def test_a_store_that_never_answers_is_named_within_the_doctor_s_time(look):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        seen = look(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert seen["bucket"]["kind"] == "bucket-unreachable"
    assert time.monotonic() - began < 4


def test_a_store_that_knows_no_conditions_is_left_as_it_was(look, store):
    store.deaf_to = ("HTTP_IF_MATCH",)  # moto never looks at Content-MD5
    assert look()["bucket"] is None
    assert [request for request in store.requests if request.startswith("DELETE")]
    assert store.listing() == []


def test_the_newest_whole_set_is_found_and_compared(look, store, back_up):
    back_up()
    seen = look()["backup"]
    assert seen["damage"] is None
    assert seen["made"] > 1_700_000_000
    place = f"mlflow-backups/default/{seen['id']}"
    store.client().put_object(
        Bucket="my-bucket", Key="mlflow-backups/default/99991231T000000Z-x/mlflow.db.zst", Body=b"x"
    )
    assert look()["backup"]["id"] == seen["id"], "one without its manifest is none"
    body = store.body(f"{place}/mlflow.db.zst")
    store.client().put_object(
        Bucket="my-bucket", Key=f"{place}/mlflow.db.zst", Body=body[:-1] + b"x"
    )
    assert look()["backup"]["damage"] == "mlflow.db.zst is not the file that was sent"
    store.client().put_object(Bucket="my-bucket", Key=f"{place}/mlflow.db.zst", Body=b"x")
    assert look()["backup"]["damage"].startswith("mlflow.db.zst has 1 bytes instead of")
    store.client().delete_object(Bucket="my-bucket", Key=f"{place}/mlflow.db.zst")
    assert look()["backup"]["damage"] == "mlflow.db.zst is missing"
    store.client().put_object(Bucket="my-bucket", Key=f"{place}/manifest.json", Body=b"{")
    assert look()["backup"]["damage"] == "its manifest.json says nothing"


FIRST = {  # what a manifest of the first kind says
    "made": "2026-01-01T00:00:00+00:00",
    "host": "ip-10-0-0-1",
    "release": "3.1.0",
    "files": [{"name": "mlflow.db.gz", "bytes": 1, "sha256": "a" * 64}],
    "databases": {
        "mlflow.db": {"revisions": ["r1"], "count": 3},
        "basic_auth.db": {"revisions": ["a1"], "count": 1},
    },
}


def lay(store: Store, id: str, **files: bytes) -> str:
    """Put files into the set of this id, a manifest of the first kind where none is given."""
    for name, body in {"manifest.json": json.dumps(FIRST).encode(), **files}.items():
        key = f"mlflow-backups/default/{id}/{name}"
        store.client().put_object(Bucket="my-bucket", Key=key, Body=body)
    return id


def test_a_set_of_long_ago_is_found_too(look, store):
    old = lay(store, "20200101T000000Z-x")
    assert look()["backup"]["id"] == old


def test_a_set_of_the_first_kind_is_understood(look, store):
    id = lay(store, "20260101T000000Z-ip-10-0-0-1", **{"mlflow.db.gz": b"x"})
    seen = look()["backup"]
    assert (seen["id"], seen["damage"]) == (id, None)
    assert seen["made"] == 1767225600


@pytest.mark.parametrize(
    "key", ["stream/mlflow.db/ltx/0/1.ltx", "stream/manifest.json", "99991231T000000Z-x/mlflow.db"]
)
def test_what_is_no_backup_never_hides_one_of_long_ago(look, store, key):
    old = lay(store, "20200101T000000Z-x", **{"mlflow.db.gz": b"x"})
    store.client().put_object(Bucket="my-bucket", Key=f"mlflow-backups/default/{key}", Body=b"{}")
    seen = look()["backup"]
    assert (seen["id"], seen["damage"]) == (old, None)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (None, "nobody signed it"),
        (b'{"files": 1}', "its manifest.json lacks `made`"),
        (b'{"files": [1]}', "its manifest.json lacks `made`"),
        (b"[" * 50_000, "its manifest.json says nothing"),
        (b" " * (64 << 10) + b"{}", "its manifest.json has more than 64 KB"),
    ],
)
@pytest.mark.parametrize("stamp", ["29990101T000000Z", "29999999T999999Z"])
def test_a_forged_set_does_not_pass_for_a_fresh_backup(look, store, back_up, stamp, body, why):
    back_up()
    mine = look()["backup"]
    forged = lay(store, f"{stamp}-x", **({"manifest.json": body} if body else {}))
    assert look()["backup"] == mine | {"newer": {"id": forged, "why": why}}


def test_a_set_of_another_server_hides_none_of_this_one_s(look, store, back_up):
    back_up()
    mine = look()["backup"]
    id = "29990101T000000Z-bbbbbbbb"
    lay(store, id, **{"manifest.json": signed(FIRST, id, OTHER_KEY)})
    assert look()["backup"] == mine


def test_where_nobody_vouches_for_any_it_is_said(look, store, backup_key):
    id = lay(store, "20260101T000000Z-x", **{"mlflow.db.gz": b"x"})
    seen = look()["backup"]
    assert (seen["id"], seen["damage"], seen["newer"]) == (id, None, None)
    assert seen["doubt"].startswith(f"Nobody vouches for the backup {id}")


def test_any_number_of_forged_sets_hides_not_what_this_host_made(look, store, back_up, root):
    back_up()
    mine = look()["backup"]["id"]
    for day in range(10, 32):
        lay(store, f"299901{day}T000000Z-x")
    assert look(root=root)["backup"]["id"] == mine
    read = [each for each in store.requests if each.startswith("GET") and "manifest" in each]
    assert len(read) < 30


def test_backups_that_may_not_be_listed_are_said(look, store):
    store.refuse("GET /my-bucket\\?.*prefix=mlflow-backups")
    assert look()["backup_error"] == "AccessDenied"


# -- look_at_databases.py ----------------------------------------------------------------------


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    """Both databases as MLflow makes them, as far as they are looked at, and its migrations."""
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as base, base:
        base.executescript(
            "pragma journal_mode=wal; create table alembic_version (version_num);"
            "insert into alembic_version values ('r2'); create table runs (a);"
            "create table experiments (experiment_id, name, artifact_location, lifecycle_stage);"
            "insert into experiments values (0, 'Default', 'mlflow-artifacts:/0', 'active')"
        )
    with contextlib.closing(sqlite3.connect(tmp_path / "basic_auth.db")) as base, base:
        base.executescript(
            "pragma journal_mode=wal; create table alembic_version_auth (version_num);"
            "create table users (id, username, password_hash, is_admin)"
        )
    versions = tmp_path / "venv/lib/python3.11/site-packages/mlflow/store/db_migrations/versions"
    versions.mkdir(parents=True)
    (versions / "one.py").write_text('revision = "r1"\ndown_revision = None\n')
    (versions / "two.py").write_text('revision = "r2"\ndown_revision = "r1"\n')
    return tmp_path


def look_at_databases(
    root: Path, capsys: pytest.CaptureFixture[str], patience: float = 2
) -> dict[str, Any]:
    code, out = program(capsys, "look_at_databases.py", root=root, patience=patience)
    lines = out.splitlines()
    # What keeps it from having seen all is its last word.
    why = {"unseen": lines.pop()} if code else {}
    words = [line.removeprefix("@report ").split("\t", 1) for line in lines]
    rows = [(key, json.loads(value)) for key, value in words]
    return why | dict(rows) | {row["name"]: row for key, row in rows if key == "database"}


def look_at_admins(root: Path, capsys: pytest.CaptureFixture[str], patience: float = 2) -> Any:
    code, out = program(capsys, "look_at_admins.py", root=root, patience=patience)
    report, *why = out.splitlines()
    assert bool(why) == bool(code)
    return (json.loads(report.removeprefix("@report admins\t")), *why)


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("_no_pause")
def test_sound_databases_are_told_of(bases, capsys):
    seen = look_at_databases(bases, capsys)
    assert seen["mlflow.db"] == {
        "name": "mlflow.db",
        "strangers": {},
        "damage": None,
        "revision": {"found": "r2", "known": True, "newest": True},
        "writers": {},
    }
    assert seen["basic_auth.db"]["revision"] is None
    assert "unseen" not in seen
    assert look_at_admins(bases, capsys) == ({"count": 0, "weak": []},)
    assert seen["direct"] == {"count": 0, "names": [], "places": []}


@pytest.mark.usefixtures("_no_pause")
@pytest.mark.parametrize(("found", "known", "newest"), [("r1", True, False), ("r9", False, False)])
def test_a_schema_is_compared_with_what_is_installed(bases, capsys, found, known, newest):
    execute(bases / "mlflow.db", "update alembic_version set version_num = ?", found)
    revision = look_at_databases(bases, capsys)["mlflow.db"]["revision"]
    assert revision == {"found": found, "known": known, "newest": newest}


@pytest.mark.usefixtures("_no_pause")
def test_experiments_of_clients_own_s3_are_counted(bases, capsys):
    for row in ((1, "a", "s3://old/x", "active"), (2, "b", "s3://old/y", "deleted")):
        execute(bases / "mlflow.db", "insert into experiments values (?, ?, ?, ?)", *row)
    direct = look_at_databases(bases, capsys)["direct"]
    assert direct == {"count": 1, "names": ["a"], "places": ["old"]}


@pytest.mark.usefixtures("_no_pause")
@pytest.mark.parametrize("method", ["scrypt", "pbkdf2:sha256:1000"])
@pytest.mark.parametrize(
    ("password", "weak"),
    [("password1234", ["boss"]), ("boss", ["boss"]), ("nobody-knows-it", [])],
)
def test_an_admin_with_a_well_known_password_is_named(bases, capsys, method, password, weak):
    from werkzeug.security import generate_password_hash

    for name, admin in (("boss", 1), ("other", 0)):
        row = (1, name, generate_password_hash(password, method), admin)
        execute(bases / "basic_auth.db", "insert into users values (?, ?, ?, ?)", *row)
    assert look_at_admins(bases, capsys) == ({"count": 1, "weak": weak},)


def test_admins_whose_passwords_were_not_tried_are_counted(bases, capsys):
    execute(bases / "basic_auth.db", "insert into users values (1, 'a', 'plain$x$y', 1)")
    seen, why = look_at_admins(bases, capsys, patience=-1)
    assert seen == {"count": 1, "weak": []}
    assert why.startswith("only the passwords of 0 of 1 admin were tried within")


def test_admins_of_a_database_that_is_gone_are_not_looked_at(tmp_path, capsys):
    code, out = program(capsys, "look_at_admins.py", root=tmp_path, patience=2)
    assert (code, out) == (1, "there is no basic_auth.db\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_no_pause")
def test_a_database_that_there_is_no_time_to_check_is_not_looked_at(bases, capsys, monkeypatch):
    execute(bases / "mlflow.db", "create table many as with recursive n(x) as "
            "(select 1 union all select x + 1 from n limit 20000) select x from n")  # fmt: skip
    seen = look_at_databases(bases, capsys, patience=-1)
    assert seen["mlflow.db"]["damage"] == "unknown"
    assert "mlflow.db could not be read to its end within" in seen["unseen"]


@pytest.mark.usefixtures("_no_pause")
def test_damage_is_named(bases, capsys):
    for n in range(400):
        execute(bases / "mlflow.db", "insert into runs values (?)", "x" * 400 + str(n))
    with contextlib.closing(sqlite3.connect(bases / "mlflow.db")) as base:
        base.execute("pragma wal_checkpoint(truncate)")
    data = bytearray((bases / "mlflow.db").read_bytes())
    data[len(data) // 2 :][:0] = b""
    data[len(data) // 2 : len(data) // 2 + 9000] = b"\x55" * 9000
    (bases / "mlflow.db").write_bytes(data)
    (bases / "basic_auth.db").write_text("this is no database" * 99)
    seen = look_at_databases(bases, capsys)
    assert seen["mlflow.db"]["damage"]
    assert seen["basic_auth.db"]["damage"] == "file is not a database"
    assert "malformed" in seen.get("unseen", "malformed")


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.usefixtures("_no_pause")
def test_who_holds_the_write_lock_is_named(bases, capsys, mode):
    execute(bases / "mlflow.db", f"pragma journal_mode={mode}")
    hold = (
        "import sqlite3, sys; held = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "held.execute('begin immediate'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, bases / "mlflow.db"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        writers = look_at_databases(bases, capsys)["mlflow.db"]["writers"]
        holder.kill()
    assert list(writers) == [str(holder.pid)]
    assert writers[str(holder.pid)]["name"].startswith("python")
    assert look_at_databases(bases, capsys)["mlflow.db"]["writers"] == {}


@pytest.mark.usefixtures("_no_pause")
def test_databases_that_are_gone_are_not_made(tmp_path, capsys):
    assert "mlflow.db" not in look_at_databases(tmp_path, capsys)
    assert list(tmp_path.iterdir()) == []


# -- look_at_requests.py -----------------------------------------------------------------------


LOGINS = [{"source": "copy", "username": "admin", "password": "x"}]


def test_logins_name_and_health_are_tried_once_each(server, capsys):
    code, out = program(
        capsys, "look_at_requests.py", "name=mlflow.example.org",
        port=int(server.port), logins=LOGINS, patience=3,
    )  # fmt: skip
    assert code == 0
    assert reported(out) == {
        "health": 200, "stranger": 401, "name": 401, "login": {"source": "copy", "status": 200},
    }  # fmt: skip


def test_a_server_that_nobody_reaches_is_not_looked_at(capsys):
    code, out = program(capsys, "look_at_requests.py", port=9, logins=LOGINS, patience=3)
    assert code == 1
    assert re.fullmatch(r"the server did not answer \(.*Connection refused.*\)\n", out)


def test_how_long_a_server_was_silent_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, out = program(
            capsys, "look_at_requests.py", port=silent.getsockname()[1], logins=[], patience=0.2
        )
    assert code == 1
    assert out == "@report silent\t0.2\nthe server did not answer within 0.2 s\n"


# -- look_at_environment.py --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ((), "whole"),
        (("a.pyc",), "whole"),
        (("b.py",), "it lacks 1 file, such as b.py"),
        (("b.py", "a.py"), "it lacks 2 files, such as a.py"),
    ],
)
def test_files_that_packages_lack_are_counted(tmp_path, capsys, monkeypatch, gone, said):
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    packages = tmp_path / "lib/python3.11/site-packages"
    record = packages / "some-1.0.dist-info/RECORD"
    record.parent.mkdir(parents=True)
    record.write_text("a.py,sha256=x,1\na.pyc,,\nb.py,sha256=y,2\n\n")
    for name in {"a.py", "a.pyc", "b.py"} - set(gone):
        (packages / name).touch()
    assert program(capsys, "look_at_environment.py") == (0, said + "\n")
