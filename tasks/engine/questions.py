"""Questions to whoever sits at the terminal: one at a time, and what Ctrl-D and Ctrl-C mean."""

from __future__ import annotations

import select
import sys
import threading
from contextlib import contextmanager, nullcontext
from getpass import getpass
from typing import TYPE_CHECKING

from invoke import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

UNANSWERED = "No answer was given (Ctrl-D). What comes after the question was not done."

STOPPED = "Stopped at the question (Ctrl-C). What comes after it was not done."

BEAT = 0.2  # seconds between two looks whether Ctrl-C was typed

_one_at_a_time = threading.Lock()

_stopped = threading.Event()


class NoAnswer(Exit):
    """Ctrl-D, or the end of what was piped in: a No to whatever was asked."""


def ask(question: str, secret: bool = False) -> str:
    """Return what is typed, without blanks around it where it is no secret.

    Raises NoAnswer at Ctrl-D, and at Ctrl-C a KeyboardInterrupt whose text is what to say.
    """
    with _one_at_a_time:
        try:
            answer = read(question, secret)
            return answer if secret else answer.strip()
        except EOFError:
            _end_line()
            raise NoAnswer(UNANSWERED) from None
        except KeyboardInterrupt:
            _end_line()
            raise KeyboardInterrupt(STOPPED) from None


def stop() -> str:
    """End a question of another thread, since Ctrl-C reaches the main one; return what to say."""
    _stopped.set()
    return STOPPED if _one_at_a_time.locked() else ""


def read(question: str, secret: bool = False) -> str:
    """Read one line from the terminal; raises EOFError where there is none."""
    if threading.current_thread() is not threading.main_thread():
        return _read_until_stopped(question, secret)
    if secret:
        return getpass(question)
    if sys.stdout.isatty():
        return input(question)
    _show(question)  # stdout may be a file that wants nothing but the answer of a task
    return input()


def _read_until_stopped(question: str, secret: bool) -> str:
    """Read a line in a thread, which no signal wakes."""
    with _hidden() if secret else nullcontext():
        _show(question)
        while not select.select([sys.stdin], [], [], BEAT)[0]:
            if _stopped.is_set():
                raise KeyboardInterrupt
        line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


@contextmanager
def _hidden() -> Iterator[None]:
    """Have the terminal not show what is typed, as getpass does."""
    import termios

    terminal = sys.stdin.fileno()
    former = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, former)
        _end_line()


def _show(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def _end_line() -> None:
    _show("\n")
