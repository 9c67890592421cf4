"""Time one change on a converged host 50 ms away, beside Ansible and pyinfra: another port.

Nobody else's port changes: nginx alone listens there, in what all three tools make, so that MLflow
needs no restart; the process ids before and after tell whether it had one. Needs root, as rehearsal
hosts do.

Usage: python bench/change.py [ROUNDS]
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable

from beside import ANSIBLE, TOOLS, Beside, converged
from measuring import in_turn, keep, machine
from rich.console import Console
from rich.table import Table

PORTS = (5050, 5000)
LOOK = """systemctl show mlflow-server.service -p MainPID --value
curl -sfo /dev/null localhost:{port}/health
"""


def changing(beside: Beside, tool: str) -> Callable[[], tuple[float, bool]]:
    """Return what changes the port each time; that gives the seconds, and whether MLflow stayed."""
    ports = itertools.cycle(PORTS)
    before = beside.on_host(tool, LOOK.format(port=PORTS[-1]))

    def change() -> tuple[float, bool]:
        nonlocal before
        port = next(ports)
        seconds = beside.run(tool, port=port).here.seconds
        former, before = before, beside.on_host(tool, LOOK.format(port=port))
        return seconds, before == former

    return change


def main(rounds: int) -> None:
    about = machine()
    with converged() as beside:
        found = in_turn({tool: changing(beside, tool) for tool in TOOLS}, rounds)
    medians = {tool: statistics.median(one[0] for one in found[tool]) for tool in TOOLS}
    table = Table("tool", "s", "of Ansible's", "MLflow restarted")
    table.title = f"another port, at 50 ms, median of {rounds} rounds"
    for tool, seconds in medians.items():
        restarts = sum(not stayed for _, stayed in found[tool])
        ratio = seconds / medians[ANSIBLE]
        table.add_row(tool, f"{seconds:.1f}", f"{ratio:.2f}", f"{restarts} of {rounds}")
    Console(width=100).print(about, table)
    keep("change", {"rounds": rounds, "seconds": medians})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
