"""The audit's programs as they run on the host: what they find, and that they print no secret."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
Program = Callable[..., tuple[int, str]]


@pytest.fixture
def home_of_secrets(home: Path, root: Path) -> Path:
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(f"[default]\naws_secret_access_key = {SECRET}\n")
    (root / "server.env").write_text(
        "MLFLOW_FLASK_SERVER_SECRET_KEY='a-key-of-flask'\n"
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=a-key-of-webhooks\n"
        "MLFLOW_BACKEND_STORE_URI='postgresql://ann:a-word-of-ann@db/mlflow'\n"
    )
    root.chmod(0o700)
    return home


def found(run_program: Program, root: Path) -> list[str]:
    code, out = run_program("audit_secrets.py", root=root, unit="mlflow-server")
    assert code == 0
    assert not [word for word in (SECRET, "a-key-of-flask", "a-word-of-ann") if word in out]
    lines = [told(line) for line in out.splitlines()]
    # Whatever else lies in this machine's /tmp and /etc is not the matter here.
    return [line for line in lines if str(root.parent) in line]


def test_secrets_in_their_places_are_not_astray(run_program, root, home_of_secrets):
    assert found(run_program, root) == []


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        (".bash_history", f"aws configure set aws_secret {SECRET}", "the AWS secret key"),
        ("run.sh", "KEY=a-key-of-flask", "the server's secret key"),
        ("hooks.txt", "the a-key-of-webhooks", "the key of webhooks' secrets"),
        ("notes.txt", "psql with a-word-of-ann", "the database's password"),
        (".bashrc", "export MLFLOW_TRACKING_PASSWORD='a-password-of-mine'", "a password of MLflow"),
        ("old.env", f"AWS_SECRET_ACCESS_KEY={SECRET[::-1]}", "an AWS secret key"),
        ("auth.ini", "admin_password = whatever", "the admin's first password"),
    ],
)
def test_a_secret_elsewhere_is_named_by_kind_and_place(
    run_program, root, home_of_secrets, name, text, kind
):
    (home_of_secrets / name).write_text(text + "\n")
    assert found(run_program, root) == [f"{kind} in {home_of_secrets / name}"]


def test_a_variable_that_names_another_is_no_password(run_program, root, home_of_secrets):
    (home_of_secrets / ".bashrc").write_text("export MLFLOW_TRACKING_PASSWORD=$(pass mlflow)\n")
    assert found(run_program, root) == []


def users(root: Path, **passwords: str) -> None:
    from werkzeug.security import generate_password_hash

    base = root / "basic_auth.db"
    with closing(sqlite3.connect(base)) as connection, connection:
        connection.execute("drop table if exists users")
        connection.execute("create table users (username text, password_hash text, is_admin int)")
        for name, password in passwords.items():
            kept = generate_password_hash(password, "pbkdf2:sha256:1")
            connection.execute("insert into users values (?, ?, 0)", (name, kept))


def told(out: str) -> Any:
    return json.loads(out.partition("\t")[2])


def test_passwords_that_are_guessed_first_are_found_for_every_user(run_program, root):
    users(root, ann="mlflow123456", bob="bob1234", cid="a-quite-different-one", dot="dotdot")
    code, out = run_program("audit_passwords.py", root=root, patience=5)
    assert (code, told(out)) == (0, {"weak": ["ann", "bob", "dot"]})
    assert "mlflow123456" not in out


def test_many_users_are_tried_for_as_long_as_there_is_time(run_program, root):
    users(root, ann="mlflow123456")
    code, out = run_program("audit_passwords.py", root=root, patience=-1)
    assert code == 1
    seen, why = out.splitlines()
    assert told(seen) == {"weak": []}
    assert why == "only the passwords of 0 of 1 user were tried within -1 s"


def test_users_that_the_logs_do_not_know_are_unseen(run_program, root, monkeypatch):
    users(root, ann="x", bob="x")
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(time.time() - 20.5 * 86400))
    log = f'127.0.0.1 - ann [{when}] "GET /"\nnonsense\n127.0.0.1 - - [not a time] "GET /"\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(log.encode())))
    code, out = run_program("audit_users.py", root=root)
    assert (code, told(out)) == (0, {"days": 20, "unseen": ["bob"]})
