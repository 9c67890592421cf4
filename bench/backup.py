"""Time a backup of a 1 GB database, and what 8 writers wait for meanwhile; count what copies hold.

Beside `backup`, in turns that change their order: SQLite's own `.backup`, `zstd -1` and an upload
of the same file; both as typed, login included. Memory is the sum of what the kernel noted as the
most of each of the backup's programs. And 50 copies each of 100 MB, under the same writers, by the
guide's `cp`, on SQLite's own journal and on the write-ahead log, and by `backup`. Needs root, as
rehearsal hosts do.

Usage: python bench/backup.py [ROUNDS] [MB] [beside], the last for the first table alone.
"""

from __future__ import annotations

import shutil
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/e2e"))

from lab import ROOT, UNIT, opened
from load import PROCESSES, Load, writers
from measuring import in_turn, machine
from older import PROGRAMS, WHOLE, Older, set_id
from rich.console import Console
from rich.table import Table

from tasks.rehearsal import processes

COPIES = 50
RUNS, METRICS = 90, 40  # so many runs, each of so many metrics, make 1 MB
BACKUP = ("back_up.py", "zstd")
BY_HAND = """set -e
cd mlflow-server
sqlite3 mlflow.db ".timeout 60000" ".backup by-hand.db"
zstd -1 -q --rm by-hand.db
aws --endpoint-url {endpoint} s3 cp --quiet by-hand.db.zst s3://{bucket}/by-hand.db.zst
rm by-hand.db.zst
"""
# What the backup has done to the copy before anything is sent: integrity, keys, rows of all tables.
EXAMINE = f"""
import os, sqlite3, sys
sys.path.insert(0, "{PROGRAMS}")
import databases
databases.copy("{ROOT}", ["mlflow.db"], "/var/tmp")
databases.examine("/var/tmp/mlflow.db")
os.remove("/var/tmp/mlflow.db")
"""
COPY = """set -e
mkdir -p copies
for n in $(seq {count}); do
  date +%s.%N
  cp mlflow-server/mlflow.db copies/$n.db
  sleep 0.5
done
"""


@contextmanager
def memory(host_pid: int) -> Iterator[list[int]]:
    """Note, for the block, the sum of what each of the backup's programs took at most, in bytes."""
    peaks: dict[int, int] = {}
    total = [0]
    over = threading.Event()

    def look() -> None:
        here = processes.namespace(host_pid)
        while not over.wait(0.2):
            for folder in Path("/proc").glob("[0-9]*"):
                pid = int(folder.name)
                try:
                    words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    ours = any(Path(word).name in BACKUP for word in words)
                    if not ours or processes.namespace(pid) != here:
                        continue
                    status = (folder / "status").read_text()
                except OSError:
                    continue
                if "VmHWM:" in status:
                    peaks[pid] = int(status.split("VmHWM:")[1].split()[0]) * 1024
        total[0] = sum(peaks.values())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield total
    finally:
        over.set()
        thread.join()


def p99(load: Load, spans: list[tuple[float, float]]) -> float:
    """Return the 99th percentile of the seconds that runs took which ended in one of the spans."""
    took = [
        note["took"]
        for note in load.notes()
        if "run" in note and any(start < note["at"] < end for start, end in spans)
    ]
    return statistics.quantiles(took, n=100)[98]


def side_by_side(older: Older, rounds: int) -> None:
    """Time both ways while nobody writes: by hand, every write makes SQLite begin anew."""
    host = older.host
    script = BY_HAND.format(endpoint=host.lab.endpoint, bucket=host.lab.bucket)
    ways: dict[str, Callable[[], object]] = {
        "by hand": lambda: host.ssh(script),
        "backup": lambda: host.fab("backup", timeout=1800),
        "of that: copy and checks": lambda: older.as_user("python3", "-c", EXAMINE),
    }

    def timed(name: str) -> tuple[float, int]:
        started = time.monotonic()
        with memory(host.pid or 0) as peak:
            ways[name]()
        return time.monotonic() - started, peak[0]

    found = in_turn({name: partial(timed, name) for name in ways}, rounds)
    seconds = {name: [took for took, _ in each] for name, each in found.items()}
    most = max(peak for _, peak in found["backup"])
    size = older.disk(f"{ROOT}/mlflow.db").stat().st_size
    floor = statistics.median(seconds["by hand"])
    table = Table("way", "s", "ratio", title=f"{size / 1e6:.0f} MB, median of {rounds} rounds")
    for name, took in seconds.items():
        table.add_row(
            name, f"{statistics.median(took):.1f}", f"{statistics.median(took) / floor:.2f}"
        )
    Console(width=100).print(table)
    print(f"memory of the backup's programs: {most / 1e6:.0f} MB at most")


