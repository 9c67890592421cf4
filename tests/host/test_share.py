"""Servers of one database have the same keys and one id, whichever of them comes first."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from host_side import HOST, program

SECRET, WEBHOOK = "MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
ONE, OTHER = "b25l" * 10 + "b25=", "b3RoZXI-" * 5 + "b3R="

Share = Callable[[str, str], tuple[str, str]]


class Table:
    """remote_mlflow.shared, as its three statements see it."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}

    def execute(self, statement: Any, values: dict[str, str] | None = None) -> Any:
        if values:
            self.rows.setdefault(values["name"], values["value"])
        return types.SimpleNamespace(all=lambda: list(self.rows.items()))

    def commit(self) -> None:
        pass


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def share(
    table: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Share:
    """Have a host, which `name`s its folder, agree with the others of the table."""
    monkeypatch.syspath_prepend(str(HOST))
    import postgres

    @contextmanager
    def connected(uri: str, **options: Any) -> Iterator[Table]:
        yield table

    monkeypatch.setattr(postgres, "connected", connected)
    monkeypatch.setenv("AUTH_STORE_URI", "postgresql+psycopg2://u@h/d_auth")

    def share(name: str, env: str) -> tuple[str, str]:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        (root / "server.env").write_text(env)
        code, out = program(capsys, "share.py", root=str(root))
        assert code == 0, out
        assert (root / ".server-id").read_text() == table.rows["server_id"] + "\n"
        return (root / "server.env").read_text(), out

    return share


def test_the_first_host_leaves_its_keys_and_the_others_take_them_over(share):
    first = f"{SECRET}=abc\n{WEBHOOK}={ONE}\nX='1'\n"
    assert share("one", first) == (first, "")
    env, out = share("two", f"{SECRET}='def'\n{WEBHOOK}={OTHER}\nX='2'\n")
    assert env == f"{SECRET}=abc\n{WEBHOOK}={ONE}\nX='2'\n"
    assert out == "@say take over the keys of the database's other servers\n"
    assert share("two", env) == (env, "")


def test_a_database_of_a_former_project_gets_the_key_from_whoever_comes_first(share, table):
    table.rows = {"secret_key": "abc", "server_id": "1a2b3c4d"}
    first = f"{SECRET}=abc\n{WEBHOOK}={ONE}\n"
    assert share("one", first) == (first, "")
    assert table.rows == {"secret_key": "abc", "server_id": "1a2b3c4d", "webhook_key": ONE}


def test_a_host_without_a_key_gets_that_of_the_others(share, table):
    table.rows = {"secret_key": "abc", "server_id": "1a2b3c4d", "webhook_key": ONE}
    assert share("two", f"{SECRET}=abc\n")[0] == f"{SECRET}=abc\n{WEBHOOK}={ONE}\n"


@pytest.mark.parametrize("key", ["$(id)", ONE + "\n", ONE[:-1], "a b"])
def test_a_key_in_the_database_that_bash_would_not_read_as_one_is_refused(
    table, tmp_path, monkeypatch, capsys, share, key
):
    table.rows = {"secret_key": "abc", "server_id": "1a2b3c4d", "webhook_key": key}
    with pytest.raises(AssertionError, match="no usable webhook_key"):
        share("two", f"{SECRET}=abc\n{WEBHOOK}={OTHER}\n")
    assert OTHER in (tmp_path / "two/server.env").read_text()
