"""Connections keep their settings, and who is an admin is read where MLflow would read it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Integer,
    StaticPool,
    String,
    create_engine,
    event,
    text,
)
from sqlalchemy.orm import Session, declarative_base

from tasks.engine.templates import FILES

sys.path.insert(0, str(FILES / "app"))

from remote_mlflow_app import database

ON = "PRAGMA foreign_keys = ON;"


class Quick(Session):
    """A session of the kind that MLflow opens, so that all others of the tests stay as they are."""


database.set_once(Quick)


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = create_engine("sqlite://", poolclass=StaticPool)
    made.sent = []  # type: ignore[attr-defined]
    event.listen(made, "before_cursor_execute", lambda *given: made.sent.append(given[2]))  # type: ignore[attr-defined]
    yield made
    made.dispose()


def say(engine: Engine, *statements: str) -> list[str]:
    """Say statements in one session; returns what reached the database."""
    sent: list[str] = engine.sent  # type: ignore[attr-defined]
    sent.clear()
    with Quick(engine) as session:
        for each in statements:
            session.execute(text(each))
        session.commit()
    return [*sent]


def has(engine: Engine, name: str) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())


def test_a_connection_is_set_once(engine: Engine) -> None:
    assert say(engine, ON, "SELECT 1") == [ON, "SELECT 1"]
    assert say(engine, ON, "SELECT 1") == ["SELECT 1"]
    assert has(engine, "foreign_keys") == 1


def test_a_new_connection_is_set_again(engine: Engine) -> None:
    say(engine, ON)
    engine.dispose()
    assert say(engine, ON) == [ON]
    assert has(engine, "foreign_keys") == 1


def test_another_value_is_set(engine: Engine) -> None:
    waits = [f"PRAGMA busy_timeout = {milliseconds};" for milliseconds in (20000, 10, 10, 20000)]
    assert say(engine, *waits) == [waits[0], waits[1], waits[3]]
    assert has(engine, "busy_timeout") == 20000


def test_what_a_transaction_keeps_from_being_set_is_set_after_it(engine: Engine) -> None:
    say(engine, "CREATE TABLE t (n INTEGER)")
    begun = "INSERT INTO t VALUES (1)"
    assert say(engine, begun, ON) == [begun, ON]
    assert has(engine, "foreign_keys") == 0
    assert say(engine, ON) == [ON]
    assert has(engine, "foreign_keys") == 1


@pytest.mark.parametrize("other", ["PRAGMA user_version = 7;", "PRAGMA foreign_keys", "SELECT 1"])
def test_all_else_reaches_the_database(engine: Engine, other: str) -> None:
    assert say(engine, other, other) == [other, other]


# -- admins --------------------------------------------------------------------------------------


def authenticate_request() -> Any:
    return SimpleNamespace(username="alice")


Base: Any = declarative_base()


class SqlUser(Base):
    """A row as MLflow has it, as far as it matters here."""

    __tablename__ = "users"
    id = Column(Integer, primary_key=True)
    username = Column(String)
    is_admin = Column(Boolean)


class Users:
    """MLflow's store of users, which counts how often it is asked for one."""

    def __init__(self, *rows: tuple[str, bool]) -> None:
        self.asked = 0
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(self.engine)
        with Session(self.engine) as session:
            session.add_all(SqlUser(username=name, is_admin=truth) for name, truth in rows)
            session.commit()

    def get_user(self, name: str) -> Any:
        self.asked += 1
        raise LookupError(name)


store: Any = None


def sender_is_admin() -> Any:
    username = authenticate_request().username
    return store.get_user(username).is_admin


def auth(monkeypatch: pytest.MonkeyPatch, users: Users, known: Any = sender_is_admin) -> Any:
    """Return a stand-in for mlflow.server.auth with these users."""
    monkeypatch.setattr(sys.modules[__name__], "store", users)
    made = SimpleNamespace(
        store=users,
        sqlalchemy_store=SimpleNamespace(SqlUser=SqlUser),
        authenticate_request=authenticate_request,
        sender_is_admin=known,
    )
    database.ask_for_admin(made)
    return made


@pytest.mark.parametrize("truth", [True, False])
def test_one_column_says_who_is_an_admin(monkeypatch: pytest.MonkeyPatch, truth: bool) -> None:
    users = Users(("bob", not truth), ("alice", truth))
    assert auth(monkeypatch, users).sender_is_admin() is truth
    assert not users.asked


@pytest.mark.parametrize("rows", [[], [("alice", True), ("alice", True)]])
def test_mlflow_answers_for_whoever_is_not_there_once(
    monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, bool]]
) -> None:
    users = Users(*rows)
    with pytest.raises(LookupError, match="alice"):
        auth(monkeypatch, users).sender_is_admin()
    assert users.asked == 1


def sender_has_a_role() -> Any:
    username = authenticate_request().username
    user = store.get_user(username)
    return user.is_admin or user.roles


@pytest.mark.parametrize("other", [sender_has_a_role, None, print])
def test_a_release_that_does_it_otherwise_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, other: Any
) -> None:
    assert auth(monkeypatch, Users(("alice", True)), other).sender_is_admin is other
