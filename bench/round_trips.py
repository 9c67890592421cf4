"""Time a chain with nothing to do at 50 ms of round trip, against the least that SSH can do.

A small proxy in front of a rehearsal host's port 22 delays both directions. The floor is what
OpenSSH takes to log in and run `true` once; a task that is typed alone, the chain of three, and the
tasks that only look stand beside it. Needs root, as rehearsal hosts do.

Usage: python bench/round_trips.py [ROUNDS]
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measuring import as_typed
from rich.console import Console
from rich.table import Table

from tasks.engine.paths import PROJECT
from tasks.laptop.tunnels import free_port
from tasks.rehearsal import Rehearsal

DELAY = 0.025  # seconds each way


async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass on what arrives, each piece DELAY later, without holding up what follows it."""
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
            waiting.put_nowait((loop.time() + DELAY, data))
    waiting.put_nowait((loop.time() + DELAY, b""))
    with suppress(ConnectionError):
        await delivery


def delayed(address: str) -> int:
    """Listen on a port of this machine that leads to the address's port 22, slowly."""
    port = free_port()

    async def serve() -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(address, 22)
            await asyncio.gather(carry(reader, back), carry(there, writer))

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


def main(rounds: int) -> None:
    with rehearsal_host() as (hosts, home, environment):
        port = delayed(hosts.machines()[0].address)
        slow = home / "ssh_config"
        slow.write_text(
            f'Host sandbox\n    HostName 127.0.0.1\n    Port {port}\nInclude "{hosts.ssh_config}"\n'
        )
        fab = [str(PROJECT / "fab"), "-S", str(slow), "-H", "sandbox"]
        chain = ["install", "configure", "deploy"]
        timed([*fab, *chain], environment)
        cases = {
            "ssh sandbox true (the floor)": ["ssh", "-F", str(slow), "sandbox", "true"],
            "fab --list (start-up alone)": [str(PROJECT / "fab"), "--list"],
            "fab install": [*fab, "install"],
            "fab install configure deploy": [*fab, *chain],
            "fab status": [*fab, "status"],
            "fab doctor": [*fab, "doctor"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, words in cases.items():
                seconds[name].append(timed(words, environment))
    floor = statistics.median(next(iter(seconds.values())))
    table = Table("nothing to do", "s", "ratio", title=f"50 ms RTT, median of {rounds} rounds")
    for name, values in seconds.items():
        median = statistics.median(values)
        table.add_row(name, f"{median:.2f}", f"{median / floor:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
