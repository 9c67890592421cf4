"""Scripts give a program what its request takes, by name: of anything else it would die."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from host_side import HOST

from tasks.engine.paths import PROJECT

CALL = re.compile(r'(?<!-e "\$)here/(\w+)\.py"(.*)')
# A word in quotes, the output of a command in it or not.
QUOTED = re.compile(r'"\$\([^)]*\)"|"[^"]*"')
# What ends the words: a pipe, a redirection, the end of a command or of a string of Python's.
END = re.compile(r"\d?[<>|&;)}'\\].*")


def calls() -> list[tuple[str, str, str]]:
    """List file, program and words of each call in the host's scripts and in those of changes."""
    files = [*(PROJECT / "files/host").rglob("*.sh"), *(PROJECT / "tasks/changes").glob("*.py")]
    return [
        (file.name, name, END.sub("", QUOTED.sub("_", rest)))
        for file in sorted(files)
        for name, rest in CALL.findall(file.read_text())
    ]


def fields(name: str) -> set[str]:
    """Return the names that a program's request may hold; none where it takes no request."""
    (file,) = Path(HOST).rglob(f"{name}.py")
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == "Request":
            own = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}
            return own.union(*(fields(base.value.id) for base in node.bases))
    return set()


@pytest.mark.parametrize(("file", "name", "words"), calls())
def test_each_word_is_one_of_the_request_s_names(file, name, words):
    given = [word.partition("=") for word in words.split()]
    assert all(equals for _, equals, _ in given), words
    assert {field for field, _, _ in given} <= fields(name)


def test_they_were_found():
    found = {name: words for _, name, words in calls()}
    assert len(found) > 30
    assert found["move_store"].split() == ["folder=_", "server=_"]
