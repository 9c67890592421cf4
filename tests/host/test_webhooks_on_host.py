"""Webhooks on the host: which secrets the server's key reads, and what is done about the others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

LOST = Fernet(Fernet.generate_key())
OURS = "b25l" * 10 + "b25="
Program = Callable[..., tuple[int, str]]


@pytest.fixture
def base(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server's webhooks, each named for what made its secret."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", OURS)
    secrets = {
        "ours": Fernet(OURS).encrypt(b"a word").decode(),
        "lost": LOST.encrypt(b"a word").decode(),
        "odd": "no token at all",
        "short": "",
        "none": None,
    }
    path = root / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "create table webhooks (webhook_id text, name text, secret text, status text, "
            "deleted_timestamp int)"
        )
        for name, secret in secrets.items():
            row = (f"id-{name}", name, secret, "ACTIVE", None)
            connection.execute("insert into webhooks values (?, ?, ?, ?, ?)", row)
        deleted = ("id-gone", "gone", secrets["lost"], "ACTIVE", 1)
        connection.execute("insert into webhooks values (?, ?, ?, ?, ?)", deleted)
    return path


def told(out: str) -> Any:
    return json.loads(out.removeprefix("@report ").removeprefix("webhooks\t"))


def states(path: Path) -> dict[str, tuple[bool, str]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("select name, secret is not null, status from webhooks")
        return {name: (bool(signed), status) for name, signed, status in rows}


def test_what_the_key_did_not_make_is_named_and_nothing_is_changed(run_program, root, base):
    before = base.read_bytes()
    code, out = run_program("look_at_webhooks.py", root=str(root))
    assert code == 0
    first = [{"id": f"id-{name}", "name": name} for name in ("lost", "odd", "short")]
    assert told(out) == {"count": 3, "first": first}
    assert base.read_bytes() == before


def test_without_a_key_none_can_be_read_and_few_of_many_are_named(
    run_program, root, base, monkeypatch
):
    monkeypatch.delenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY")
    with closing(sqlite3.connect(base)) as connection, connection:
        connection.execute("update webhooks set name = ? where name = 'lost'", ("a\x1b[31m" * 99,))
        connection.executemany(
            "insert into webhooks values (?, ?, 'x', 'ACTIVE', null)",
            [(f"id-{n}", f"b{n:03}") for n in range(300)],
        )
    found = told(run_program("look_at_webhooks.py", root=str(root))[1])
    assert (found["count"], len(found["first"])) == (304, 5)
    assert found["first"][0]["name"] == ("a?[31m" * 99)[:80]


def test_a_release_without_webhooks_has_none_that_cannot_be_read(run_program, root):
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        assert not connection.execute(
            "select 1 from sqlite_master where name = 'webhooks'"
        ).fetchall()
    out = run_program("look_at_webhooks.py", root=str(root))[1]
    assert told(out) == {"count": 0, "first": []}


def test_the_secrets_of_those_that_were_meant_are_taken_and_they_call_nobody(
    run_program, root, base
):
    before = states(base)
    code, out = run_program("reset_webhooks.py", root=str(root), ids=[])
    assert code == 0
    assert [hook["name"] for hook in told(out)["webhooks"]] == ["lost", "odd", "short"]
    assert states(base) == before
    ids = ["id-lost", "id-short", "id-ours", "id-gone"]
    assert run_program("reset_webhooks.py", root=str(root), ids=ids)[0] == 0
    taken = {"lost": (False, "DISABLED"), "short": (False, "DISABLED")}
    assert states(base) == before | taken


def test_a_secret_that_came_meanwhile_stays(run_program, root, base, monkeypatch):
    import databases

    rows = databases.rows

    def renewed(root: str, name: str, query: str) -> Any:
        found = rows(root, name, query)
        if "sqlite_master" in query:
            return found
        with closing(sqlite3.connect(base)) as connection, connection:
            connection.execute("update webhooks set secret = 'new' where name = 'lost'")
        return found

    monkeypatch.setattr(databases, "rows", renewed)
    assert run_program("reset_webhooks.py", root=str(root), ids=["id-lost"])[0] == 0
    assert states(base)["lost"] == (True, "ACTIVE")


def test_a_database_that_cannot_be_asked_is_one_line(run_program, root):
    (root / "mlflow.db").write_text("no database, and long enough to be none: " * 99)
    code, out = run_program("reset_webhooks.py", root=str(root), ids=[])
    assert code == 1
    assert out.startswith("@fail The database cannot be asked: ")
    assert out.strip().endswith("./fab doctor")
