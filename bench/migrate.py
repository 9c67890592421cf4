"""Time the move of an SQLite store to PostgreSQL, rows compared, beside plain INSERTs.

Makes 100,000 runs with 5 million metrics in a release's own schema and moves them to a PostgreSQL
of this machine (needs Debian's postgresql). The plain way is what a script with SQLAlchemy does:
MLflow's tables, `executemany` in batches of 1,000, keys and indexes in place; it is given a part of
the metrics only, and its time for all is reckoned from that. Memory is what the kernel noted as the
most of the program itself; of MLflow's part, which makes the schema first; and of the comparing.

Usage: python bench/migrate.py [RUNS] [METRICS A RUN]
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/e2e"))

from rich.console import Console
from rich.table import Table
from test_e2e_move_store import HOST, SERVER, Cluster, Release

STEPS = 5  # of each metric
PART = 200_000  # metrics that the plain way is timed with

PLAIN = """
import sqlite3, sys, time
from sqlalchemy import MetaData, create_engine, insert
source = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
engine = create_engine(sys.argv[2])
known = MetaData()
known.reflect(engine, only=("runs", "metrics"))
started = time.monotonic()
for name, limit in (("runs", -1), ("metrics", int(sys.argv[3]))):
    found = source.execute(f"select * from {name} limit {limit}")
    names = [column[0] for column in found.description]
    if name == "metrics":
        started = time.monotonic()
    with engine.begin() as target:
        while rows := found.fetchmany(1000):
            values = [dict(zip(names, row)) for row in rows]
            for each in values if name == "metrics" else ():
                each["is_nan"] = bool(each["is_nan"])
            target.execute(insert(known.tables[name]), values)
print(time.monotonic() - started)
"""


def fill(file: Path, runs: int, metrics: int) -> None:
    """Put runs into a database of MLflow's, each with so many metrics and a few of all else."""
    chance = random.Random(1)
    ids = sorted(uuid.UUID(int=chance.getrandbits(128)).hex for _ in range(runs))
    keys = [f"metric_{n}" for n in range(metrics // STEPS)]
    with closing(sqlite3.connect(file)) as base, base:
        base.execute("pragma synchronous=off")
        base.execute("pragma cache_size=-400000")
        base.execute(
            "insert or ignore into experiments (experiment_id, name, lifecycle_stage, workspace) "
            "values (0, 'Default', 'active', 'default')"
        )
        base.executemany(
            "insert into runs (run_uuid, name, source_type, user_id, status, start_time, end_time, "
            "lifecycle_stage, artifact_uri, experiment_id) values (?, ?, 'UNKNOWN', 'me', "
            "'FINISHED', ?, ?, 'active', ?, 0)",
            (
                (id, f"run-{n}", 10**12 + n, 10**12 + n + 1, f"mlflow-artifacts:/0/{id}/artifacts")
                for n, id in enumerate(ids)
            ),
        )
        base.executemany(
            "insert into metrics (key, value, timestamp, run_uuid, step, is_nan) "
            "values (?, ?, ?, ?, ?, 0)",
            (
                (key, chance.gauss(0, 1), 10**12 + step, id, step)
                for key in keys
                for id in ids
                for step in range(STEPS)
            ),
        )
        base.execute(
            "insert into latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
            f"select key, value, timestamp, step, is_nan, run_uuid from metrics "
            f"where step = {STEPS - 1}"
        )
        for table, count in (("params", 5), ("tags", 3)):
            base.executemany(
                f"insert into {table} (key, value, run_uuid) values (?, ?, ?)",
                ((f"key_{n}", str(chance.random()), id) for id in ids for n in range(count)),
            )


@contextmanager
def memory() -> Iterator[dict[str, int]]:
    """Note, for the block, the most that each process of the move took, in bytes."""
    peaks: dict[str, int] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    if b"move_store.py" not in (folder / "cmdline").read_bytes():
                        continue
                    status = (folder / "status").read_text()
                except OSError:
                    continue
                if "VmHWM:" in status:
                    peaks[folder.name] = int(status.split("VmHWM:")[1].split()[0]) * 1024

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def moved(release: Release, folder: Path, uris: list[str]) -> tuple[dict[str, object], list[int]]:
    """Move as the task does; return the report, and the peaks of its processes in their order."""
    request = {"folder": folder, "tracking": uris[0], "users": uris[1], "server": SERVER}
    given = [f"{name}={value}" for name, value in request.items()]
    words = [release.python, HOST / "move_store.py", *given]
    with memory() as peaks:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1].removeprefix("@report "))
    return report, [peaks[pid] for pid in sorted(peaks, key=int)]


def main(runs: int, metrics: int) -> None:
    cluster = Cluster()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        release = Release(folder / "release")
        try:
            files = [folder / "mlflow.db", folder / "basic_auth.db"]
            assert release.ask("schemas", *(f"sqlite:///{file}" for file in files)).code == 0
            fill(files[0], runs, metrics)
            for name in ("mlflow", "users", "plain", "plain_users"):
                cluster.sql(f"create database {name} owner mlflow")
            uris = [cluster.uri("mlflow"), cluster.uri("users")]
            report, peaks = moved(release, folder, uris)
            plain = [cluster.uri("plain"), cluster.uri("plain_users")]
            assert release.ask("schemas", *plain).code == 0
            part = min(PART, runs * metrics)
            words = [release.python, "-c", PLAIN, files[0], plain[0], str(part)]
            took = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
            size = files[0].stat().st_size
        finally:
            release.close()
            cluster.close()
    rows = sum(sum(tables.values()) for tables in report["tables"].values())  # type: ignore[attr-defined]
    table = Table("way", "s", "metrics a second")
    table.title = f"{runs:,} runs, {runs * metrics:,} metrics, {rows:,} rows, {size / 1e6:.0f} MB"
    whole, comparing = float(report["seconds"]), float(report["seconds_compare"])  # type: ignore[arg-type]
    table.add_row("move_store.py, all", f"{whole:.0f}", "")
    table.add_row("  of that, comparing", f"{comparing:.0f}", "")
    reckoned = took * runs * metrics / part
    table.add_row(f"executemany, from {part:,}", f"{reckoned:.0f}", f"{part / took:,.0f}")
    Console(width=100).print(table)
    print("most memory, MB: " + ", ".join(f"{peak / 1e6:.0f}" for peak in peaks))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [100_000, 50][len(given) :]))
