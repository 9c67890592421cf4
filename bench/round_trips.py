"""Time a chain with nothing to do at 50 ms of round trip, against the least that SSH can do.

A small proxy in front of a rehearsal host's port 22 delays both directions. The floor is what
OpenSSH takes to log in and run `true` once; the same over a master connection of OpenSSH's that is
open, a task that is typed alone, the chain of three, and the tasks that only look stand beside it.
Needs root, as rehearsal hosts do.

Usage: python bench/round_trips.py [ROUNDS] [distance], the last for floor and chain at 0 to 200 ms.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measuring import as_typed, in_turn, keep, machine
from rich.console import Console
from rich.table import Table

from tasks.engine.paths import PROJECT
from tasks.laptop.tunnels import free_port
from tasks.rehearsal import Rehearsal

ROUND_TRIP = 0.05  # seconds
CHAIN = ("install", "configure", "deploy")
ROUND_TRIPS = (0, 0.02, 0.05, 0.1, 0.2)  # loopback, a region, a continent, an ocean, the far side


async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float) -> None:
    """Pass on what arrives, each piece so many seconds later, and hold up nothing that follows."""
    loop, waiting = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def deliver() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not data:
                break
            target.write(data)
        target.close()

    delivery = asyncio.create_task(deliver())
    with suppress(ConnectionError):  # whoever cuts it off has ended it
        while data := await source.read(65536):
            waiting.put_nowait((loop.time() + delay, data))
    waiting.put_nowait((loop.time() + delay, b""))
    with suppress(ConnectionError):
        await delivery


def delayed(address: str, round_trip: float = ROUND_TRIP) -> int:
    """Listen on a port of this machine that leads to the address's port 22, slowly."""
    delay = round_trip / 2
    port = free_port()

    async def serve() -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(address, 22)
            await asyncio.gather(carry(reader, back, delay), carry(there, writer, delay))

        async with await asyncio.start_server(accept, "127.0.0.1", port) as server:
            await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    return port


def timed(words: list[str], environment: dict[str, str]) -> float:
    started = time.monotonic()
    subprocess.run(
        words, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    return time.monotonic() - started


@contextmanager
def rehearsal_host(count: int = 1) -> Iterator[tuple[Rehearsal, Path, dict[str, str]]]:
    """Boot hosts for the block; gives them, a home of their own and ./fab's environment there."""
    with tempfile.TemporaryDirectory() as home:
        hosts = Rehearsal(Path(home, "state"), lambda text: None)
        try:
            hosts.up(count)
            yield (
                hosts,
                Path(home),
                as_typed()
                | {
                    "HOME": home,
                    "XDG_CONFIG_HOME": f"{home}/.config",
                    "XDG_RUNTIME_DIR": f"{home}/run",
                    "AWS_ACCESS_KEY_ID": "bench",
                    "AWS_SECRET_ACCESS_KEY": "bench",
                    "FABRIC_MLFLOW_BUCKET": hosts.bucket,
                    "FABRIC_MLFLOW_ENDPOINT_URL": hosts.endpoint,
                },
            )
        finally:
            hosts.down()


def aimed(hosts: Rehearsal, home: Path, round_trip: float) -> Path:
    """Return an OpenSSH configuration for which the host is so far away."""
    port = delayed(hosts.machines()[0].address, round_trip)
    slow = home / f"ssh_config_{round_trip}"
    slow.write_text(
        f'Host sandbox\n    HostName 127.0.0.1\n    Port {port}\nInclude "{hosts.ssh_config}"\n'
    )
    return slow


@contextmanager
def master(slow: Path, home: Path) -> Iterator[list[str]]:
    """Hold OpenSSH's connection open for the block; gives the words that run `true` over it."""
    ssh = ["ssh", "-F", str(slow), "-S", str(home / "master")]
    subprocess.run([*ssh, "-MNf", "sandbox"], check=True, stderr=subprocess.DEVNULL)
    try:
        yield [*ssh, "sandbox", "true"]
    finally:
        subprocess.run([*ssh, "-O", "exit", "sandbox"], check=True, stderr=subprocess.DEVNULL)


def cases(slow: Path) -> dict[str, list[str]]:
    """Return what is measured, by name; the first is the floor."""
    fab = [str(PROJECT / "fab"), "-S", str(slow), "-H", "sandbox"]
    return {
        "ssh sandbox true (the floor)": ["ssh", "-F", str(slow), "sandbox", "true"],
        "fab --list (start-up alone)": [str(PROJECT / "fab"), "--list"],
        "fab install": [*fab, "install"],
        "fab install configure deploy": [*fab, *CHAIN],
        "fab status": [*fab, "status"],
        "fab doctor": [*fab, "doctor"],
    }


def main(rounds: int) -> None:
    with rehearsal_host() as (hosts, home, environment):
        slow = aimed(hosts, home, ROUND_TRIP)
        typed = cases(slow)
        timed(typed["fab install configure deploy"], environment)
        with master(slow, home) as over_master:
            typed["ssh sandbox true, over an open master"] = over_master
            ways = {name: partial(timed, words, environment) for name, words in typed.items()}
            seconds = in_turn(ways, rounds)
    floor = statistics.median(next(iter(seconds.values())))
    table = Table("nothing to do", "s", "ratio", title=f"50 ms RTT, median of {rounds} rounds")
    for name, values in seconds.items():
        median = statistics.median(values)
        table.add_row(name, f"{median:.2f}", f"{median / floor:.2f}")
    Console(width=100).print(machine(), table)


def by_distance(rounds: int) -> None:
    """Time the floor and the chain at several distances, in turn."""
    named = {"ssh true": "ssh sandbox true (the floor)", "./fab": "fab install configure deploy"}
    with rehearsal_host() as (hosts, home, environment):
        at = {each: cases(aimed(hosts, home, each)) for each in ROUND_TRIPS}
        timed(at[0][named["./fab"]], environment)
        ways = {
            (name, each): partial(timed, at[each][full], environment)
            for each in ROUND_TRIPS
            for name, full in named.items()
        }
        seconds = in_turn(ways, rounds)
    table = Table("round trip, ms", *named, title=f"nothing to do, s, median of {rounds} rounds")
    middle = {
        name: [statistics.median(seconds[name, each]) for each in ROUND_TRIPS] for name in named
    }
    for each, *row in zip(ROUND_TRIPS, *middle.values(), strict=True):
        table.add_row(f"{1000 * each:.0f}", *(f"{value:.2f}" for value in row))
    Console(width=100).print(machine(), table)
    keep("round_trips", {"rounds": rounds, "round_trips": ROUND_TRIPS, "seconds": middle})


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:] if word.isdigit()]
    (by_distance if "distance" in sys.argv else main)(*counts or [5])
