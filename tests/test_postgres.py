"""PostgreSQL: what is asked of it, what is refused, and how a server is moved there."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from invoke import Exit
from stand_ins import blank, context, deployed

from tasks.changes.postgres import addresses, installing, moving, placed, refuse_unfit, served
from tasks.engine import stores
from tasks.engine.facts import Unit
from tasks.engine.settings import Settings
from tasks.postgres import migrate, psql

URI = "postgresql+psycopg2://mlflow@db/mlflow"
SETTINGS = Settings(bucket="my-bucket", backend_store_uri=URI)
MADE = {"version": "15", "port": 5432, "socket": "/var/run/postgresql", "listen": "localhost"}
THERE = {"store": URI, "auth_store": f"{URI}_auth", "database": "postgresql"}


# -- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "tracking", "users"),
    [
        ("postgresql://u@h/d", "postgresql+psycopg2://u@h/d", "postgresql+psycopg2://u@h/d_auth"),
        ("postgres://u:p@h:5433/d", "postgresql+psycopg2://u@h:5433/d",
         "postgresql+psycopg2://u@h:5433/d_auth"),
        ("postgresql+psycopg2://u@/d?host=/run/x", "postgresql+psycopg2://u@/d?host=/run/x",
         "postgresql+psycopg2://u@/d_auth?host=/run/x"),
        ("postgresql://u@h/d?sslmode=verify-full&password=p",
         "postgresql+psycopg2://u@h/d?sslmode=verify-full",
         "postgresql+psycopg2://u@h/d_auth?sslmode=verify-full"),
    ],
)  # fmt: skip
def test_an_address_has_its_driver_both_databases_and_no_password(uri, tracking, users):
    named = stores.of(uri)
    assert (named.tracking, named.users) == (tracking, users)


@pytest.mark.parametrize("uri", ["postgresql://u@h", "postgresql://u@h/", "postgresql://u@h/a/b"])
def test_an_address_without_a_database_is_refused(uri):
    with pytest.raises(Exit, match="names no database"):
        stores.of(uri)


def test_libpq_s_file_escapes_what_divides_it():
    named = stores.of("postgresql://m%3Alflow@h:5433/d")
    assert named.pass_line(r"a:b\c") == "h:5433:*:m\\:lflow:a\\:b\\\\c\n"
    local = stores.of("postgresql://u@/d?host=/var/run/postgresql")
    assert local.pass_line("p") == "/var/run/postgresql:5432:*:u:p\n"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (SETTINGS, URI),
        (Settings(bucket="my-bucket"), "postgresql+psycopg2://mlflow@/mlflow"),
    ],
)
def test_the_databases_are_those_of_the_settings_or_named_for_the_server(settings, wanted):
    assert placed(settings).tracking == wanted


def test_an_environment_has_databases_of_its_own():
    settings = Settings(bucket="my-bucket", environment="eu-staging")
    assert placed(settings).database == "mlflow_eu_staging"


def test_an_address_without_a_role_is_refused():
    with pytest.raises(Exit, match="names no role"):
        placed(Settings(bucket="my-bucket", backend_store_uri="postgresql://h/d"))


@pytest.mark.parametrize(
    ("uri", "made", "apart", "wanted"),
    [
        (None, MADE, False, "postgresql+psycopg2://mlflow@/mlflow?host=/var/run/postgresql"),
        (None, MADE | {"port": 5433}, False,
         "postgresql+psycopg2://mlflow@/mlflow?host=/var/run/postgresql&port=5433"),
        (None, MADE | {"listen": "localhost,10.0.1.4"}, True,
         "postgresql+psycopg2://mlflow@10.0.1.4/mlflow?sslmode=require"),
        (URI, MADE | {"listen": "localhost,10.0.1.4"}, True, URI),
    ],
)  # fmt: skip
def test_the_address_to_use_is_said(uri, made, apart, wanted):
    named = placed(Settings(bucket="my-bucket", backend_store_uri=uri))
    assert served(named, made, ("10.0.1.4", "172.17.0.1"), apart) == wanted


@pytest.mark.parametrize("text", ["10.0.1.x", "10.0.1.5/24", "db.example.org"])
def test_clients_are_addresses_or_networks(text):
    with pytest.raises(Exit, match="neither an address nor a network"):
        addresses(f"10.0.0.1,{text}")
    assert addresses("10.0.1.5,10.0.2.0/24,") == ["10.0.1.5", "10.0.2.0/24"]


# -- what goes to the host --------------------------------------------------------------------


def test_a_password_travels_as_a_file_and_may_replace_another_only_where_it_is_known():
    change = installing(placed(SETTINGS), "ubuntu", ["10.0.1.5"], "hidden-word", known=False)
    assert json.loads(str(change.files["scram.json"])) == {"password": "hidden-word"}
    assert "hidden-word" not in change.script
    assert "known=''" in change.script
    assert "known=yes" in installing(placed(SETTINGS), "u", ["10.0.1.5"], "p", known=True).script


@pytest.fixture
def scram(run_program: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    def run(password: str, present: str) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(present))
        code, out = run_program("scram.py", password=password)
        assert code == 0
        return out.strip()

    return run


def test_postgresql_gets_only_what_it_checks_a_password_with(scram):
    made = scram("a password", "")
    assert "a password" not in made
    rounds, salt = made.removeprefix("SCRAM-SHA-256$").split("$")[0].split(":")
    salted = hashlib.pbkdf2_hmac("sha256", b"a password", base64.b64decode(salt), int(rounds))
    server_key = base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()
    assert made.endswith(":" + server_key)
    assert scram("a password", made) == "", "it fits already"
    assert scram("another", made) not in ("", made)


# -- moving -----------------------------------------------------------------------------------


def test_a_move_makes_a_backup_first_and_needs_the_client():
    facts = deployed(store="sqlite:///x", packages=frozenset())
    names = [change.what.split(" ")[0] for change in moving(SETTINGS, facts, "word", None)]
    assert names == ["install", "write", "prove", "put", "back", "move"]
    for change in moving(SETTINGS, facts, "word", None):
        assert "word" not in change.script.split()


def test_the_proof_of_another_database_does_not_turn_the_backup_to_it():
    proof = next(c for c in moving(SETTINGS, deployed(), "word", None) if "prove" in c.what)
    assert proof.script.startswith("(")
    assert proof.script.endswith(")")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (deployed(store="postgresql+psycopg2://mlflow@other/mlflow"), "on PostgreSQL already"),
        (deployed(schema=None), "no database that can be read"),
        (
            deployed(units={"mlflow-server-stream.service": Unit(active="active")}),
            "backup.stream off",
        ),
    ],
)
def test_what_cannot_be_moved_is_refused(facts, said):
    with pytest.raises(Exit, match=said):
        refuse_unfit(SETTINGS, facts, stores.of(URI))


def test_a_server_without_an_address_to_go_to_is_told_how_to_make_one():
    with pytest.raises(Exit, match=r"postgres\.install makes one"):
        migrate(context(deployed()))


def test_a_server_that_is_there_already_costs_no_exec(capsys):
    c = context(deployed(SETTINGS, **THERE), SETTINGS)
    migrate(c)
    assert "nothing to change" in capsys.readouterr().out
    assert c.recorder.runs == []


def test_nothing_is_moved_without_a_yes():
    c = context(deployed(SETTINGS, store="sqlite:///x"), SETTINGS)
    with pytest.raises(Exit, match="Add --yes"):
        migrate(c)
    assert c.recorder.changes == []


# -- psql -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (blank(), "There is no server on ec2 yet"),
        (deployed(store="sqlite:///x"), "runs are in SQLite"),
        (deployed(**THERE), "no terminal"),
    ],
)
def test_psql_needs_a_server_on_postgresql_and_a_terminal(facts, said):
    with pytest.raises(Exit, match=said):
        psql(context(facts))
