"""Print a server's log as whole entries: its journal, or nginx's access log.

Runs on the host as root, where `tasks.logs` sends it over standard input, its request as one word
of JSON. Prints a JSON list an entry, [microseconds since 1970, [line, ...]], every line with its
time in UTC, host and program; or @absent.

Following ends with standard input, and where no byte came over it for a while: whatever becomes of
the operator, his machine or the network, nothing is left running here.
"""

import calendar
import dataclasses
import glob
import gzip
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time

SILENCE = 60  # seconds without a byte from the operator, who sends one every 10
QUIET = 0.2  # seconds after which an entry is taken to be complete
TORN = 200  # lines that are read beyond the wanted ones, so that the first entry is whole
RANKS = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4}

# What begins a record of Python's logging, of uvicorn and of Alembic, with or without a time.
DATE = re.compile(r"\[?\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d:\d\d\S*(?: [+-]\d{4}\])?\s+")
WORD = re.compile(r"(?:\[[^\]]*\]\s+)?\[?(DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL)\b")
TRACEBACK = "Traceback (most recent call last)"
CHAINED = ("Traceback (", "During handling of the above", "The above exception was the direct")
# An exception without its traceback, a refused option, and bash.
ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception|Interrupt): |Error: |\S+\.sh: line \d+: ")
WARNING = re.compile(r"\S+:\d+: \w*Warning: ")
ACCESS = re.compile(r"(.*?) \[([^\]]+)\] (.*)")
STATUS = re.compile(r'" (\d{3}) ')


@dataclasses.dataclass(frozen=True)
class Request:
    """Which entries of which log are asked for."""

    unit: str
    access: bool = False  # nginx's log instead of the unit's
    follow: bool = False
    lines: int = None  # how many of the last ones; None for all
    since: float = None  # seconds since 1970, below zero seconds ago; None for no limit
    grep: str = None  # a pattern
    level: str = None  # one of RANKS


def rank(text, priority, by_systemd):
    """Rate a line: by what it says first, and by the journal's priority where that is worse."""
    date = DATE.match(text)
    word = WORD.match(text, date.end() if date else 0)
    said = RANKS["info"]
    if word:
        name = word[1].lower()
        said = RANKS[{"warn": "warning", "fatal": "critical"}.get(name, name)]
    elif text.startswith(TRACEBACK) or ERROR.match(text):
        said = RANKS["error"]
    elif WARNING.match(text):
        said = RANKS["warning"]
    elif by_systemd and "Failed" in text:
        said = RANKS["error"]  # it writes "Failed with result" as a warning
    # syslog(3): 0 to 2 are emergency, alert and critical, 3 is error, 4 is warning.
    return max(said, 4 if priority <= 2 else {3: 3, 4: 2}.get(priority, 0))


class Entry:
    """Lines that belong together, such as an error and its traceback."""

    def __init__(self, when, prefix, rank):
        self.when, self.last, self.prefix, self.rank = when, when, prefix, rank
        self.lines, self.traceback = [], False

    def takes(self, when, text):
        if when - self.last > 1e6 or DATE.match(text) or WORD.match(text):
            return False
        if text.startswith(CHAINED):
            return self.traceback or self.rank >= RANKS["warning"]
        return self.traceback or text[:1] in ("", " ", "\t")

    def add(self, when, text):
        self.last = when
        self.traceback = self.traceback or TRACEBACK in text
        self.lines.append(text)


class Filter:
    """Print the entries that are asked for."""

    def __init__(self, asked):
        pattern = asked.grep
        self.level = RANKS[asked.level or "debug"]
        # As journalctl and ripgrep do: without a capital letter, capitals do not matter.
        same = re.IGNORECASE if pattern == (pattern or "").lower() else 0
        self.grep = re.compile(pattern, same) if pattern else None

    def wants(self, entry):
        if entry.rank < self.level:
            return False
        return not self.grep or bool(self.grep.search("\n".join(entry.lines)))


def show(entries):
    for entry in entries:
        lines = [printable(entry.prefix + line) for line in entry.lines]
        sys.stdout.write(json.dumps([entry.when, lines]) + "\n")
    sys.stdout.flush()


