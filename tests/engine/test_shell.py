"""The builders, by exact string."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

import pytest

from tasks.engine import shell as systemctl
from tasks.engine.shell import into, option, pipe, sh, then, when


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("echo", "a b"), "echo 'a b'"),
        (("echo", "it's"), """echo 'it'"'"'s'"""),
        (("echo", "$(reboot)"), "echo '$(reboot)'"),
        (("echo", ""), "echo ''"),
        (("tail", "-n", 5, None, PurePosixPath("/var/log/a b")), "tail -n 5 '/var/log/a b'"),
        (("echo", "a\nb"), "echo 'a\nb'"),
        ((None,), ""),
    ],
)
def test_every_word_is_quoted_and_none_drops_out(words, command):
    assert sh(*words) == command


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (option("--lines", 5), "--lines=5"),
        (option("--lines", 0), "--lines=0"),
        (option("--lines", None), None),
        (then("a", "b", "c"), "a && b && c"),
        (pipe("a", "b"), "set -o pipefail; a | b"),
        (when("test -e x", "rm x"), "if test -e x; then rm x; fi"),
        (
            into("make", "/a b"),
            "umask 077 && make > '/a b.part' && chmod 0600 '/a b.part' && mv -f '/a b.part' '/a b'",
        ),
        (
            into("make", "/a", "0644"),
            "umask 077 && make > /a.part && chmod 0644 /a.part && mv -f /a.part /a",
        ),
        (systemctl.start("a.socket", "nginx"), "systemctl start a.socket nginx"),
        (systemctl.stop("a b"), "systemctl stop 'a b'"),
        (systemctl.restart("a"), "systemctl restart a"),
    ],
)
def test_builders_spell_exactly(command, wanted):
    assert command == wanted


def bash(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)


def test_a_quoted_word_reaches_the_program_as_it_was():
    nasty = "a 'b' \"c\" $HOME `id` \\ \n * ~ ; # é"
    assert bash(sh("printf", "%s", nasty)).stdout == nasty


def test_a_failure_anywhere_in_a_pipe_fails_the_whole():
    assert bash(pipe("false", "cat")).returncode == 1
    assert bash("false | cat").returncode == 0


def test_when_succeeds_where_the_condition_does_not_hold_and_fails_with_the_command():
    assert bash(when("false", "exit 3")).returncode == 0
    assert bash(when("true", "exit 3")).returncode == 3


def test_a_file_is_whole_or_absent_and_never_readable_by_others(tmp_path: Path):
    place = tmp_path / "a file"
    assert bash(into("echo text", place)).returncode == 0
    assert place.read_text() == "text\n"
    assert place.stat().st_mode & 0o777 == 0o600

    assert bash(into("false", place)).returncode == 1
    assert place.read_text() == "text\n", "a failure costs the former file"
