"""A server's folder without a server, whose state can be switched, and cut off at each step."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from host_side import Machine
from stand_ins import SETTINGS, blank

from tasks.changes.files import ready_script, start_script
from tasks.engine.facts import READY
from tasks.engine.templates import source

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
  find "${@:2}" -depth 2> /dev/null > "$HOME/doomed" || true
  while IFS= read -r each; do step; command rm -df "$each"; done < "$HOME/doomed"
}
"""
MANY = 10_000

# Says what an MLflow that was started now would serve.
MLFLOW = """#!/bin/bash
echo "venv=$(basename "$(readlink -f venv)")"
echo "server.env=$WHICH"
script=start_mlflow_server.sh
echo "$script=$(sed -n 's/.*with release \\([a-z]*\\).*/\\1/p' $script)"
for file in mlflow.db basic_auth.db .server-id .mlflow_auth_config; do
  if [ -e $file ]; then echo "$file=$(cat $file)"; fi
done
# SQLite follows a link, and looks for the log beside what it leads to.
log=$(readlink -f mlflow.db)-wal
if [ -e mlflow.db ] && [ -e "$log" ]; then echo "mlflow.db-wal=$(cat "$log")"; fi
"""


class Place:
    """A server's folder whose files say which state they belong to."""

    def __init__(self, root: Path, machine: Machine) -> None:
        self.root, self.machine = root, machine

    def make(self) -> Place:
        root, machine = self.root, self.machine
        for release in ("old", "new", "newer"):
            program = root / "releases" / release / "bin/python"
            program.parent.mkdir(parents=True)
            program.write_text(MLFLOW)
            program.chmod(0o755)
        self.fill(root, "old", PARTS)
        ready = root / READY
        ready.write_text(ready_script(SETTINGS, blank()).text)
        ready.chmod(0o700)
        machine.stub("systemctl", "exit 3")
        (machine.folder / "steps").write_text(STEPS)
        return self

    @property
    def databases(self) -> Path:
        """Where the server's databases lie."""
        data = self.root / "data"
        return data if data.exists() else self.root

    def ready(self, *words: str, left: int = MANY) -> bool:
        """Run what is run before a start; tells whether it came to its end."""
        done = self.bash(str(self.root / READY), *words, left=left)
        assert done.returncode in (0, -9), done.stderr
        return done.returncode == 0

    def copies(self) -> Iterator[tuple[int, Place]]:
        """Count, and make as many places that are just like this one."""
        for number in range(MANY):
            root = self.root.with_name(f"server {number}")
            shutil.copytree(self.root, root, symlinks=True)
            yield number, Place(root, self.machine)

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
        words = f'set -euo pipefail; root="{self.root}" unit=mlflow-server here=/nowhere'
        script = "\n".join(
            (words, source("settle.sh"), source("tidy.sh"), source("switch.sh"), call)
        )
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


def wholly(state: str, parts: tuple[str, ...] = PARTS) -> dict[str, str]:
    return dict.fromkeys(parts, state)
