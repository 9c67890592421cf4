"""Time `install configure deploy` against the guide's own steps, from a blank host to /health.

Two equal rehearsal hosts, one after the other in each round, so that neither slows the other.
Needs root, as rehearsal hosts do. Usage: python bench/blank_to_healthy.py [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from tasks.engine.paths import PROJECT
from tasks.rehearsal import Rehearsal

# What of the guide stands beside which task; the last is the whole.
STEPS = (("packages", "mlflow"), "install"), (("configure",), "configure"), (("service",), "deploy")


def timed(words: list[str], **options: object) -> float:
    started = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    return time.monotonic() - started


def by_the_guide(hosts: Rehearsal, step: str) -> float:
    script = (PROJECT / "bench/guide_steps.sh").read_bytes()
    place = f"BUCKET={hosts.bucket} ENDPOINT={hosts.endpoint}"
    return timed(
        ["ssh", "-F", str(hosts.ssh_config), "sandbox", f"{place} bash -s {step}"], input=script
    )


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
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
