"""The server's log: of several hosts as one, in the order in which things happened."""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import datetime, timedelta, timezone
from itertools import takewhile
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.presence import ABSENT
from tasks.engine.console import console
from tasks.engine.facts import refuse_without_sudo
from tasks.engine.records import dataclass
from tasks.engine.shell import sh
from tasks.engine.task import remote
from tasks.engine.templates import source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from tasks.engine.server import Server
    from tasks.engine.task import Host

LINES = 100  # unless told otherwise, or --since says where to start

LEVELS = ("info", "warning", "error", "critical")

TIMEOUT = 300  # seconds; a month of a busy server is a million lines

# Seconds that an entry waits for older ones of other hosts, and the first ones for their logins.
HOLD, FIRST_HOLD = 0.5, 2.0

# Becomes root, reads the program from standard input and leaves the rest of that to it.
BEGIN = """
command -v python3 > /dev/null || { echo @absent; exit; }
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2> /dev/null || { echo @refused; exit; }
  set -- sudo -n "$@"
fi
exec "$@"
"""

LOAD = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), 'read_log.py', 'exec'))"

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

NAMES = r"(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)"

DURATION = rf"(\d+ ?{NAMES},? ?)+(ago)?"


@dataclass(frozen=True)
class Entry:
    """Lines that belong together, and their time in microseconds since 1970."""

    when: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Log:
    """What one host told, oldest first, and how many lines were asked for (None for all)."""

    entries: tuple[Entry, ...]
    limit: int | None


def show(answers: Mapping[str, Log | None]) -> None:
    """Print the logs of all hosts as one."""
    logs = {host: log for host, log in answers.items() if log is not None}
    if not logs:
        return
    entries = merged(logs)
    console.answer("\n".join(entries) if entries else "-- no entries --")


def merged(logs: Mapping[str, Log]) -> list[str]:
    """Put entries in the order of their times, the last so many lines of all hosts together."""
    found = [(entry, host) for host, log in logs.items() for entry in log.entries]
    found.sort(key=lambda one: one[0].when)
    limit = next(iter(logs.values())).limit
    seen = 0

    def wanted(one: tuple[Entry, str]) -> bool:
        nonlocal seen
        before, seen = seen, seen + len(one[0].lines)
        return limit is None or before < limit

    last = list(takewhile(wanted, reversed(found)))
    return [line for entry, host in reversed(last) for line in tagged(entry, host)]


def tagged(entry: Entry, host: str) -> list[str]:
    """Put the host in front of every line where there are several."""
    tag = f"[{host}] " if console.tagged else ""
    return [tag + console.redacted(line) for line in entry.lines]


class Merger:
    """Print the entries of hosts that are followed together in the order of their times.

    An entry waits a moment for older ones that take longer to arrive.
    """

    def __init__(self, write: Callable[[str], None] = console.answer) -> None:
        self._write = write
        self._waiting: list[tuple[float, Entry, str]] = []
        self._open = 0.0
        self._lock = threading.Lock()

    def add(self, entry: Entry, host: str, now: float) -> None:
        """Take an entry that arrived at `now`, seconds of a clock that never goes back."""
        with self._lock:
            if not self._open:
                self._open = now + FIRST_HOLD
                threading.Thread(target=self._run, daemon=True).start()
            self._waiting.append((max(now + HOLD, self._open), entry, host))

    def release(self, now: float = float("inf")) -> None:
        """Print what waited long enough, and all that is older than it."""
        with self._lock:
            due = [entry.when for until, entry, _ in self._waiting if until <= now]
            ready = [one for one in self._waiting if due and one[1].when <= max(due)]
            self._waiting = [one for one in self._waiting if one not in ready]
            for _, entry, host in sorted(ready, key=lambda one: one[1].when):
                self._write("\n".join(tagged(entry, host)))

    def _run(self) -> None:
        while True:
            time.sleep(0.1)
            self.release(time.monotonic())


merger = Merger()