def printable(line):
    # What a client sent may stand in a log, and must not steer the reader's terminal.
    return re.sub(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", "?", line)


def clock(when):
    return time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(when // 1000000))


def last(entries, lines):
    """Take entries from the end until they have so many lines; an entry is never cut."""
    kept = []
    while entries and (lines is None or lines > 0):
        kept.append(entries.pop())
        lines = lines and lines - len(kept[-1].lines)
    return kept[::-1]


class Journal:
    """The unit's journal, whose lines are put together to entries again."""

    def __init__(self, asked, wanted):
        self.asked, self.wanted = asked, wanted
        self.open, self.done = {}, []
        self.cursor, self.rest, self.program = None, b"", None

    def command(self, *options):
        return [
            "journalctl", "--no-pager", "--quiet", "--unit=" + self.asked.unit,
            "--output=json", "--all",
            "--output-fields=MESSAGE,PRIORITY,_PID,_HOSTNAME,SYSLOG_IDENTIFIER,_COMM", *options,
        ]  # fmt: skip

    def take(self, line):
        """Add one line of journalctl's to its entry."""
        record = json.loads(line)
        self.cursor = record["__CURSOR"]
        when, pid = int(record["__REALTIME_TIMESTAMP"]), record.get("_PID", "")
        text = record.get("MESSAGE") or ""
        if isinstance(text, list):  # bytes that are no UTF-8
            text = bytes(text).decode(errors="replace")
        name = record.get("SYSLOG_IDENTIFIER") or record.get("_COMM") or "?"
        prefix = f"{clock(when)} {record.get('_HOSTNAME', '?')} {name}[{pid}]: "
        for part in text.split("\n"):
            entry = self.open.get(pid)
            if entry is None or not entry.takes(when, part):
                self.close(pid)
                weight = rank(part, int(record.get("PRIORITY", 6)), pid == "1")
                entry = self.open[pid] = Entry(when, prefix, weight)
            entry.add(when, part)

    def close(self, *pids):
        for pid in pids:
            entry = self.open.pop(pid, None)
            if entry is not None and self.wanted.wants(entry):
                self.done.append(entry)

    def finished(self):
        """Hand over the entries that nothing can follow any more."""
        self.close(*list(self.open))
        done, self.done = sorted(self.done, key=lambda entry: entry.when), []
        return done

    def past(self):
        """Return the last wanted entries; None where the unit is unknown and never wrote a line."""
        since, lines = self.asked.since, self.asked.lines
        filtered = self.wanted.level or self.wanted.grep
        # What matches may be rare: look back further and further rather than at everything.
        sizes = [2000, 16000, 128000, None] if filtered else [(lines or 0) + TORN]
        if lines is None:
            sizes = [None]
        for size in sizes:
            options = [] if size is None else [f"--lines={size}"]
            if since is not None:
                options.append(f"--since=@{int(since)}")
            read = subprocess.run(
                self.command(*options), stdout=subprocess.PIPE
            ).stdout.splitlines()
            for line in read:
                self.take(line)
            found = [e for e in self.finished() if since is None or e.when >= since * 1e6]
            enough = lines is not None and sum(len(entry.lines) for entry in found) >= lines
            if enough or size is None or len(read) < size:
                break
        if not read and not known(self.asked.unit):
            return None
        return last(found, lines)

    def watch(self):
        """Begin to follow, where the past ended; returns what to wait for."""
        after = ["--no-tail", "--after-cursor=" + self.cursor] if self.cursor else ["--lines=0"]
        self.program = subprocess.Popen(
            self.command("--follow", *after), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        return [self.program.stdout.fileno()]

    def news(self, ready):
        """Return the entries that became whole since the last time."""
        if not ready:
            return self.finished()
        data = os.read(self.program.stdout.fileno(), 1 << 16)
        if not data:
            sys.exit("journalctl ended")
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.take(line)
        done, self.done = self.done, []
        return done

    def end(self):
        if self.program:
            self.program.kill()
            self.program.wait()


class Access:
    """nginx's access log of the unit's site, and what was rotated away."""

    def __init__(self, asked, wanted):
        self.asked, self.wanted = asked, wanted
        self.path = f"/var/log/nginx/{asked.unit}.access.log"
        self.stream, self.rest = None, ""

    def entry(self, line):
        match = ACCESS.fullmatch(line)
        if match is None:
            return None
        when = moment(match[2])
        status = STATUS.search(match[3])
        weight = {"5": "error", "4": "warning"}.get(status[1][0] if status else "", "info")
        entry = Entry(when, f"{clock(when)} {socket.gethostname()} nginx: ", RANKS[weight])
        entry.add(when, f"{match[1]} {match[3]}")
        return entry

    def wanted_of(self, lines):
        entries = (self.entry(line.rstrip("\n")) for line in lines)
        return [entry for entry in entries if entry and self.wanted.wants(entry)]

    def past(self):
        since, lines = self.asked.since, self.asked.lines
        if not os.path.exists(self.path) and not known(self.asked.unit):
            return None
        found = []
        rotated = [name for name in glob.glob(self.path + ".*") if age(name)]
        for name in filter(os.path.exists, [self.path, *sorted(rotated, key=age)]):
            with opened(name) as stream:
                # Newest first: most of a busy log is never looked at.
                for line in reversed(stream.read().split("\n")):
                    entry = self.entry(line)
                    if entry is None:
                        continue
                    if since is not None and entry.when < since * 1e6:
                        return found[::-1]
                    if self.wanted.wants(entry):
                        found.append(entry)
                    if lines is not None and len(found) >= lines:
                        return found[::-1]
        return found[::-1]

    def watch(self):
        self.reopen(end=True)
        return []

    def reopen(self, end=False):
        if os.path.exists(self.path):
            self.stream = opened(self.path)
            self.stream.seek(0, os.SEEK_END if end else os.SEEK_SET)

    def news(self, ready):
        # Read first: what was written before a rotation still lies in the old file.
        *lines, self.rest = (self.rest + (self.stream.read() if self.stream else "")).split("\n")
        if os.path.exists(self.path) and (
            not self.stream or os.fstat(self.stream.fileno()).st_ino != os.stat(self.path).st_ino
        ):
            self.reopen()
        return self.wanted_of(lines)

    def end(self):
        pass


def age(path):
    """Tell how often logrotate has moved a file; 0 for one that it did not."""
    match = re.search(r"\.(\d+)(\.gz)?$", path)
    return int(match[1]) if match else 0


def opened(path):
    if path.endswith(".gz"):
        return gzip.open(path, "rt", errors="replace")
    return open(path, errors="replace")


MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def moment(text):
    """Read nginx's 24/Nov/2026:11:26:56 +0100 as microseconds since 1970."""
    day, month, rest = text.split("/")
    clock, zone = rest.split(" ")
    year, hour, minute, second = map(int, clock.split(":"))
    ahead = int(zone[0] + "1") * (int(zone[1:3]) * 3600 + int(zone[3:5]) * 60)
    utc = calendar.timegm((year, MONTHS.index(month) + 1, int(day), hour, minute, second))
    return (utc - ahead) * 1000000


def known(unit):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.run(["systemctl", "cat", unit + ".service"], **quiet).returncode == 0


def follow(log):
    def stop(*_):
        raise SystemExit

    # An alarm also ends a write that a dead connection holds up.
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, stop)
    signal.alarm(SILENCE)
    try:
        sources = log.watch()
        while True:
            ready = select.select([0, *sources], [], [], QUIET)[0]
            if 0 in ready:
                if not os.read(0, 4096):
                    return
                signal.alarm(SILENCE)
            if ready != [0]:
                show(log.news(ready))
    finally:
        log.end()


def main():
    asked = Request(**json.loads(sys.argv[-1]))
    if asked.since is not None and asked.since < 0:
        asked = dataclasses.replace(asked, since=asked.since + time.time())
    log = (Access if asked.access else Journal)(asked, Filter(asked))
    past = log.past()
    if past is None:
        print("@absent")
        return
    show(past)
    if asked.follow:
        follow(log)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        # Nobody reads any more; Python would complain once more when it closes.
        os._exit(0)
