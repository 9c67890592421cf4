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
from itertools import cycle, islice
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
    """Do each way once a round, each after each other one; returns what each gave, by rounds.

    Ways alone are compared, not what the one before has left: memory that this machine must get
    again, and pages that are not written yet.
    """
    found: dict[K, list[T]] = {name: [] for name in ways}
    for order in islice(cycle(orders(list(ways))), rounds):
        for name in order:
            os.sync()
            found[name].append(ways[name]())
    return found


def orders(names: list[K]) -> list[list[K]]:
    """Return orders in which each name comes after each other one as often.

    They are the rows of a Williams design: https://doi.org/10.1071/CH9490149.
    """
    count = len(names)
    zigzag = [(step + 1) // 2 if step % 2 else -step // 2 for step in range(count)]
    rows = [[names[(first + step) % count] for step in zigzag] for first in range(count)]
    if count == 2:
        return rows[:1]  # over and over, either follows the other
    return rows + [row[::-1] for row in rows[:1] + rows[:0:-1] if count % 2]


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
