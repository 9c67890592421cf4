"""Output that fails: nobody reads the pipe (`fab logs | head -1`), or a disk is full.

Other tools are ended by a signal in a pipe. Python ignores it, so that the next line is an error in
whichever thread prints it, which looks like a lost connection to who waits for that thread. Here it
is a Ctrl-C instead: what is under way ends as it does for that, and nothing more is printed.
"""

from __future__ import annotations

import _thread
import atexit
import io
import os
import select
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TextIO

UNREAD = 141  # what shells make of the signal: 128 and SIGPIPE's 13


class Pipe(io.FileIO):
    """The writing end of a pipe or a file, which takes everything once writing has failed."""

    exit: int | None = None  # the program's exit code, once it has

    def write(self, data: Any, /) -> int:
        """Write, and interrupt the program the first time that this fails."""
        try:
            # ssh may have made a pipe that it shares one that does not wait.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
            return written
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            self.exit = _said(error)
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt from None
            _thread.interrupt_main()
            return len(data)


def _said(error: OSError) -> int:
    """Say why output failed where anybody may read it; return the exit code for it."""
    if isinstance(error, BrokenPipeError):
        return UNREAD
    why = (
        f"What a command prints could not be written ({error.strerror}), and it was stopped there. "
        "Make room, or have it print elsewhere; then run the same command again.\n"
    )
    if sys.__stderr__:  # else 2 may be any file by now
        with suppress(OSError):  # past Python's streams: it may be one of these that is at work
            os.write(2, why.encode())
    return 1


@contextmanager
def ending_where_output_fails() -> Iterator[None]:
    """Have the program end once what it prints goes nowhere; raises SystemExit then."""
    pipes = _watched_output()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        _write_the_rest(pipes)
        raise
    _write_the_rest(pipes)


def end_where_output_fails() -> None:
    """Do the same for a program that has begun already, whose exit code stays its own."""
    pipes = _watched_output()

    def write_the_rest() -> None:
        with suppress(SystemExit):
            _write_the_rest(pipes)

    atexit.register(write_the_rest)


def _write_the_rest(pipes: list[Pipe]) -> None:
    """Write what is not written yet; raises SystemExit where any of what was printed is lost."""
    with suppress(KeyboardInterrupt):
        sys.stdout.flush()
    for code in (pipe.exit for pipe in pipes if pipe.exit):
        raise SystemExit(code) from None


def _watched_output() -> list[Pipe]:
    """Interrupt the program once output fails; return what takes it, but for terminals."""
    pipes = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not stream:  # closed before the start
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif pipe := _pipe(stream):
            pipes.append(pipe)
            setattr(sys, name, _text(pipe, stream))
    return pipes


def _pipe(stream: TextIO) -> Pipe | None:
    """Return a stream's pipe; None for a terminal, and for what only stands for a stream."""
    try:
        return None if stream.isatty() else Pipe(stream.fileno(), "w", closefd=False)
    except (AttributeError, OSError, ValueError):  # nothing there, closed, or a test's
        return None


def _text(pipe: Pipe, like: TextIO) -> TextIO:
    like.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(pipe), like.encoding, like.errors, line_buffering=like is sys.stderr
    )
