"""What benchmarks share: what a command costs, ways side by side, this machine, kept numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tasks.engine.paths import PROJECT

T = TypeVar("T")
K = TypeVar("K")
HERTZ = os.sysconf("SC_CLK_TCK")
NUMBERS = PROJECT / "bench/numbers"  # what plots.py draws, as it was last measured


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, CPU seconds with its children's, and bytes at most."""

    seconds: float
    cpu: float
    memory: int


def as_typed() -> dict[str, str]:
    """Return this environment without what makes Python compile anew at each start."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def spent(words: list[str], environment: Mapping[str, str], check: bool = True) -> Cost:
    """Run a command to its end; raises CalledProcessError, with what it said, where it fails."""
    begun = time.monotonic()
    with subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        said = process.stdout.read() if process.stdout else b""
        _, status, used = os.wait4(process.pid, 0)  # of this child alone, and of what it waited for
        process.returncode = os.waitstatus_to_exitcode(status)
    took = time.monotonic() - begun
    if check and process.returncode:
        print(said.decode(errors="replace")[-3000:], file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, words)
    return Cost(took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def in_turn(ways: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Do each way once a round, in an order that turns; returns what each gave, round by round."""
    found: dict[K, list[T]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 == 0 else reversed(ways):
            found[name].append(ways[name]())
    return found


def processes(pid: int | None) -> Iterator[Path]:
    """List what runs on the host whose first process this is, as this machine numbers it."""
    theirs = os.readlink(f"/proc/{pid}/ns/pid")
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(each / "ns/pid") == theirs:
                yield each


def seconds_of(pids: list[int | None]) -> float:
    """Return the CPU seconds that hosts' processes have had."""
    ticks = 0
    for pid in pids:
        for each in processes(pid):
            with suppress(OSError):
                fields = (each / "stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))  # its own, and its dead children's
    return ticks / HERTZ


def machine() -> str:
    """Describe this machine, and how busy it is."""
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1e6
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GB, Linux {os.uname().release.split('-')[0]}, "
        f"Python {sys.version.split()[0]}; load {load:.1f} as it began"
    )


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Keep numbers for plots.py, with the day and the machine."""
    NUMBERS.mkdir(exist_ok=True)
    about = {"day": time.strftime("%Y-%m-%d"), "machine": machine()}
    (NUMBERS / f"{name}.json").write_text(json.dumps({**about, **found}, indent=2) + "\n")
