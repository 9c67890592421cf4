"""What names variables for a script is data: nothing of it is run."""

from __future__ import annotations

import subprocess

import pytest

from tasks.engine.templates import source


def read(folder, text: str) -> tuple[dict[str, str], list[str]]:
    """Return the variables that a script then has, and what it warned of."""
    (folder / "server.env").write_text(text)
    script = 'warn() { echo "warned: $*" >&2; }\n' + source("variables.sh")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{script}\nread_variables server.env; env -0"],
        cwd=folder, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    pairs = (pair.partition("=") for pair in done.stdout.split("\0") if pair)
    found = {name: value for name, _, value in pairs}
    ours = {name: value for name, value in found.items() if name.isupper() and name.startswith("X")}
    return ours, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("X=abc123", "abc123"),
        ("X='postgresql+psycopg2://r@h/db?a=b&c=d'", "postgresql+psycopg2://r@h/db?a=b&c=d"),
        ('X="two words"', "two words"),
        ("export X=1", "1"),
        ("X=", ""),
        ("X=q4H_-w0o7=", "q4H_-w0o7="),
        ("X=sqlite:////home/ubuntu/a%20b.db", "sqlite:////home/ubuntu/a%20b.db"),
    ],
)
def test_a_word_or_a_quoted_text_is_taken_as_it_stands(tmp_path, line, value):
    assert read(tmp_path, f"# made once\n\n{line}\n") == ({"X": value}, [])


@pytest.mark.parametrize(
    "line",
    [
        "X=$(touch ran)", "X=`touch ran`", "X=a; touch ran", "X=a;touch ran", 'X="$(touch ran)"',
        "touch ran", "X='a'$(touch ran)", "X=a touch ran", "X=(touch ran)", "X=a|touch ran",
        "X=$HOME", 'X="a\\', "X=a\ttouch ran", "X='a' 'b'", "$(touch ran)=a",
    ],
)  # fmt: skip
def test_any_other_line_is_left_out_with_a_warning(tmp_path, line):
    found, warned = read(tmp_path, f"{line}\nXY=1")
    assert found == {"XY": "1"}
    assert len(warned) == 1
    assert warned[0].startswith("warned: server.env: a line that is no NAME=word is left out: ")
    assert not (tmp_path / "ran").exists()
