"""The builders, by exact string."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import PurePosixPath

import pytest

from tasks.engine import shell
from tasks.engine.shell import sh, then, when


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("echo", "a b"), "echo 'a b'"),
        (("echo", "it's"), """echo 'it'"'"'s'"""),
        (("echo", "$(reboot)"), "echo '$(reboot)'"),
        (("echo", ""), "echo ''"),
        (("tail", "-n", 5, None, PurePosixPath("/var/log/a b")), "tail -n 5 '/var/log/a b'"),
        (("echo", "a\nb"), "echo 'a\nb'"),
        (("echo", r"a\b"), r"echo 'a\b'"),
        (("echo", "\\"), r"echo ''\\''"),
        (("echo", r"a\'b"), r"""echo a\\''"'"'b'"""),
        ((None,), ""),
    ],
)
def test_every_word_is_quoted_and_none_drops_out(words, command):
    assert sh(*words) == command


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (then("a", "b", "c"), "a && b && c"),
        (when("test -e x", "rm x"), "if test -e x; then rm x; fi"),
        (shell.start("a.socket", "nginx"), "systemctl start a.socket nginx"),
        (shell.stop("a b"), "systemctl stop 'a b'"),
    ],
)
def test_builders_spell_exactly(command, wanted):
    assert command == wanted


def bash(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", ["bash", "sh", "zsh", "fish"])
def test_a_quoted_word_reaches_the_program_as_it_was_whatever_the_login_s_shell(shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not here")
    nasty = "a 'b' \"c\" $HOME `id` \\ \n * ~ ; # é \\\\ \\\\\\ \\' \\\\'\\n '\\' \\\"\\"
    command = sh("printf", "%s", nasty)
    done = subprocess.run([shell, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == nasty


def test_when_succeeds_where_the_condition_does_not_hold_and_fails_with_the_command():
    assert bash(when("false", "exit 3")).returncode == 0
    assert bash(when("true", "exit 3")).returncode == 3
