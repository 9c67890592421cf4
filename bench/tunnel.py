"""Move 200 MB down and up through `tunnel`, and through a plain `ssh -L` beside it.

Both lead to the same small server on a rehearsal host, by OpenSSH's own defaults, in turns that
change their order each round. Needs root, as rehearsal hosts do. Usage: python bench/tunnel.py
[ROUNDS]
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table
from round_trips import rehearsal_host, timed

from tasks.engine.paths import PROJECT
from tasks.laptop.tunnels import free_port

SIZE = 200_000_000  # bytes
PIECE = 1 << 20
DIRECTIONS = ("down", "up")
# Answers /health, sends what it is asked for, or takes what it is sent.
SERVER = f"""
import socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        asked = self.rfile.readline().split()
        if asked[0] == b"GET":
            self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
        elif asked[0] == b"down":
            for _ in range({SIZE} // {PIECE} + 1):
                self.wfile.write(bytes({PIECE}))
        else:
            left = {SIZE}
            while left > 0:
                left -= len(self.rfile.read1({PIECE}))
            self.wfile.write(b"done")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
Server(("127.0.0.1", 5000), Handler).serve_forever()
"""


def moved(direction: str, port: int) -> float:
    """Move the bytes; return the seconds that it took."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{direction}\n".encode())
        if direction == "up":
            piece, left = bytes(PIECE), SIZE
            while left > 0:
                connection.sendall(piece)
                left -= PIECE
            assert connection.recv(4) == b"done"
        else:
            left = SIZE
            while left > 0:
                left -= len(connection.recv(PIECE))
    return time.monotonic() - started


@contextmanager
def plain(words: list[str], port: int, host: str = "sandbox") -> Iterator[None]:
    """Hold the guide's own tunnel open."""
    forward = f"{port}:localhost:5000"
    process = subprocess.Popen([*words, "-N", "-L", forward, host], stdin=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def main(rounds: int) -> None:
    seconds: dict[tuple[str, str], list[float]] = {}
    with rehearsal_host() as (hosts, _, environment):
        hosts.run("sandbox", "systemd-run", "--quiet", "--unit=bench", "python3", "-c", SERVER)
        fab = [str(PROJECT / "fab"), "-S", str(hosts.ssh_config), "-H", "sandbox"]
        ports = {"ssh -L": free_port()}
        with plain(["ssh", "-F", str(hosts.ssh_config)], ports["ssh -L"]):
            ports["tunnel"] = free_port()
            port = str(ports["tunnel"])
            timed([*fab, "tunnel", "--background", "--local-port", port], environment)
            try:
                for number in range(rounds + 1):
                    order = list(ports) if number % 2 else list(reversed(ports))
                    for direction in DIRECTIONS:
                        for name in order:
                            took = moved(direction, ports[name])
                            if number:  # the first round warms up
                                seconds.setdefault((name, direction), []).append(took)
            finally:
                timed([*fab, "tunnel.close"], environment)
    title = f"200 MB, median of {rounds} rounds"
    table = Table("200 MB", "ssh -L, MB/s", "tunnel, MB/s", "ratio", title=title)
    for direction in DIRECTIONS:
        theirs, ours = (
            SIZE / 1e6 / statistics.median(seconds[name, direction])
            for name in ("ssh -L", "tunnel")
        )
        table.add_row(direction, f"{theirs:.0f}", f"{ours:.0f}", f"{ours / theirs:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
