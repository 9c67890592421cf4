"""Time a chain with nothing to do on 1, 4, 16 and 64 hosts, beside Ansible and pyinfra.

All hosts of a tool are names of one machine, 50 ms away, which shares this machine's cores with
the tool: the more hosts, the more of the seconds are theirs, where each of a real fleet has a
processor of its own. Both parts are therefore told in CPU seconds as well: the tool's own (what one
laptop has to give) and the hosts'. Needs root, as rehearsal hosts do.

With `alone` it is ./fab only, and the host answers a look with what it answered once, after the
time that this took it alone: what it has to compute is a login, so that the seconds are those of
hosts that have processors of their own.

Usage: python bench/hosts.py [ROUNDS] [alone]
"""

from __future__ import annotations

import statistics
import sys
from functools import partial

from beside import OURS, TOOLS, Measured, converged
from measuring import in_turn, keep, machine
from rich.console import Console
from rich.table import Table

COUNTS = (1, 4, 16, 64)
LONG = 64  # so many take Ansible minutes here, and have one round

REPLAY = r"""
cat > /usr/local/bin/replay << 'END'
#!/bin/bash
if [ ! -s /var/tmp/look ]; then
  TIMEFORMAT=%R
  { time bash -c "$SSH_ORIGINAL_COMMAND" > /var/tmp/look.$$ 2> /dev/null; } 2> /var/tmp/took
  mv /var/tmp/look.$$ /var/tmp/look
else
  sleep "$(< /var/tmp/took)"
fi
cat /var/tmp/look
END
chmod 755 /usr/local/bin/replay
sed -i 's|^ssh-|command="/usr/local/bin/replay" ssh-|' /home/ubuntu/.ssh/authorized_keys
"""


def middle(found: list[Measured]) -> dict[str, float]:
    """Return the medians of what a tool's rounds took."""
    return {
        "seconds": statistics.median(one.here.seconds for one in found),
        "cpu": statistics.median(one.here.cpu for one in found),
        "host": statistics.median(one.host for one in found),
        "memory": statistics.median(one.here.memory for one in found),
    }


def main(rounds: int) -> None:
    about = machine()
    found: dict[str, dict[int, dict[str, float]]] = {tool: {} for tool in TOOLS}
    with converged() as beside:
        for tool in TOOLS:
            beside.warm_up(tool)
        for count in COUNTS:
            ways = {tool: partial(beside.run, tool, count) for tool in TOOLS}
            for tool, costs in in_turn(ways, rounds if count < LONG else 1).items():
                found[tool][count] = middle(costs)
    table = Table("tool", "hosts", "s", "of 1 host", "of ./fab's", "CPU s here", "CPU s of hosts")
    table.title = f"nothing to do at 50 ms, median of {rounds} rounds, {LONG} hosts in one"
    for tool, costs in found.items():
        for count, cost in costs.items():
            seconds = cost["seconds"]
            table.add_row(
                tool, str(count), f"{seconds:.1f}", f"{seconds / costs[1]['seconds']:.2f}",
                f"{seconds / found[OURS][count]['seconds']:.1f}", f"{cost['cpu']:.1f}",
                f"{cost['host']:.1f}",
            )  # fmt: skip
    Console(width=100).print(about, table)
    ours, most = found[OURS], max(COUNTS)
    each = (ours[most]["memory"] - ours[1]["memory"]) / (most - 1)
    print(f"./fab: {ours[1]['memory'] / 1e6:.0f} MB at 1 host, {each / 1e6:.2f} MB for each more")
    keep("hosts", {"rounds": rounds, "tools": found})


def alone(rounds: int) -> None:
    """Time ./fab on hosts that have nothing to compute."""
    about = machine()
    with converged((OURS,)) as beside:
        beside.on_host(OURS, REPLAY)
        beside.run(OURS)  # the look that is replayed, while nobody else looks
        beside.warm_up(OURS)
        found = in_turn({count: partial(beside.run, OURS, count) for count in COUNTS}, rounds)
    table = Table("hosts", "s", "of 1 host", "CPU s here", "CPU s of hosts")
    table.title = f"nothing to do at 50 ms, looks replayed, median of {rounds} rounds"
    medians = {count: middle(costs) for count, costs in found.items()}
    for count, cost in medians.items():
        table.add_row(
            str(count), f"{cost['seconds']:.1f}",
            f"{cost['seconds'] / medians[1]['seconds']:.2f}", f"{cost['cpu']:.1f}",
            f"{cost['host']:.1f}",
        )  # fmt: skip
    Console(width=100).print(about, table)
    keep("hosts-alone", {"rounds": rounds, "counts": medians})


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:] if word.isdigit()]
    (alone if "alone" in sys.argv else main)(*counts or [3])