def question(
    follow: bool = False,
    lines: str | None = None,
    since: str | None = None,
    grep: str | None = None,
    level: str | None = None,
    access: bool = False,
) -> dict[str, Any]:
    """Check what was typed and spell it for the host; raises Exit that names what is wrong."""
    if level is not None and level not in LEVELS:
        raise Exit(f"--level is {level!r}. Take one of: {', '.join(LEVELS)}.")
    if grep is not None:
        try:
            re.compile(grep)
        except re.error as error:
            raise Exit(
                f"--grep {grep!r} is no pattern: {error}. Put a backslash before a character that "
                "is meant as it is, such as '\\('."
            ) from None
    if lines is not None and not (lines.isdigit() and int(lines)):
        raise Exit(f"--lines is {lines!r}, not a number from 1 on. Such as: --lines 50")
    return {
        "access": access,
        "follow": follow,
        "lines": int(lines) if lines else None if since else LINES,
        "since": None if since is None else start(since, datetime.now(timezone.utc)),
        "grep": grep,
        "level": level,
    }


def start(since: str, now: datetime) -> float:
    """Read a duration as seconds below zero, a date or time (UTC) as seconds since 1970."""
    text = since.strip().lower().removeprefix("-")
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if re.fullmatch(DURATION, text):
        parts = re.findall(rf"(\d+) ?{NAMES}", text)
        return -float(sum(int(number) * SECONDS[name[0]] for number, name in parts))
    if text in ("today", "yesterday"):
        return (midnight - timedelta(days=text == "yesterday")).timestamp()
    if re.fullmatch(r"\d\d?:\d\d(:\d\d)?", text):
        text = f"{midnight.date()} {'0' * (text[1] == ':')}{text}"
    try:
        moment = datetime.fromisoformat(re.sub(r" ?(z|utc)$", "+00:00", text))
    except ValueError:
        raise Exit(
            f"--since {since!r} is neither a duration nor a date. Such as: 1h, 10m (minutes), "
            "'2 days', today, 10:30, 2026-11-22 or '2026-11-22 10:30' (UTC)."
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


@remote(
    options=question,
    report=show,
    help={
        "follow": "go on printing new lines until Ctrl-C",
        "lines": "how many of the last lines (default 100, with --since all)",
        "since": "start there, such as '1h', '2 days', '2026-11-22' or 'today' (UTC)",
        "grep": "only entries that match this pattern",
        "level": "only entries as bad as this: warning, error or critical",
        "access": "nginx's access log instead: who asked for what, and the answer",
    },
)
def logs(
    c: Host,
    follow: bool = False,
    lines: str | None = None,
    since: str | None = None,
    grep: str | None = None,
    level: str | None = None,
    access: bool = False,
) -> Log | None:
    """Print the server's log, of several hosts as one.

    Of several hosts in time order, in UTC. An error and its traceback are one entry, and are
    shown or left out together.

    Example: fab -H ec2 logs --since 1h --level error
    """
    server = c.server
    asked = question(follow, lines, since, grep, level, access)
    if follow:
        _follow(server, asked)
        return None
    entries: list[Entry] = []
    _ask(server, asked, entries.append)
    return Log(tuple(entries), asked["lines"])


def _follow(server: Server, asked: dict[str, Any]) -> None:
    def take(entry: Entry) -> None:
        if console.tagged:
            merger.add(entry, server.name, time.monotonic())
        else:
            console.answer("\n".join(tagged(entry, server.name)))

    try:
        _ask(server, asked, take)
    except Exit as error:
        # The others go on, perhaps for hours, before anything is summed up.
        if console.tagged and error.message and not server.interrupted.is_set():
            console.fail(error.message, server.name)
        raise
    finally:
        merger.release()


def _ask(server: Server, asked: dict[str, Any], take: Callable[[Entry], None]) -> None:
    program = source("read_log.py").encode()
    unit = server.settings.unit
    words = ("python3", "-c", LOAD, str(len(program)), json.dumps({"unit": unit, **asked}))

    answers = set()

    def hear(line: str) -> None:
        if line.startswith("["):
            when, said = json.loads(line)
            take(Entry(when, tuple(said)))
        else:
            answers.add(line)

    server.run(
        sh("bash", "-c", BEGIN, "logs", *words),
        input=program,
        timeout=TIMEOUT,
        follow=asked["follow"],
        on_line=hear,
    )
    if "@absent" in answers:
        raise Exit(ABSENT.format(host=server.name))
    if "@refused" in answers:
        refuse_without_sudo(server.facts)
    if asked["follow"]:
        raise Exit(f"{server.name} stopped sending its log, unasked. Run the same command again.")