def under_writers(older: Older, rounds: int) -> None:
    """Time what writers wait for, with and without a backup at work."""
    spans: dict[str, list[tuple[float, float]]] = {"no backup": [], "backup": []}
    with writers(older.host, older.login) as load:
        for _ in range(rounds):
            start = time.time()
            time.sleep(30)
            middle = time.time()
            older.host.fab("backup", timeout=1800)
            spans["no backup"].append((start, middle))
            spans["backup"].append((middle, time.time()))
    waits = {name: p99(load, those) for name, those in spans.items()}
    table = Table("8 writers", "p99 of a run, s", "ratio", "backup, s")
    table.title = f"{rounds} rounds, {len(load.failures())} failed calls"
    for name, those in spans.items():
        took = statistics.median(end - start for start, end in those)
        ratio = waits[name] / waits["no backup"]
        table.add_row(
            name, f"{waits[name]:.2f}", f"{ratio:.2f}", f"{took:.1f}" if name == "backup" else ""
        )
    Console(width=100).print(table)


def journal(older: Older, mode: str) -> None:
    """Have the database of the server, which is stopped meanwhile, keep its journal so."""
    older.host.run(f"systemctl stop {UNIT}.socket {UNIT}.service")
    code = (
        "import sqlite3, sys\n"
        "print(sqlite3.connect(sys.argv[1]).execute('pragma journal_mode=' + sys.argv[2]))"
    )
    older.as_user("python3", "-c", code, f"{ROOT}/mlflow.db", mode)
    older.host.run(f"systemctl start {UNIT}.socket {UNIT}.service")
    older.serves()


def copied(older: Older) -> tuple[int, int]:
    """Copy as the guide does; return how many copies are damaged, and how many lack a run."""
    damaged = lacking = 0
    folder = older.disk("/home/ubuntu/copies")
    with writers(older.host, older.login) as load:
        moments = older.host.ssh(COPY.format(count=COPIES)).split()
    for number, moment in enumerate(moments, start=1):
        wanted = load.acknowledged(before=float(moment))
        try:
            with closing(sqlite3.connect(folder / f"{number}.db")) as base:
                if base.execute("pragma integrity_check(1)").fetchone() != ("ok",):
                    damaged += 1
                elif wanted - {run for (run,) in base.execute(WHOLE)}:
                    lacking += 1
        except sqlite3.Error:
            damaged += 1
    shutil.rmtree(folder)
    return damaged, lacking


def backed_up(older: Older) -> tuple[int, int]:
    """Do the same by `backup`; each set is fetched and checked as `restore` does."""
    lacking = 0
    with writers(older.host, older.login) as load:
        made = [set_id(older.host.fab("backup").out) for _ in range(COPIES)]
    for id in made:
        began = datetime.fromisoformat(older.sets()[id]["made"]).timestamp()
        lacking += bool(load.acknowledged(before=began) - older.fetched(id))
    return 0, lacking


def copies(older: Older) -> None:
    found = {}
    journal(older, "delete")
    found["cp, SQLite's own journal"] = copied(older)
    journal(older, "wal")
    found["cp, write-ahead log"] = copied(older)
    found["backup"] = backed_up(older)
    table = Table("way", "damaged", "whole, but lacks acknowledged runs", "good")
    table.title = f"{COPIES} copies each of 100 MB under {PROCESSES} writers"
    for way, (damaged, lacking) in found.items():
        table.add_row(way, str(damaged), str(lacking), str(COPIES - damaged - lacking))
    Console(width=100).print(table)


def main(rounds: int, megabytes: int, beside: bool) -> None:
    with opened("bench") as lab, lab.blank() as host:
        older = Older(host)
        older.reset()
        older.fill(100 * RUNS, METRICS)
        if not beside:
            copies(older)
        host.run("apt-get -qq install -y sqlite3")
        older.fill((megabytes - 100) * RUNS, METRICS)
        print(machine())
        side_by_side(older, rounds)
        if not beside:
            under_writers(older, rounds)


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:] if word.isdigit()]
    main(*(given + [3, 1000][len(given) :]), beside="beside" in sys.argv)
