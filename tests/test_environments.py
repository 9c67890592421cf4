"""The list of environments: what fabric.yaml says, and nothing of any host."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import fabric
import pytest
from invoke import Context, Exit

from tasks import environments as module
from tasks.engine import paths

THREE = """
hosts: [ec2]
mlflow:
  bucket: my-bucket
  environment: dev
  environments:
    dev:
    staging: {port: 5001, local_port: 6001}
    production: {port: 5002, local_port: 6002, hosts: [a, b], bucket: vault, workers: 0}
"""


def listed(tmp_path: Path, text: str, json: bool = False) -> None:
    (tmp_path / "fabric.yaml").write_text(text)
    config = fabric.Config(project_location=str(tmp_path), lazy=True)
    config.load_project()
    module.environments(Context(config), json)


def rows(tmp_path: Path, capsys: Any, text: str) -> dict[str, Any]:
    listed(tmp_path, text, json=True)
    return {row["environment"]: row for row in json.loads(capsys.readouterr().out)}


def test_each_is_listed_as_it_is_settled(tmp_path, capsys):
    found = rows(tmp_path, capsys, THREE)
    assert list(found) == ["dev", "staging", "production"], "nobody means the unnamed one"
    assert found["production"] == {
        "environment": "production", "default": False, "hosts": ["a", "b"],
        "root": "~/mlflow-server-production", "prefix": "mlflow-artifacts-production",
        "port": 5002, "local_port": 6002, "version": "3.17.2", "workers": 0, "bucket": "vault",
        "profile": "default", "confirm": "ask",
    }  # fmt: skip
    assert [name for name, row in found.items() if row["default"]] == ["dev"]


def test_a_variable_moves_the_mark(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FABRIC_MLFLOW_ENVIRONMENT", "staging")
    found = rows(tmp_path, capsys, THREE)
    assert [name for name, row in found.items() if row["default"]] == ["staging"]


def test_the_unnamed_one_is_listed_where_nothing_takes_its_place(tmp_path, capsys):
    found = rows(tmp_path, capsys, "mlflow: {environments: {staging: {port: 5001}}}")
    assert [(name, row["default"]) for name, row in found.items()] == [
        ("default", True), ("staging", False),
    ]  # fmt: skip


def test_people_get_a_table_with_a_star(tmp_path, capsys):
    listed(tmp_path, THREE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "environment", "hosts", "port", "tunnel", "folder", "bucket", "and", "prefix", "MLflow",
        "workers",
    ]  # fmt: skip
    assert lines[1].startswith("*  dev ")
    assert "a, b" in lines[3]
    assert "vault/mlflow-artifacts-production" in lines[3]
    assert lines[3].split()[-1] == "auto"
    assert len(lines) == 4


def test_one_port_for_two_tunnels_is_said(tmp_path, capsys):
    listed(tmp_path, "mlflow: {environments: {staging: {port: 5001}}}")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "default and staging share local_port 5001: one tunnel at a time."


def test_a_file_without_any_says_where_to_read_on(tmp_path, capsys):
    listed(tmp_path, "mlflow: {bucket: my-bucket}")
    assert "docs/environments.md" in capsys.readouterr().out


def test_what_two_must_not_share_is_refused_here_too(tmp_path):
    with pytest.raises(Exit, match=r"default and staging have the same port"):
        listed(tmp_path, "mlflow: {environments: {staging: }}")


def test_every_question_about_a_host_names_its_environment():
    """All go through the server's own `confirm`, with its place in the question."""
    for file in (paths.PROJECT / "tasks").glob("*.py"):
        text = file.read_text()
        if file.name not in ("console.py", "server.py", "sandbox.py"):
            assert not re.search(r"^from tasks\.console import .*\bconfirm\b", text, re.M), file
            assert text.count("server.confirm(") <= text.count("server.place"), file
