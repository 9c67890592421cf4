"""Count requests a second and their waits at 1, 8 and 32 writers, beside the guide's own server.

Three rehearsal hosts: two as `deploy` has them, reached through nginx, one on SQLite and one on a
PostgreSQL beside it; one by the guide's own steps, on SQLite; all with a login. Writers log runs by
bare REST as fast as they are answered, by two requests each, and try none again. All share this
machine's cores. Needs root, as rehearsal hosts do.

Usage: python bench/writers.py [SECONDS] [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/e2e"))

from lab import CHAIN, SOCKET, Host, opened
from load import writers
from measuring import in_turn, keep, machine
from rich.console import Console
from rich.table import Table

from tasks.engine.paths import PROJECT

COUNTS = (1, 8, 32)
SQLITE, POSTGRESQL, GUIDE = "./fab", "./fab, PostgreSQL", "guide"
CALLS = 2  # of one run that is logged
GUIDES_LOGIN = ("admin", "bench-bench-bench")


def by_the_guide(host: Host) -> tuple[str, str]:
    """Make a host a server by the guide's own steps; returns its login."""
    script = (PROJECT / "bench/guide_steps.sh").read_bytes()
    for step in ("packages", "mlflow", "configure", "service"):
        command = f"BUCKET={host.lab.bucket} ENDPOINT={host.lab.endpoint} bash -s {step}"
        words = ["ssh", "-F", str(host.lab.ssh_config), host.alias, command]
        subprocess.run(words, input=script, check=True, stdout=subprocess.DEVNULL)
    return GUIDES_LOGIN


def deployed(host: Host) -> tuple[str, str]:
    """Make a host a server by ./fab; returns its login."""
    host.variables["FABRIC_MLFLOW_BIND"] = "0.0.0.0"
    host.fab(*CHAIN, timeout=900)
    return host.login()


def on_postgresql(host: Host) -> tuple[str, str]:
    """Make a host such a server on PostgreSQL; returns its login."""
    login = deployed(host)
    host.fab("postgres.install", timeout=600)
    host.variables["FABRIC_MLFLOW_BACKEND_STORE_URI"] = SOCKET
    host.fab("postgres.migrate", "--yes", timeout=600)
    return login


def under(host: Host, login: tuple[str, str], count: int, seconds: float) -> list[float]:
    """Return requests a second, the 50th and the 99th percentile of a run's wait, and failures."""
    with writers(host, login, ("raw", count), pause=0) as load:
        time.sleep(2)
        began = time.time()
        time.sleep(seconds)
        ended = time.time()
        notes = [note for note in load.notes() if began < note["at"] < ended]
    waits = [note["took"] for note in notes if "run" in note]
    failed = sum("failed" in note for note in notes)
    if len(waits) < 2:
        return [CALLS * len(waits) / seconds, seconds, seconds, failed]
    percentiles = statistics.quantiles(waits, n=100)
    return [CALLS * len(waits) / seconds, percentiles[49], percentiles[98], failed]


def main(seconds: float, rounds: int) -> None:
    about = machine()
    with (
        opened("bench") as lab,
        lab.blank() as sqlite,
        lab.blank() as postgresql,
        lab.blank() as guide,
    ):
        logins = {
            SQLITE: (sqlite, deployed(sqlite)),
            POSTGRESQL: (postgresql, on_postgresql(postgresql)),
            GUIDE: (guide, by_the_guide(guide)),
        }
        ways = {
            (name, count): partial(under, host, login, count, seconds)
            for count in COUNTS
            for name, (host, login) in logins.items()
        }
        found = in_turn(ways, rounds)
    shown(about, found, seconds, rounds)


def shown(
    about: str, found: dict[tuple[str, int], list[list[float]]], seconds: float, rounds: int
) -> None:
    """Print the medians, and keep the rates."""
    table = Table("writers", "server", "requests/s", "of the guide's", "p50, s", "p99, s", "failed")
    table.title = f"median of {rounds} rounds of {seconds:.0f} s; waits of a run, two requests"
    rates: dict[str, list[float]] = {SQLITE: [], POSTGRESQL: [], GUIDE: []}
    for (name, count), costs in found.items():
        rate, middle, most, failed = (
            statistics.median(column) for column in zip(*costs, strict=True)
        )
        rates[name].append(rate)
        floor = statistics.median(cost[0] for cost in found[GUIDE, count])
        table.add_row(
            str(count), name, f"{rate:.1f}", f"{rate / floor if floor else 0:.1f}",
            f"{middle:.3f}", f"{most:.2f}", f"{failed:.0f}",
        )  # fmt: skip
    Console(width=100).print(about, table)
    keep("writers", {"writers": COUNTS, "rates": rates})


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*(given + [10, 2][len(given) :]))
