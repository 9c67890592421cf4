"""What goes into a command on a host, and what comes out of it line by line."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Alive(io.BytesIO):
    """Standard input that stays open after its bytes, with a line now and then.

    A command that reads it knows at once when the connection is closed, and after a while when it
    was lost without a word.
    """


class Lines:
    """A stream that hands over whole lines."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._part = ""

    def write(self, text: str) -> None:
        """Hand over the lines that are whole now."""
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            self._on_line(line.rstrip("\r"))

    def flush(self) -> None:
        """Do nothing: a part of a line is not for anybody yet."""

    def close(self) -> None:
        """Hand over what is left, a last line without an end."""
        if self._part:
            self._on_line(self._part)
