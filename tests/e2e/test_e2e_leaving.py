"""What docs/leaving.md says to type: plain MLflow goes on with the data, and removal is whole."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from lab import CHAIN, ROOT, SEARCH, Host, Lab
from test_e2e_elsewhere import LOG, READ
from test_e2e_registry import as_client
from test_e2e_users import login_of
from waiting import until

from tasks.engine import paths

pytestmark = pytest.mark.sampled

PAGE = (paths.PROJECT / "docs/leaving.md").read_text()
BY_HAND, ON_ANOTHER_MACHINE, OFF = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S)
INSTALL = "python3 -m venv venv && venv/bin/pip install"
TAKEN_ALONG = "data server.env plain.env .mlflow_auth_config"
PORT = 5050


@contextmanager
def plain(host: Host, commands: str) -> Iterator[None]:
    """Have plain MLflow serve, as the page starts it, by a login that types the commands."""
    host.ssh(f"setsid bash -c {shlex.quote(commands)} > plain.log 2>&1 < /dev/null &")
    try:
        until(lambda: host.status("/health", port=PORT) == 200, "plain MLflow serves", 120)
        yield
    finally:
        host.run(f"pkill -INT -f 'mlflow server.*--port {PORT}'", code=None)
        until(lambda: host.status("/health", port=PORT) == 0, "it ends at Ctrl-C")


def read(host: Host, run: str, login: tuple[str, str]) -> str:
    """Return what plain MLflow's client reads of a run on the host."""
    user, password = map(shlex.quote, login)
    return host.ssh(
        f"MLFLOW_TRACKING_URI=http://127.0.0.1:{PORT} MLFLOW_TRACKING_USERNAME={user} "
        f"MLFLOW_TRACKING_PASSWORD={password} {ROOT}/venv/bin/python -c {shlex.quote(READ)} {run}"
    )


def test_the_page_s_commands_serve_the_data_by_plain_mlflow_and_leave_nothing(lab: Lab) -> None:
    with lab.blank() as host:
        before = named_so(host)
        host.fab(*CHAIN, "backup.schedule", timeout=600)
        host.fab("users.add", "ada")
        run = as_client(host, LOG, "leaving")["run"]
        admin, ada = host.login(), login_of(host, "ada")

        with plain(host, BY_HAND):
            assert "made before" in read(host, run, admin)
            assert host.status(SEARCH, ada, port=PORT) == 200
            assert host.status(SEARCH, port=PORT) == 401
        assert "remote_mlflow_app" not in host.run("cat /home/ubuntu/plain.log")

        # Another folder is as good as another machine; what pip would bring is here already.
        assert ON_ANOTHER_MACHINE.startswith(INSTALL)
        there = ON_ANOTHER_MACHINE.partition("\n")[2] + BY_HAND[BY_HAND.index("venv/bin/mlflow") :]
        host.ssh(
            f"mkdir there && cd {ROOT} && cp -r {TAKEN_ALONG} ../there/ && "
            "ln -s ../mlflow-server/venv ../there/venv && mv data data.away"
        )
        with plain(host, f"cd there\n{there}"):
            assert "made before" in read(host, run, admin)
            assert host.status(SEARCH, ada, port=PORT) == 200
        host.ssh("rm -r there plain.log")

        host.ssh(f"set -e\n{OFF}")
        assert named_so(host) == before
        assert host.run("systemctl list-units --all --no-legend 'mlflow-server*'") == ""
        host.run("nginx -t && systemctl is-active nginx")


def named_so(host: Host) -> str:
    """List what bears the server's name on a host, or leads into its folder."""
    return host.run(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /home/ubuntu/.aws \\) -prune -o "
        "\\( -name '*mlflow*' -o -lname '*mlflow*' \\) -print | sort; "
        "ls -A /run | grep mlflow || true"
    )
