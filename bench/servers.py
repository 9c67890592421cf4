"""Count the requests a second of one, two and three servers behind a balancer.

Three MLflow hosts, a database host, a balancer and the writers all share this machine's cores, so
that its cores are what limits first: CPU that nobody has left cannot be had from one more server.
Each round is therefore measured twice: as it is, and with every server held to a part of a core, as
if hosts were small; then only what servers have in common (database, balancer) can keep requests
from growing with them. Needs root, as rehearsal hosts do. Usage: python bench/servers.py [SECONDS]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/e2e"))

from lab import Host, opened
from load import PROCESSES, writers
from measuring import HERTZ, processes, seconds_of
from rich.console import Console
from rich.table import Table
from test_e2e_several import Several, three_servers

PART = 0.2  # of a core
PERIOD = 100_000  # microseconds; the kernel's own
CALLS = 2  # of one run that is logged
ONE = Path("/sys/fs/cgroup/cpu")  # where the kernel has a hierarchy for each controller


def seconds_of_all() -> float:
    """Return the CPU seconds that this machine has spent on anything."""
    user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, *interrupts[:2]))) / HERTZ


@contextmanager
def held_to(part: float, hosts: list[Host]) -> Iterator[None]:
    """Let MLflow on each host have only so much of a core."""
    with ExitStack() as stack:
        for host in hosts:
            name = f"bench-{host.machine}"
            group = ONE / name if ONE.is_dir() else ONE.parent / name
            group.mkdir()
            stack.callback(group.rmdir)
            quota = int(part * PERIOD)
            if ONE.is_dir():
                (group / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (group / "cpu.max").write_text(f"{quota} {PERIOD}")
            for each in processes(host.pid):
                with suppress(OSError):
                    if b"mlflow" in (each / "cmdline").read_bytes():
                        (group / "cgroup.procs").write_text(each.name)
                        stack.callback(let_go, group, each.name)
        yield


def let_go(group: Path, process: str) -> None:
    with suppress(OSError):  # it may have ended
        (group.parent / "cgroup.procs").write_text(process)


def measured(several: Several, count: int, seconds: float) -> tuple[float, list[float]]:
    """Return requests a second, and the cores that servers, database, balancer and all else had."""
    places = ",".join(host.address for host in several.web[:count])
    several.fab("balancer", "--servers", places, on=[several.lb])
    kinds = [[host.pid for host in those] for those in (several.web, [several.db], [several.lb])]
    with writers(several.lb, several.web[0].login(), ("raw", PROCESSES), pause=0) as load:
        time.sleep(2)
        began, before = time.time(), [*map(seconds_of, kinds), seconds_of_all()]
        time.sleep(seconds)
        after, ended = [*map(seconds_of, kinds), seconds_of_all()], time.time()
        runs = len(load.acknowledged(ended)) - len(load.acknowledged(began))
    had = [(late - early) / (ended - began) for early, late in zip(before, after, strict=True)]
    return CALLS * runs / (ended - began), [*had[:3], had[3] - sum(had[:3])]


def main(seconds: float) -> None:
    cores = os.cpu_count()
    table = Table(
        "servers", "each held to", "requests/s", "of one server's", "MLflow", "PostgreSQL",
        "HAProxy", f"all else, of {cores} cores", title=f"{PROCESSES} writers through the balancer",
    )  # fmt: skip
    with opened("bench") as lab, three_servers(lab) as several:
        for part in (None, PART):
            with ExitStack() as stack:
                if part:
                    stack.enter_context(held_to(part, several.web))
                first = None
                for count in (1, 2, 3):
                    rate, had = measured(several, count, seconds)
                    first = first or rate
                    held = f"{part} cores" if part else "-"
                    table.add_row(
                        str(count), held, f"{rate:.0f}", f"{rate / first:.2f}",
                        *(f"{each:.2f}" for each in had),
                    )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 15)
