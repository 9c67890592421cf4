"""Measure what a start costs: of ./fab beside bare Fabric, and of the server beside MLflow's way.

The first in CPU seconds beside wall time, in turn, for a machine that does other things as well:
`python bench/starts.py [ROUNDS]`. The second on a rehearsal host, as root:
`python bench/starts.py [ROUNDS] server`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measuring import as_typed, in_turn, spent
from rich.console import Console
from rich.table import Table
from round_trips import rehearsal_host

from tasks.engine.paths import PROJECT

PYTHON = str(PROJECT / ".venv/bin/python")

# Until a login is asked for by the server itself; nginx lets the request wait.
RESTART = """
systemctl restart mlflow-server.service
begun=$(date +%s%N)
ask() { curl -s -o /dev/null -w '%{http_code}' --unix-socket /run/mlflow-server.sock "$@"; }
until [ "$(ask 'http://localhost/api/2.0/mlflow/experiments/search?max_results=1')" = 401 ]; do
  sleep 0.05
done
echo $(( $(date +%s%N) - begun ))
ps -eo rss=,args= | awk '/mlflow server|-m uvicorn/ && !/awk/ { sum += $1 } END { print sum }'
"""

PUBLIC = r"""sed -i 's|^exec .*/bin/mlflow server|exec venv/bin/mlflow server|' "$1" """


def of_fab(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "fabfile.py").touch()
        cases = {
            "fab --list, empty fabfile": [str(PROJECT / ".venv/bin/fab"), "-r", empty, "--list"],
            "./fab --list": [str(PROJECT / "fab"), "--list"],
            "./fab --help install": [str(PROJECT / "fab"), "--help", "install"],
            "what a task at hosts loads": [
                PYTHON, "-c", "import fabfile, tasks.engine.settings, tasks.engine.connection",
            ],
        }  # fmt: skip

        def started(words: list[str]) -> tuple[float, float]:
            cost = spent(words, as_typed(), check=False)  # an empty fabfile has nothing to list
            return cost.cpu, cost.seconds

        found = in_turn(
            {name: partial(started, words) for name, words in cases.items()}, rounds + 1
        )
    # The first round compiles.
    shown({name: zip(*costs[1:], strict=True) for name, costs in found.items()}, ("CPU s", "s"))


def of_server(rounds: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {"deploy's": [], "mlflow server": []}
    with rehearsal_host() as (hosts, _, environment):
        config = ["-F", str(hosts.ssh_config), "sandbox"]
        fab = [str(PROJECT / "fab"), "-S", str(hosts.ssh_config), "-H", "sandbox"]
        subprocess.run([*fab, "install", "configure", "deploy"], env=environment, check=True)
        for way, costs in found.items():
            if way == "mlflow server":
                script = PUBLIC.replace("$1", "mlflow-server/start_mlflow_server.sh")
                subprocess.run(["ssh", *config, script], check=True)
            for _ in range(rounds):
                words = ["ssh", *config, "sudo", "bash", "-s"]
                done = subprocess.run(
                    words, input=RESTART, capture_output=True, text=True, check=True
                )
                nanoseconds, kilobytes = map(int, done.stdout.split())
                costs.append((nanoseconds / 1e9, kilobytes / 1024))
    shown({name: zip(*costs, strict=True) for name, costs in found.items()}, ("s", "MB"))


def shown(found: dict[str, zip[tuple[float, ...]]], units: tuple[str, str]) -> None:
    medians = {
        name: [statistics.median(column) for column in columns] for name, columns in found.items()
    }
    first = next(iter(medians.values()))
    table = Table("start", *units, "ratio", title="medians; the ratio is of the first column")
    for name, values in medians.items():
        table.add_row(name, *(f"{value:.2f}" for value in values), f"{values[0] / first[0]:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:] if word.isdigit()]
    (of_server if "server" in sys.argv else of_fab)(*counts or [9])
