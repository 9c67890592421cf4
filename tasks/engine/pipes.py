"""Output into a pipe that nobody reads any more: `fab logs | head -1`.

Other tools are ended by a signal there. Python ignores it, so that the next line is an error in
whichever thread prints it, which looks like a lost connection to who waits for that thread. Here it
is a Ctrl-C instead: what is under way ends as it does for that, and nothing more is printed.
"""

from __future__ import annotations

import _thread
import io
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TextIO

UNREAD = 141  # what shells make of the signal: 128 and SIGPIPE's 13


class Pipe(io.FileIO):
    """The writing end of a pipe, which takes everything once nobody reads it."""

    closed_by_reader = False

    def write(self, data: Any, /) -> int:
        """Write, and interrupt the program the first time that nobody reads."""
        try:
            return super().write(data)
        except BrokenPipeError:
            self.closed_by_reader = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt from None
            _thread.interrupt_main()
            return len(data)


@contextmanager
def ending_with_its_reader() -> Iterator[None]:
    """Have the program end quietly once nobody reads what it prints; raises SystemExit then."""
    pipes = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if pipe := _pipe(stream):
            pipes.append(pipe)
            setattr(sys, name, _text(pipe, stream))
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (KeyboardInterrupt, SystemExit):
        if any(pipe.closed_by_reader for pipe in pipes):
            raise SystemExit(UNREAD) from None
        raise


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
