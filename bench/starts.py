"""Measure what a start costs: of ./fab beside bare Fabric, and of the server beside MLflow's ways.

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

from measuring import as_typed, in_turn, machine, spent
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

# The start script in three ways, beside each other. The bare one has nothing but what MLflow's own
# command would set for uvicorn: no command line, no check of the databases, no app in front.
SCRIPTS = r"""
cd mlflow-server
cp start_mlflow_server.sh ours.sh
sed 's|^exec .*/bin/mlflow server|exec venv/bin/mlflow server|' ours.sh > public.sh
sed '/^exec /,$d' ours.sh > bare.sh
cat >> bare.sh << 'END'
export _MLFLOW_SERVER_FILE_STORE=$MLFLOW_BACKEND_STORE_URI
export _MLFLOW_SERVER_REGISTRY_STORE=$MLFLOW_BACKEND_STORE_URI
export _MLFLOW_SERVER_ARTIFACT_ROOT=mlflow-artifacts:/ _MLFLOW_SERVER_SERVE_ARTIFACTS=true
export _MLFLOW_SERVER_ARTIFACT_DESTINATION=$MLFLOW_ARTIFACTS_DESTINATION _MLFLOW_SGI_NAME=uvicorn
exec venv/bin/python -m uvicorn --fd 0 --factory mlflow.server.auth:create_app
END
"""
WAYS = {"bare uvicorn": "bare", "deploy's": "ours", "mlflow server": "public"}


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
    with rehearsal_host() as (hosts, _, environment):
        ssh = ["ssh", "-F", str(hosts.ssh_config), "sandbox"]
        fab = [str(PROJECT / "fab"), "-S", str(hosts.ssh_config), "-H", "sandbox"]
        subprocess.run([*fab, "install", "configure", "deploy"], env=environment, check=True)
        subprocess.run([*ssh, SCRIPTS], check=True)

        def restarted(script: str) -> tuple[float, float]:
            put = f"cat mlflow-server/{script}.sh > mlflow-server/start_mlflow_server.sh\n"
            done = subprocess.run(
                [*ssh, "sudo", "bash", "-s"], input=put + RESTART, capture_output=True, text=True,
                check=True,
            )  # fmt: skip
            nanoseconds, kilobytes = map(int, done.stdout.split())
            return nanoseconds / 1e9, kilobytes / 1024

        found = in_turn({way: partial(restarted, script) for way, script in WAYS.items()}, rounds)
    shown({name: zip(*costs, strict=True) for name, costs in found.items()}, ("s", "MB"))


def shown(found: dict[str, zip[tuple[float, ...]]], units: tuple[str, str]) -> None:
    medians = {
        name: [statistics.median(column) for column in columns] for name, columns in found.items()
    }
    print(machine())
    first = next(iter(medians.values()))
    table = Table("start", *units, "ratio", title="medians; the ratio is of the first column")
    for name, values in medians.items():
        table.add_row(name, *(f"{value:.2f}" for value in values), f"{values[0] / first[0]:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:] if word.isdigit()]
    (of_server if "server" in sys.argv else of_fab)(*counts or [9])
