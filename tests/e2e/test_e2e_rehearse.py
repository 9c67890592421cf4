"""What a first user types first, and how it is all gone afterwards."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from lab import Lab, copy_of_the_project, processes

from tasks.engine import paths
from tasks.rehearsal import Rehearsal
from tasks.rehearsal.trees import mountinfo

CLIENT = "import mlflow; mlflow.set_experiment('e2e'); mlflow.start_run(); print('logged')"


def test_rehearse_then_a_client_then_down_leaves_nothing(lab: Lab) -> None:
    clone, home = lab.home / "a clone", lab.home / "a home"
    copy_of_the_project(clone)
    home.mkdir()
    rehearsal = Rehearsal(clone / ".state/rehearsal", print)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MLFLOW_", "FABRIC_"))},
        "HOME": str(home),
        "XDG_CACHE_HOME": str(paths.cache().parent),
        "XDG_RUNTIME_DIR": str(lab.runtime),
        # Real ones: they must not be used.
        "AWS_ACCESS_KEY_ID": "AKIAREAL",
        "AWS_SECRET_ACCESS_KEY": "real-secret-of-the-operator",
        "FABRIC_MLFLOW_BUCKET": "a-real-bucket",
        "MLFLOW_TRACKING_URI": "http://192.0.2.1",
        processes.MARK: lab.mark,
    }

    def shell(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", script], cwd=clone, env=environment, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    try:
        said = shell("./fab rehearse")
        for text in ("Rehearsal done", "http://localhost:5001", "sandbox.down", "✓ rehearsed in"):
            assert text in said, said
        assert "sandbox  " in shell("./fab sandbox.list")
        said = shell(
            "./fab -H sandbox tunnel --background >&2;"
            "trap './fab -H sandbox tunnel.close >&2' EXIT;"
            'eval "$(./fab -H sandbox client --export)";'
            f"cd {shlex.quote(str(home))}; {shlex.quote(sys.executable)} -c {shlex.quote(CLIENT)};"
            f"cd {shlex.quote(str(clone))}"
        )
        assert "logged" in said
        # The rehearsal's login stays out of the file that MLflow clients read by themselves.
        assert not (home / ".mlflow").exists()
        shell("./fab sandbox.down --yes")
        assert _left(rehearsal, lab, clone) == []
        assert "nothing left" in shell("./fab sandbox.down --yes")
    finally:
        rehearsal.down()


def _left(rehearsal: Rehearsal, lab: Lab, clone: Path) -> list[str]:
    """List what is left of a group of rehearsal hosts on this machine."""
    left = [line for line in mountinfo().splitlines() if rehearsal.group in line]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    left += [line for line in links.stdout.splitlines() if rehearsal.group in line]
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    left += [line for line in rules.stdout.splitlines() if rehearsal.group in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            left += _mentions(entry, rehearsal.group, str(clone))
    left += [str(path) for path in rehearsal.roots.glob(f"*{rehearsal.group}*")]
    left += [str(path) for path in (clone / ".state").rglob("*") if path.is_file()]
    left += [str(path) for path in lab.home.glob("a home/.config/remote-mlflow/*")]
    left += [str(path) for path in Path(tempfile.gettempdir()).glob(f"*{rehearsal.group}*")]
    return left


def _mentions(process: Path, *texts: str) -> list[str]:
    try:
        said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    except OSError:
        return []
    text = said.decode(errors="replace").replace("\0", " ")
    return [f"process {process.name}: {text[:200]}"] if any(t in text for t in texts) else []
