"""What deploy.sh asks of systemd: no more than a change needs, for each takes up to a second."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.engine.templates import source

Asked = Callable[..., tuple[int, list[str]]]
SYSTEMCTL = """
systemctl() {
  case "$1" in
    show) printf '%s\\n' $RELOAD ;;
    is-enabled) printf '%s\\n' "$STATE"; [ "$STATE" = enabled ] ;;
    *) printf '%s\\n' "$*" >> "$here/asked" ;;
  esac
}
as_root() { "$@"; }
say() { :; }
answers() { [ "${ANSWERS:-no}" = yes ]; }
python3() { echo "python3 ${1##*/}" >> "$here/asked"; }
if [ "${ADOPTED:-no}" = yes ]; then old_server_back() { :; }; fi
"""


def function(name: str) -> str:
    """Return one of deploy.sh's functions."""
    found = re.search(rf"^{name}\(\) \{{$.*?^\}}$", source("deploy.sh"), re.MULTILINE | re.DOTALL)
    assert found, name
    return found[0]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """Run one of its functions; returns the exit code and what systemd was asked to do."""

    def run(name: str, *words: str, **given: str) -> tuple[int, list[str]]:
        script = f'unit=mlflow-server\n{SYSTEMCTL}\n{function(name)}\n{name} "$@"'
        done = subprocess.run(
            ["bash", "-euc", script, "deploy.sh", *words],
            env={"PATH": "/usr/bin:/bin", "here": str(tmp_path)} | given,
        )
        file = tmp_path / "asked"
        return done.returncode, file.read_text().splitlines() if file.exists() else []

    return run


@pytest.mark.parametrize("state", ["disabled", "enabled-runtime", "static", ""])
def test_what_does_not_start_at_boot_will(asked, state):
    wanted = ["enable --quiet mlflow-server.socket nginx"]
    assert asked("start_at_boot", "mlflow-server.socket", "nginx", STATE=state) == (0, wanted)


def test_what_starts_at_boot_already_is_left_alone(asked):
    assert asked("start_at_boot", "mlflow-server.socket", "nginx", STATE="enabled") == (0, [])


@pytest.mark.parametrize(
    ("place", "reload", "wanted"),
    [
        ("/etc/nginx/sites-available/mlflow-server", "no no", False),
        ("/etc/nginx/sites-available/mlflow-server", "no yes", True),
        ("/etc/systemd/system/mlflow-server.service", "no no", True),
        ("/home/ubuntu/mlflow-server/start_mlflow_server.sh", "no no", False),
    ],
)
def test_units_are_read_anew_where_one_of_them_changed(asked, tmp_path, place, reload, wanted):
    """Also one that a deploy put which was cut off: systemd says so itself."""
    (tmp_path / "places").write_text(f"name\t0644\t{place}\n")
    assert asked("units_changed", RELOAD=reload) == (int(not wanted), [])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"new": "yes"}, ["python3 forget_unmade.py"]),
        (
            {"new": "no"},
            ["stop mlflow-server.socket mlflow-server.service", "python3 forget_unmade.py"],
        ),
        ({"new": "no", "ANSWERS": "yes"}, []),
        ({"new": "no", "WELL": "yes"}, []),
        ({"new": "yes", "ADOPTED": "yes"}, []),
    ],
)
def test_nothing_is_forgotten_of_a_server_that_was_well_answers_or_is_adopted(
    asked, tmp_path, given, wanted
):
    if given.pop("WELL", ""):
        (tmp_path / ".well").touch()
    assert asked("forget_unmade", root=str(tmp_path), **given) == (0, wanted)
