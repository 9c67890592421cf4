"""Questions at a real terminal: Ctrl-D is a No, Ctrl-C ends; one line each, never a traceback."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from invoke import Exit

from tasks.engine import paths, questions

# What the program below asks with; it says what came of it.
ASKING = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from invoke import Exit
from tasks.engine import questions
from tasks.engine.console import confirm

def here(work):
    return work()

def in_a_thread(work):
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(work).result()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(questions.stop()) from None

ways = {"here": here, "thread": in_a_thread}
what = {
    "confirm": lambda: confirm("Remove it?", yes=False),
    "name": lambda: confirm("Remove it?", yes=False, name="prod"),
    "word": lambda: questions.ask("Word: "),
    "secret": lambda: questions.ask("Secret: ", secret=True),
}
try:
    print("got", repr(ways[sys.argv[1]](what[sys.argv[2]])))
except Exit as error:
    print("exit", error.message)
except KeyboardInterrupt as stop:
    print("stopped", stop)
"""


@dataclass
class Asked:
    """A program with a terminal of its own."""

    process: subprocess.Popen[bytes]
    terminal: int
    seen: str = ""

    def until(self, pattern: str, timeout: float = 20) -> str:
        """Read what it shows until that is there."""
        end = time.monotonic() + timeout
        while not re.search(pattern, self.seen):
            assert time.monotonic() < end, self.seen
            if select.select([self.terminal], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.terminal, 4096).decode()
                except OSError:  # it has ended
                    break
        return self.seen.replace("\r\n", "\n")

    def type(self, text: str) -> str:
        os.write(self.terminal, text.encode())
        return self.until(r"(got|exit|stopped) .*\n")


@pytest.fixture
def asked() -> Iterator[object]:
    running: list[Asked] = []

    def start(where: str, what: str) -> Asked:
        ours, theirs = pty.openpty()
        words = [sys.executable, "-c", ASKING, where, what]
        process = subprocess.Popen(
            words, cwd=paths.PROJECT, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=claim_terminal,
        )  # fmt: skip
        os.close(theirs)
        running.append(Asked(process, ours))
        running[-1].until(r"(\[y/N\]|go on:|Word:|Secret:) ")
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()
        os.close(one.terminal)


def claim_terminal() -> None:
    """Make stdin the terminal that getpass finds and Ctrl-C is typed at."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


both = pytest.mark.parametrize("where", ["here", "thread"])


@both
@pytest.mark.parametrize(
    ("what", "typed", "wanted"),
    [
        ("confirm", "y\n", "got True"),
        ("confirm", "\n", "got False"),
        ("name", "prod\n", "got True"),
        ("word", "  two words \n", "got 'two words'"),
        ("secret", " kept \n", "got ' kept '"),
    ],
)
def test_what_is_typed_is_the_answer(asked, where, what, typed, wanted):
    assert wanted in asked(where, what).type(typed)


@both
def test_a_secret_is_not_shown(asked, where):
    assert asked(where, "secret").type("hunter2\n").count("hunter2") == 1, "only as the answer"


@both
@pytest.mark.parametrize(
    ("what", "wanted"),
    [
        ("confirm", "got False"),
        ("name", "got False"),
        ("word", f"exit {questions.UNANSWERED}"),
        ("secret", f"exit {questions.UNANSWERED}"),
    ],
)
def test_ctrl_d_is_a_no(asked, where, what, wanted):
    seen = asked(where, what).type("\x04")
    assert re.split(r"\n+", seen)[1:] == [wanted, ""]


@both
@pytest.mark.parametrize("what", ["confirm", "word", "secret"])
def test_ctrl_c_is_one_line(asked, where, what):
    program = asked(where, what)
    time.sleep(0.3)  # it shows the question a moment before it waits
    # A terminal sends it to everything in the foreground; `setsid` made that one group.
    os.killpg(program.process.pid, signal.SIGINT)
    seen = program.until(r"stopped .*\n")
    assert re.split(r"\n+", seen)[1:] == [f"stopped {questions.STOPPED}", ""]


def test_what_asks_shows_nothing_on_stdout_where_that_is_a_file(tmp_path):
    words = [sys.executable, "-c", ASKING.replace("confirm(", "questions.ask("), "here", "word"]
    done = subprocess.run(words, cwd=paths.PROJECT, input="x\n", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("got 'x'\n", "Word: ")


def test_the_end_of_what_is_piped_in_is_no_answer(terminal):
    terminal.append("Ctrl-D")
    with pytest.raises(Exit, match="No answer was given"):
        questions.ask("Word: ")
