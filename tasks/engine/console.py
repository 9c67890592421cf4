"""What the operator sees: whole lines, tagged with their host, colour only on a terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.questions import NoAnswer, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from rich.console import RenderableType

_lock = threading.Lock()

# What would move a terminal's cursor, colour it or turn its text around, or is no character at all;
# a tab may stay.
CONTROLS = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Console:
    """One voice for all hosts: lines never mix, and JSON stays alone on stdout.

    `quiet_stdout` moves all talk to stderr, so that stdout carries nothing but JSON.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out, self._err = out, err
        self.quiet_stdout = False
        self.tagged = False
        # Whether an environment was chosen at all: then the unnamed one has to be named as well.
        self.chosen = False
        # The options about ssh of this command line, for the commands that it advises.
        self.ssh_options = ""
        self._secrets: set[str] = set()
        self._show_now: Callable[[str], None] | None = None  # where something moves on a terminal

    @property
    def out(self) -> TextIO:
        """Return the stream for answers, as it is now: who captures output replaces it."""
        return self._out or sys.stdout

    @property
    def err(self) -> TextIO:
        """Return the stream for what went wrong."""
        return self._err or sys.stderr

    @property
    def talk(self) -> TextIO:
        """Return the stream for everything that is not the answer itself."""
        return self.err if self.quiet_stdout else self.out

    def protect(self, *secrets: str | None) -> None:
        """Never print these, whoever may echo them."""
        self._secrets.update(secret for secret in secrets if secret)

    def redacted(self, text: str) -> str:
        """Return the text with every protected secret blotted out."""
        # The longest first: one may be a part of another.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "********")
        return text

    def say(self, text: str, host: str | None = None, style: str | None = None) -> None:
        """Print whole lines to the operator, tagged with the host when there are several."""
        self._write(self.talk, text, host, style)

    def head(self, text: str) -> None:
        """Print what the lines below concern, to stderr: it is no part of any answer."""
        self._write(self.err, text, None, "bold")

    def warn(self, text: str, host: str | None = None) -> None:
        """Print what the operator should look at, to stderr."""
        self._write(self.err, text, host, "yellow")

    def fail(self, text: str, host: str | None = None) -> None:
        """Print what went wrong and what to type next, to stderr."""
        self._write(self.err, text, host, "red")

    def answer(self, text: str) -> None:
        """Print what was asked for to stdout, as it is."""
        with _lock:
            print(text, file=self.out, flush=True)

    def show(self, renderable: RenderableType, width: int = 120) -> None:
        """Print a table or panel; `width` is for files and programs, which have none."""
        from rich.console import Console as Rich

        with _lock:
            Rich(file=self.talk, width=self.width or width, highlight=False).print(renderable)

    @property
    def width(self) -> int | None:
        """Return the terminal's columns; None where the output goes to a file or program."""
        return shutil.get_terminal_size().columns if self.talk.isatty() else None

    def _write(self, stream: TextIO, text: str, host: str | None, style: str | None) -> None:
        tag = f"[{host}] " if host and self.tagged else ""
        safe = (CONTROLS.sub("?", line) for line in self.redacted(text).splitlines())
        lines = [f"{tag}{line}" for line in safe] or [tag]
        with _lock:
            for line in lines:
                print(painted(line, style, stream), file=stream)
            stream.flush()

    @contextmanager
    def step(self, what: str, host: str | None = None) -> Iterator[None]:
        """Say what begins, and how long it took once it is done."""
        started = time.monotonic()
        with self.waiting(what, host):
            yield
        self.say(f"✓ {what} ({seconds(time.monotonic() - started)})", host, "green")

    @contextmanager
    def waiting(self, what: str, host: str | None = None) -> Iterator[None]:
        """Show that long work goes on: a spinner on a terminal, one plain line elsewhere."""
        if not self.talk.isatty() or self.tagged:
            self.say(f"… {what}", host)
            yield
            return
        from rich.console import Console as Rich
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        one_line = Column(no_wrap=True, overflow="ellipsis")
        columns = (
            SpinnerColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False, table_column=one_line),
        )
        with Progress(*columns, console=Rich(file=self.talk), transient=True) as progress:
            task = progress.add_task(what)
            self._show_now = lambda text: progress.update(task, description=f"{what}: {text}")
            try:
                yield
            finally:
                self._show_now = None

    def now(self, text: str) -> None:
        """Show what is under way within long work, where somebody looks at it; the newest stays."""
        if self._show_now:
            self._show_now(self.redacted(text))


def printable(text: str) -> str:
    """Return others' text as one line that a terminal only shows; at most 500 characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:500]


def painted(line: str, style: str | None, stream: TextIO) -> str:
    """Return a line in colour where it is wanted: on a terminal without NO_COLOR (no-color.org)."""
    codes = {"green": "32", "yellow": "33", "red": "31", "bold": "1", "dim": "2"}
    if style is None or os.environ.get("NO_COLOR") or not stream.isatty():
        return line
    return f"\x1b[{codes[style]}m{line}\x1b[0m"


def seconds(value: float) -> str:
    """Spell a duration the way people read it: 0.4 s, 12 s, 3 min 05 s."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 60:
        return f"{value:.0f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"


def interactive() -> bool:
    """Tell whether somebody can answer a question."""
    return sys.stdin is not None and sys.stdin.isatty()


def refuse_nobody(question: str) -> None:
    """Raise Exit where nobody can answer, naming what would."""
    from invoke import Exit

    if not interactive():
        raise Exit(f"{question} needs a confirmation. Add --yes to go on without a terminal.")


def confirm(question: str, yes: bool, consequence: str = "", name: str = "") -> bool:
    """Ask before something is destroyed, and return the answer; `--yes` is one.

    With a `name` the answer is that name, and `--yes` is none. Ctrl-D is a No. Raises Exit where
    nobody can answer, naming what would.
    """
    if yes and not name:
        return True
    if name and not interactive():
        raise Exit(f"{question} {name} wants its name typed: use {name} TASK --yes")
    refuse_nobody(question)
    if consequence:
        console.say(consequence)
    try:
        if name:
            return ask(f"{question} Type {name} to go on: ") == name
        return ask(f"{question} [y/N] ").lower() in {"y", "yes"}
    except NoAnswer:
        return False


console = Console()
