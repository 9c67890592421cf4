"""The worked example of the contributor's page on a real host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from contributing import carry_out
from lab import Host, Lab


def test_the_worked_example_greets_a_host(lab: Lab, host: Host, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    carry_out(copy)
    aim = ("-S", str(lab.ssh_config), "-H", host.alias)
    done = subprocess.run(
        [sys.executable, "-m", "fabric", *aim, "hello", "--name", "Ada"],
        cwd=copy, env=host.environment(), capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Hello Ada, this is {host.run('hostname').strip()}." in done.stdout
