"""Which environment MLflow is loaded in, and who goes on as the server."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.engine.paths import PROJECT

STORE = "sqlite:////srv/data/mlflow.db"
WORDS = ["server", "--workers", "1", "--allowed-hosts", "localhost,localhost:*"]
UVICORN = ["/venv/bin/python", "-m", "uvicorn", "--fd", "0", "--workers", "1", "app:create"]


class Gone(BaseException):
    """Another program runs in this process."""


@pytest.fixture
def launcher(monkeypatch):
    """The launcher, with what it did: `served` in this process, or `gone` to another program."""
    did = SimpleNamespace(served=[], gone=[])
    uvicorn = SimpleNamespace(main=SimpleNamespace(main=lambda *words: did.served.append(words)))
    monkeypatch.setitem(sys.modules, "uvicorn", uvicorn)
    monkeypatch.syspath_prepend(str(Path(PROJECT, "files/app")))
    for name in [name for name in sys.modules if name.startswith("remote_mlflow_app")]:
        monkeypatch.delitem(sys.modules, name)
    from remote_mlflow_app import one_process

    def go(*program):
        did.gone.append(program)
        raise Gone

    did.environ = {}
    monkeypatch.setattr(one_process, "os", SimpleNamespace(environ=did.environ, execve=go))
    did.module = one_process
    return did


def environment(launcher):
    given = {"MLFLOW_BACKEND_STORE_URI": STORE, "MLFLOW_ARTIFACTS_DESTINATION": "s3://b/p"}
    return {**given, **launcher.module.expected(WORDS, given)}


def test_hosts_and_databases_are_known_before_mlflow_is_loaded(launcher):
    known = environment(launcher)
    assert known["MLFLOW_SERVER_ALLOWED_HOSTS"] == "localhost,localhost:*"
    assert known["_MLFLOW_SERVER_FILE_STORE"] == STORE
    assert known["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] == "s3://b/p"


def test_a_server_alone_is_the_process_that_has_loaded_mlflow(launcher):
    before = environment(launcher)
    launcher.environ.update(before)
    late = {"_MLFLOW_SERVER_BOOT_ID": "another", "_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED": "true"}
    launcher.module.take_over(before)(UVICORN, extra_env=late, synchronous=False)
    assert launcher.served == [(["--fd", "0", "--workers", "1", "app:create"], "uvicorn")]
    assert late.items() <= launcher.environ.items()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"MLFLOW_SERVER_ALLOWED_HOSTS": "*"}, "MLFLOW_SERVER_ALLOWED_HOSTS"),
        ({"_MLFLOW_NEW": "1"}, "_MLFLOW_NEW"),
    ],
)
def test_what_mlflow_was_loaded_without_has_it_loaded_again(launcher, capsys, changed, named):
    before = environment(launcher)
    launcher.environ.update(before)
    with pytest.raises(Gone):
        launcher.module.take_over(before)(UVICORN, extra_env=changed)
    assert launcher.gone == [(UVICORN[0], UVICORN, {**before, **changed})]
    assert f"loading MLflow again, for {named}" in capsys.readouterr().err


def test_a_variable_that_mlflow_takes_away_has_it_loaded_again(launcher):
    before = environment(launcher)
    launcher.environ.update({name: before[name] for name in before if name != "_MLFLOW_SGI_NAME"})
    with pytest.raises(Gone):
        launcher.module.take_over(before)(UVICORN, extra_env={})


def test_several_workers_are_uvicorn_s_in_this_process_s_place(launcher):
    before = environment(launcher)
    launcher.environ.update(before)
    words = [word if word != "1" else "3" for word in UVICORN]
    with pytest.raises(Gone):
        launcher.module.take_over(before)(words, extra_env={})
    assert launcher.gone == [(words[0], words, before)]


def test_another_program_than_uvicorn_takes_this_one_s_place(launcher):
    before = environment(launcher)
    launcher.environ.update(before)
    words = ["/venv/bin/granian", "--workers", "1", "app:create"]
    with pytest.raises(Gone):
        launcher.module.take_over(before)(words, extra_env={})
    assert launcher.served == []
