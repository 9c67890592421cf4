"""What tests of a chain have in common: `fab`, as it is typed."""

from __future__ import annotations

from pathlib import Path

import fabric
import pytest
from chain_tasks import Program, Run, noted
from stand_ins import Network


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    noted.clear()


@pytest.fixture
def fab(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Type `fab`, with the network's ssh configuration; return the exit code."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)

    def run(*words: str, ssh: bool = True) -> int:
        program = Program(version="0", config_class=fabric.Config)
        configuration = ["-S", str(network.config)] if ssh else []
        try:
            program.run(["fab", *configuration, *words], exit=True)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run
