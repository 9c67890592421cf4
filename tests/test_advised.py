"""Every command that this project prints can be typed as it stands: it exists, and is complete."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from invoke import Collection

import fabfile
from tasks.engine.console import console
from tasks.engine.task import LocalTask, RemoteTask
from tasks.engine.typed import completed, is_local, ssh

PROJECT = Path(__file__).resolve().parent.parent
HOLE = "HOLE"  # what a program puts in
TASKS: Collection = fabfile.namespace
NAMES = {name: TASKS[name] for name in TASKS.task_names} | {
    alias: TASKS[alias] for aliases in TASKS.task_names.values() for alias in aliases
}
# Up to where a sentence goes on: a name, options with their values, and what a program puts in.
COMMAND = re.compile(r"\./fab((?: [@.\w-]+)+)")


class Advice(NamedTuple):
    """A sentence of a file, as it is written there."""

    file: str
    text: str


def texts() -> list[Advice]:
    """Return every text of tasks/ and files/host/ that advises a command."""
    found = []
    for folder in ("tasks", "files/host"):
        for file in sorted((PROJECT / folder).rglob("*.*")):
            found += [Advice(str(file.relative_to(PROJECT)), text) for text in said_in(file)]
    return found


def said_in(file: Path) -> list[str]:
    """Return the texts of a program; of bash, its lines."""
    if file.suffix == ".py":
        return strings(ast.parse(file.read_text()))
    if file.suffix == ".sh":
        return [line for line in file.read_text().splitlines() if line.lstrip()[:1] != "#"]
    return []


def strings(tree: ast.AST) -> list[str]:
    """Return what stands in quotes but docstrings, and what `fab(...)` is told to spell."""
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in ast.walk(node) if part is not node}  # fmt: skip
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "fab":
            found.append("./fab " + " ".join(spelt(part) for part in node.args))
        elif node not in docstrings and node not in inside and spelt(node) != HOLE:
            found.append(spelt(node))
    return found


def spelt(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(spelt(part) for part in node.values)
    return HOLE


def words_of(text: str) -> list[list[str]]:
    """Return the commands of a text, each as its words."""
    return [found[1].rstrip(".,;:)").split() for found in COMMAND.finditer(text)]


def refusal(words: list[str]) -> str | None:
    """Say what is wrong with a command, or None. Names stand in capitals."""
    rest = list(words)
    while rest and rest[0] in ("-H", "-S", "-i", "use"):
        del rest[:2]
    if rest and rest[0].startswith("--"):
        return None  # Invoke's own
    task = None
    for word in rest:
        name = word.rstrip(".").replace(HOLE, "") or HOLE
        if name in NAMES:
            task = NAMES[name]
        elif task is None:
            return None if name in (HOLE, "TASK") else f"there is no task {name}"
        elif word.startswith("--") and word.rstrip(".").replace(HOLE, "") not in flags(task):
            return f"{task.name} has no option {word}"
    return None


def flags(task) -> set[str]:
    return {flag for argument in task.get_arguments() for flag in map(dashed, argument.names)}


def dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}" if len(name) > 1 else f"-{name}"


SAID = texts()
ADVICE = [advice for advice in SAID if "./fab" in advice.text]


def test_what_is_advised_exists():
    assert len(ADVICE) > 100
    wrong = [(advice, reason) for advice in ADVICE for words in words_of(advice.text)
             if (reason := refusal(words))]  # fmt: skip
    assert not wrong


def test_what_is_advised_can_be_typed(monkeypatch):
    monkeypatch.setattr(console, "ssh_options", "-S hosts.conf ")
    for advice in ADVICE:
        text = completed(advice.text, "ec2", "staging")
        for words in filter(is_a_task_of_hosts, words_of(text)):
            assert words[0::2][:3] == ["-S", "-H", "use"], text
            assert words[1] == "hosts.conf", text
        assert completed(text, "other", "other") == text


def is_a_task_of_hosts(words: list[str]) -> bool:
    """Tell this of a command; what a program names alone shows when it runs."""
    if words[0].startswith(("--", HOLE, "TASK")) or words == ["-H", HOLE]:
        return False
    return not is_local(words[0])


def test_no_command_passes_by_what_completes_it():
    """console prints what it is told; Server, Chain and Case are who add host and environment."""
    bare = []
    for file in sorted((PROJECT / "tasks").rglob("*.py")):
        calls = [
            node for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            and getattr(node.func.value, "id", "") == "console"
        ]  # fmt: skip
        for text in (spelt(word) for call in calls for word in call.args):
            bare += [(file.name, text) for words in words_of(text)
                     if words[0] != "-H" and is_a_task_of_hosts(words)]  # fmt: skip
    assert not bare


def test_no_text_tells_a_task_without_the_command():
    """`Type deploy again` cannot be pasted."""
    told = re.compile(rf"[Tt]ype:? (?:{'|'.join(map(re.escape, NAMES))})\b")
    assert not [advice for advice in SAID if told.search(advice.text)]


def test_what_goes_on_is_said_in_one_way():
    """`Run the same command again`; whoever reads `the same` asks: the same what?"""
    told = re.compile(r"type (it|the same) again", re.I)
    assert not [advice for advice in SAID if told.search(advice.text)]


def test_tasks_of_this_machine_alone_are_known_as_such():
    for name, task in NAMES.items():
        if isinstance(task, LocalTask) and name != "use":
            assert is_local(name)
        if isinstance(task, RemoteTask):
            assert not is_local(name)


@pytest.mark.parametrize(
    ("options", "host", "wanted"),
    [
        ("", "ec2", "ssh ec2 true"),
        ("-S my.conf ", "ec2", "ssh -F my.conf ec2 true"),
        ("-i key.pem ", "me@ec2:2222", "ssh -i key.pem -p 2222 me@ec2 true"),
    ],
)
def test_ssh_is_spelt_as_the_host_was_reached(monkeypatch, options, host, wanted):
    monkeypatch.setattr(console, "ssh_options", options)
    assert ssh(host, "true") == wanted
