"""On a converged host the chain is a look, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from lab import CHAIN, ROOT, SEARCH, UNIT, Host

# Databases are the server's own; the rest of /var and /run belongs to other programs.
OURS = "/home /etc /usr /opt /root /var/lib"
NOT_OURS = r"-not -name '*.db-wal' -not -name '*.db-shm'"


def test_the_chain_again_says_that_nothing_changed_and_changes_nothing(host: Host) -> None:
    host.run("touch /run/e2e-before; sleep 0.05")
    before = _starts(host), host.audit()
    done = host.fab(*CHAIN)
    said = [line.partition(":")[::2] for line in done.out.splitlines()[:3]]
    assert [task for task, _ in said] == list(CHAIN)
    assert all("nothing to change" in text for _, text in said)
    changed = host.run(
        f"find {OURS} -xdev \\( -newer /run/e2e-before -o -cnewer /run/e2e-before \\) {NOT_OURS}"
    )
    assert changed == ""
    assert (_starts(host), host.audit()) == before


@pytest.mark.parametrize("tasks", [CHAIN, ("install",), ("status",), ("plan",)], ids=" ".join)
def test_tasks_with_nothing_to_do_cost_one_login_and_one_exec_each(
    host: Host, tasks: tuple[str, ...]
) -> None:
    with _told_by_sshd(host) as lines:
        host.fab(*tasks)
        seen = lines()
    assert seen.count("Accepted publickey") == 1
    assert 1 <= seen.count("Starting session: command") <= len(tasks)
    print(f"{seen.count('Starting session: command')} exec for {' '.join(tasks)}")


def test_a_chain_that_changes_something_still_logs_in_once(host: Host) -> None:
    host.run(f"echo '# changed' >> /etc/nginx/sites-available/{UNIT}")
    with _told_by_sshd(host) as lines:
        done = host.fab(*CHAIN)
        seen = lines()
    assert f"put /etc/nginx/sites-available/{UNIT}" in done.out
    assert seen.count("Accepted publickey") == 1
    # A look, the change, and a look at what became of it where somebody asks.
    assert seen.count("Starting session: command") <= len(CHAIN) + 1


def test_plan_names_what_the_chain_would_do_and_does_not_do_it(host: Host) -> None:
    path = f"{ROOT}/start_mlflow_server.sh"
    with host.kept(path):
        host.run(f"echo '# changed' >> {path}")
        before = host.run(f"sha256sum {path}"), host.audit()
        planned = host.fab("plan", "--detailed-exitcode", code=2).out
        assert f"deploy: put {path}" in planned
        assert "-# changed" in planned, "what would be taken away from the file"
        assert "A server that runs is restarted" in planned
        assert (host.run(f"sha256sum {path}"), host.audit()) == before
    assert "nothing to change" in host.fab("plan", "--detailed-exitcode", code=0).out


def test_another_port_is_nginx_s_matter_alone(host: Host) -> None:
    """Also where MLflow minds by which address it is called: each is its own at every port."""
    username, password = host.login()
    opened, other = {"FABRIC_MLFLOW_BIND": "0.0.0.0"}, {"FABRIC_MLFLOW_PORT": "5055"}

    def called(name: str) -> str:
        asked = (
            f'url = "http://{host.address}:5055{SEARCH}"\nuser = "{username}:{password}"\n'
            f'header = "Host: {name}:5055"\n'
        )
        return host.run("curl -s -o /dev/null -w '%{http_code}' --max-time 60 -K -", asked)

    host.fab("deploy", **opened)
    try:
        before = host.unit(UNIT, "InvocationID")
        done = host.fab("deploy", **opened, **other)
        assert "restart" not in done.out
        assert host.unit(UNIT, "InvocationID") == before
        assert (called(host.address), called("evil.example")) == ("200", "403")
        assert host.status("/health", port=5055) == 200
        assert host.status("/health", port=5000) == 0
    finally:
        host.fab("deploy")
    host.healthy()


def _starts(host: Host) -> str:
    units = f"{UNIT}.service {UNIT}.socket nginx.service"
    return host.run(f"systemctl show {units} -p Id,InvocationID,ActiveEnterTimestampMonotonic")


@contextmanager
def _told_by_sshd(host: Host) -> Iterator[Callable[[], str]]:
    """Have the host's sshd tell of every login and session; gives what it told in the block."""
    setting = "/etc/ssh/sshd_config.d/e2e.conf"
    host.run(f"echo LogLevel VERBOSE > {setting}; systemctl reload ssh")
    cursor = host.run("journalctl --show-cursor -n 0 | sed -n 's/^-- cursor: //p'")
    try:
        yield lambda: host.run(f"journalctl -u ssh --no-pager --after-cursor='{cursor}'")
    finally:
        host.run(f"rm {setting}; systemctl reload ssh")
