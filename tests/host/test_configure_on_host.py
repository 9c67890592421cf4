"""What configure runs on a host: the server's keys, AWS's files, the proof of the bucket."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from host_side import place_in, program
from store_side import Store

from tasks.engine.login import Keys
from tasks.engine.templates import source

# -- make_server_env.sh -------------------------------------------------------------------------


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
