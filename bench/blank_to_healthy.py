"""Time `install configure deploy` against the guide's own steps, from a blank host to /health.

Two equal rehearsal hosts, one after the other in each round, so that neither slows the other. With
`beside`, the whole of it beside Ansible and pyinfra (50 ms away, as ./fab is then; both with uv)
and beside the least that it can be: the same packages, uv, the same environment and one start, by
one script. Needs root, as rehearsal hosts do.

Usage: python bench/blank_to_healthy.py [ROUNDS] [beside]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from beside import TOOLS, prepared
from measuring import keep, machine
from rich.console import Console
from rich.table import Table
from round_trips import rehearsal_host

from tasks.changes import releases
from tasks.engine.facts import PACKAGES
from tasks.engine.paths import PROJECT
from tasks.engine.settings import Settings
from tasks.rehearsal import Rehearsal

# What of the guide stands beside which task; the last is the whole.
STEPS = (("packages", "mlflow"), "install"), (("configure",), "configure"), (("service",), "deploy")


GUIDE, LEAST = "the guide", "apt + uv + one start"
BARE = f"""
export DEBIAN_FRONTEND=noninteractive
cat > lock.txt
sudo apt-get update -qq
sudo -E apt-get install -y -qq --no-install-recommends {" ".join(PACKAGES)} > /dev/null
python3 -m venv tools
tools/bin/pip install --quiet uv
tools/bin/uv venv --quiet --python /usr/bin/python3 venv
tools/bin/uv pip install --quiet --python venv/bin/python --no-deps --require-hashes -r lock.txt
export MLFLOW_FLASK_SERVER_SECRET_KEY=bench MLFLOW_AUTH_ADMIN_USERNAME=admin
export MLFLOW_AUTH_ADMIN_PASSWORD=bench-bench-bench
setsid venv/bin/mlflow server --backend-store-uri sqlite:///mlflow.db --app-name basic-auth \
  --workers 1 > log 2>&1 < /dev/null &
until curl -sf -o /dev/null http://localhost:5000/health; do sleep 0.2; done
"""


def timed(words: list[str], **options: object) -> float:
    started = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    return time.monotonic() - started


def by_the_guide(hosts: Rehearsal, step: str, host: str = "sandbox") -> float:
    script = (PROJECT / "bench/guide_steps.sh").read_bytes()
    place = f"BUCKET={hosts.bucket} ENDPOINT={hosts.endpoint}"
    return timed(
        ["ssh", "-F", str(hosts.ssh_config), host, f"{place} bash -s {step}"], input=script
    )


def at_least(hosts: Rehearsal, host: str) -> float:
    lock = (releases.RELEASES / f"{Settings().version}.txt").read_bytes()
    command = ["ssh", "-F", str(hosts.ssh_config), host, f"set -e\n{BARE}"]
    return timed(command, input=lock)


def by_the_task(hosts: Rehearsal, home: str, task: str) -> float:
    own = {
        "HOME": home,
        "XDG_CONFIG_HOME": f"{home}/.config",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "FABRIC_MLFLOW_BUCKET": hosts.bucket,
        "FABRIC_MLFLOW_ENDPOINT_URL": hosts.endpoint,
    }
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    words = [str(PROJECT / "fab"), "-S", str(hosts.ssh_config), "-H", "sandbox-2", task]
    return timed(words, env=kept | own, stdin=subprocess.DEVNULL)


def each_way(backwards: bool) -> dict[str, float]:
    """Make a server of a blank host in each way, one after the other; returns the seconds."""
    with rehearsal_host(len(TOOLS) + 2) as (hosts, home, environment):
        beside = prepared(hosts, home, environment)
        guides, bare = (each.alias for each in hosts.machines()[len(TOOLS) :])
        steps = [step for names, _ in STEPS for step in names]
        ways: dict[str, Callable[[], float]] = {
            **{tool: lambda tool=tool: beside.run(tool).here.seconds for tool in TOOLS},
            GUIDE: lambda: sum(by_the_guide(hosts, step, guides) for step in steps),
            LEAST: lambda: at_least(hosts, bare),
        }
        try:
            return {way: ways[way]() for way in (reversed(ways) if backwards else list(ways))}
        finally:
            beside.log_out()


def beside_peers(rounds: int) -> None:
    about = machine()
    found = [each_way(backwards=number % 2 == 1) for number in range(rounds)]
    medians = {
        way: statistics.median(took[way] for took in found) for way in (*TOOLS, GUIDE, LEAST)
    }
    table = Table("way", "s", "./fab's share of it", title=f"median of {rounds} rounds")
    for way, median in medians.items():
        table.add_row(way, f"{median:.1f}", f"{medians[TOOLS[0]] / median:.2f}")
    Console(width=100).print(about, table)
    keep("blank", {"rounds": rounds, "seconds": medians})


def main(rounds: int) -> None:
    seconds: dict[str, list[tuple[float, float]]] = {task: [] for _, task in STEPS}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as home:
            hosts = Rehearsal(Path(home, "state"), lambda text: None)
            try:
                hosts.up(2)
                for guide, task in STEPS:
                    theirs = sum(by_the_guide(hosts, step) for step in guide)
                    seconds[task].append((theirs, by_the_task(hosts, home, task)))
            finally:
                hosts.down()
    table = Table("step", "guide, s", "task, s", "ratio", title=f"median of {rounds} rounds")
    total = [0.0, 0.0]
    for guide, task in STEPS:
        theirs, ours = (statistics.median(column) for column in zip(*seconds[task], strict=True))
        total = [total[0] + theirs, total[1] + ours]
        row = f"{' + '.join(guide)} / {task}"
        table.add_row(row, f"{theirs:.1f}", f"{ours:.1f}", f"{ours / theirs:.2f}")
    table.add_row("blank to healthy", *(f"{t:.1f}" for t in total), f"{total[1] / total[0]:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:] if word.isdigit()]
    (beside_peers if "beside" in sys.argv else main)(*counts or [3])
