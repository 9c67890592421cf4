"""What is wrong with fabric.yaml is one line that says where."""

from __future__ import annotations

from typing import Any

import pytest
from invoke import Exit

from tasks.engine.fabric_yaml import load_yaml


@pytest.fixture
def loaded(tmp_path):
    def load(text: str, name: str = "fabric.yaml") -> Any:
        file = tmp_path / name
        file.write_text(text)
        return load_yaml(str(file))

    return load


def refusal(loaded: Any, text: str) -> str:
    with pytest.raises(Exit) as caught:
        loaded(text)
    return str(caught.value.message)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mlflow:\n  port: 1\n  port: 2\n", "has `port:` twice, in lines 2 and 3."),
        ("hosts: [a]\nmlflow: {}\nhosts: [b]\n", "has `hosts:` twice, in lines 1 and 3."),
        (
            "mlflow:\n  port: 1\n  environments:\n    dev:\n      port: 2\n      port: 3\n",
            "has `port:` twice, in lines 5 and 6.",
        ),
        (
            "mlflow:\n  environments:\n    dev: {}\n    eu: {}\n    dev: {}\n",
            "has `dev:` twice, in lines 3 and 5.",
        ),
        ("run: [{a: 1, a: 2}]\n", "has `a:` twice, in lines 1 and 1."),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(loaded, text, said):
    assert f"fabric.yaml {said} Delete one of them." in refusal(loaded, text)


def test_a_key_may_stand_again_elsewhere(loaded):
    text = "base: &base {port: 1}\nmlflow:\n  <<: *base\n  environments: {a: {port: 2}}\n"
    assert loaded(text)["mlflow"] == {"port": 1, "environments": {"a": {"port": 2}}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# ours\nmlfow:\n  bucket: x\n", "line 2: unknown key `mlfow:`. Write `mlflow:`"),
        ("Mlflow: {}\n", "line 1: unknown key `Mlflow:`. Write `mlflow:`"),
        ("host: [a]\n", "line 1: unknown key `host:`. Write `hosts:`"),
        ("bucket: x\n", "line 1: `bucket:` is a setting. Put it below `mlflow:`"),
        ("environments: {}\n", "`environments:` is a setting. Put it below `mlflow:`"),
    ],
)
def test_a_key_in_the_wrong_place_is_refused_with_its_line(loaded, text, said):
    assert said in refusal(loaded, text)


def test_what_fabric_and_invoke_know_may_stand_there(loaded):
    assert loaded("run: {echo: true}\nssh_config_path: x\nhosts: [a]\n")["run"] == {"echo": True}


def test_files_that_hold_for_every_project_are_left_alone(loaded):
    assert loaded("port: 22\n", ".fabric.yaml") == {"port": 22}


def test_a_section_of_fabric_s_may_be_empty(loaded):
    text = "connect_kwargs:\nrun:\n  env:\n  echo: true\ngateway:\n"
    assert loaded(text) == {"run": {"echo": True}, "gateway": None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("connect_kwargs: 7\n", "`key: value` lines below it for `connect_kwargs:`."),
        ("run: {env: [a]}\n", "`key: value` lines below it for `env:`."),
        ("user: {name: ada}\n", "one value for `user:`."),
        ("ssh_config_path: 3\n", "a text for `ssh_config_path:`."),
        ("timeouts: {connect: soon}\n", "a number above 0 for `connect:`."),
        ("connect_kwargs: {timeout: true}\n", "a number above 0 for `timeout:`."),
        ("timeouts: {connect: .nan}\n", "a number above 0 for `connect:`."),
        ("timeouts: {connect: .inf}\n", "a number above 0 for `connect:`."),
        ("timeouts: {connect: -1}\n", "a number above 0 for `connect:`."),
        (f"timeouts: {{connect: {'9' * 400}}}\n", "a number above 0 for `connect:`."),
        (
            "connect_kwargs: {key_filename: [3]}\n",
            "a path, or a list of them, for `key_filename:`.",
        ),
        ("connect_kwargs: {key_filename: 3}\n", "a path, or a list of them, for `key_filename:`."),
        (
            "connect_kwargs: {disabled_algorithms: [a]}\n",
            "lines such as `keys: [ssh-rsa]` for `disabled_algorithms:`.",
        ),
        (
            "connect_kwargs: {disabled_algorithms: {keys: 3}}\n",
            "lines such as `keys: [ssh-rsa]` for `disabled_algorithms:`.",
        ),
        ("run: {out_stream: x}\n", "nothing that a file can name for `out_stream:`."),
        ("run: {in_stream: 3}\n", "true or false for `in_stream:`."),
        (
            "authentication: {strategy_class: fabric.auth.OpenSSHAuthStrategy}\n",
            "nothing that a file can name for `strategy_class:`.",
        ),
        (
            "tasks: {executor_class: fabric.executor.Executor}\n",
            "nothing that a file can name for `executor_class:`.",
        ),
    ],
)
def test_what_invoke_would_die_of_is_refused(loaded, text, said):
    wanted = f"fabric.yaml: Fabric takes {said} Fix that line."
    assert refusal(loaded, text).endswith(wanted)


@pytest.mark.parametrize("value", ["id", ""])
def test_a_key_that_no_login_takes_is_refused(loaded, value):
    said = refusal(loaded, f"connect_kwargs: {{key_file: {value}}}\n")
    wanted = "unknown key `key_file:` in `connect_kwargs:` (did you mean 'key_filename'?). It takes"
    assert wanted in said


def test_what_a_login_takes_may_stand_there(loaded):
    text = "connect_kwargs: {timeout: 3.5, key_filename: [id], password: null, compress: true}\n"
    taken = {"timeout": 3.5, "key_filename": ["id"], "compress": True}
    assert loaded(text) == {"connect_kwargs": taken}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("connect_kwargs: {password: 2026-13-45}\n", "holds a date or a number that cannot be"),
        ("mlflow: {port: !!int abc}\n", "holds a date or a number that cannot be"),
        ("x: &a [*a]\n", "holds a date or a number that cannot be, or refers to itself. Fix it."),
        ("1: 2\n", "holds no `key: value` lines at its top."),
    ],
)
def test_what_yaml_itself_dies_of_is_one_line(loaded, text, said):
    refused = refusal(loaded, text)
    assert said in refused
    assert not {"abc", "2026-13-45"} & set(refused.split())


def test_another_coding_is_named(tmp_path):
    (tmp_path / "fabric.yaml").write_bytes(b"# gr\xfc\xdfe\nmlflow: {}\n")
    with pytest.raises(Exit, match=r"fabric.yaml is not in UTF-8. Save it in that."):
        load_yaml(str(tmp_path / "fabric.yaml"))
