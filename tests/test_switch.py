"""A switch of the server's state, cut off anywhere: the old or the new one is served, never both."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_side import Machine
from stand_ins import SETTINGS, blank

from tasks.deploy import start_script
from tasks.templates import read

# What a state is made of, as far as both kinds of switch touch it.
PARTS = (
    "mlflow.db", "mlflow.db-wal", "basic_auth.db", "server.env", ".server-id",
    ".mlflow_auth_config", "start_mlflow_server.sh", "venv",
)  # fmt: skip
NAME = "20261124T100000Z"

# Every command that changes something is a step; when none is left, the whole process is killed.
# Whole folders are removed file by file.
STEPS = r"""
step() { [ "$LEFT" -gt 0 ] || kill -9 $$ $BASHPID; export LEFT=$((LEFT - 1)); }
mkdir() { step; command mkdir "$@"; }
mv() { step; command mv "$@"; }
cp() { step; command cp "$@"; }
ln() { step; command ln "$@"; }
printf() { step; builtin printf "$@"; }
sync() { step; }
rm() {
  local each
  while IFS= read -r each; do step; command rm -df "$each"; done < <(find "${@:2}" -depth 2> /dev/null)
}
"""
MANY = 10_000

# Says what an MLflow that was started now would serve.
MLFLOW = """#!/bin/bash
echo "venv=$(basename "$(readlink -f venv)")"
echo "server.env=$WHICH"
echo "start_mlflow_server.sh=$(sed -n 's/.*with release \\([a-z]*\\).*/\\1/p' start_mlflow_server.sh)"
for file in mlflow.db mlflow.db-wal basic_auth.db .server-id .mlflow_auth_config; do
  if [ -e $file ]; then echo "$file=$(cat $file)"; fi
done
"""


class Place:
    """A server's folder whose files say which state they belong to."""

    def __init__(self, root: Path, machine: Machine) -> None:
        self.root, self.machine = root, machine
        for release in ("old", "new", "newer"):
            program = root / "releases" / release / "bin/mlflow"
            program.parent.mkdir(parents=True)
            program.write_text(MLFLOW)
            program.chmod(0o755)
        self.fill(root, "old", PARTS)
        machine.stub("systemctl", "exit 3")
        (machine.folder / "steps").write_text(STEPS)

    def fill(self, folder: Path, state: str, parts: tuple[str, ...]) -> None:
        folder.mkdir(exist_ok=True)
        for name in parts:
            self.write(folder / name, state)

    def write(self, path: Path, state: str) -> None:
        if path.name == "venv":
            path.symlink_to(f"releases/{state}")
        elif path.name == "start_mlflow_server.sh":
            path.write_text(start_script(SETTINGS, blank(release=state)).text)
            path.chmod(0o700)
        else:
            path.write_text(f"WHICH={state}\n" if path.name == "server.env" else state)

    def build(self, state: str = "new", parts: tuple[str, ...] = PARTS) -> None:
        """Lay a new state out beside the present one."""
        shutil.rmtree(self.root / "next.part", ignore_errors=True)
        self.fill(self.root / "next.part", state, parts)

    def bash(self, *words: str, left: int = MANY) -> subprocess.CompletedProcess[str]:
        given = {"BASH_ENV": str(self.machine.folder / "steps"), "LEFT": str(left)}
        return subprocess.run(
            ["bash", *words], env=self.machine.environment | given, text=True, capture_output=True,
            timeout=20,
        )  # fmt: skip

    def switch(self, call: str = f"switch upgrade {NAME}", left: int = MANY) -> bool:
        """Run a switch that has so many steps left; tells whether it came to its end."""
        words = f'set -euo pipefail; root="{self.root}" unit=mlflow-server'
        script = "\n".join((words, read("host/settle.sh"), read("host/switch.sh"), call))
        done = self.bash("-c", script, left=left)
        assert done.returncode in (0, -9), done.stderr
        return done.returncode == 0

    def start(self, left: int = MANY) -> dict[str, str] | None:
        """Start the server; returns what it serves, None where it was cut off before."""
        done = self.bash(str(self.root / "start_mlflow_server.sh"), left=left)
        if done.returncode == -9:
            assert "venv=" not in done.stdout
            return None
        assert (done.returncode, done.stderr) == (0, "")
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "http:" not in line)

    def former(self, name: str = NAME) -> set[str]:
        return {path.name for path in (self.root / "former" / name).iterdir()}


@pytest.fixture
def place(machine: Machine, home: Path) -> Place:
    return Place(home / "a server", machine)


@pytest.fixture
def places(machine: Machine, home: Path) -> Iterator[Place]:
    """Make one place after the other, all alike."""
    numbers = iter(range(MANY))
    return (Place(home / f"server {number}", machine) for number in numbers)


def wholly(state: str, parts: tuple[str, ...] = PARTS) -> dict[str, str]:
    return dict.fromkeys(parts, state)


def test_a_switch_makes_the_new_state_the_one_that_is_served(place):
    place.build()
    assert place.start() == wholly("old")
    assert place.switch()
    assert place.start() == wholly("new")
    about = json.loads((place.root / "former" / NAME / "about.json").read_text())
    assert about == {"task": "upgrade", "release": "old", "databases": True}
    assert place.former() == {*PARTS, "about.json"}
    assert {"next", "next.part", "next.done"}.isdisjoint(os.listdir(place.root))


def test_a_switch_cut_off_after_any_step_serves_the_old_or_the_new_state_never_both(places):
    served = []
    for left in range(MANY):
        place = next(places)
        place.build()
        ended = place.switch(left=left)
        begun = ended or any((place.root / name).exists() for name in ("next", "next.done"))
        assert place.start() == wholly("new" if begun else "old"), f"cut off after {left} steps"
        assert begun == ((place.root / "former" / NAME).exists())
        if begun:
            assert place.former() == {*PARTS, "about.json"}, f"cut off after {left} steps"
            assert {"next", "next.part"}.isdisjoint(os.listdir(place.root))
        served.append(begun)
        if ended:
            break
    assert served == sorted(served), "once begun it is never taken back"
    assert served.count(False) >= 3
    assert served.count(True) > 2 * len(PARTS)
