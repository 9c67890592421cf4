"""The server as it runs: its doors, its size, its way back on its feet."""

from __future__ import annotations

import re
import threading
import time

import pytest
from lab import ROOT, SEARCH, UNIT, Host, answer
from load import writers
from modules import assert_compiled
from waiting import until

ASSISTANT = "/ajax-api/3.0/mlflow/assistant/config"
# Proportional set size: memory that processes share is counted once.
MEMORY = """
import glob, sys
total = 0
for folder in glob.glob("/proc/[0-9]*"):
    try:
        if open(folder + "/cgroup").read().strip().endswith("/" + sys.argv[1]):
            lines = open(folder + "/smaps_rollup").read().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except OSError:
        continue
print(total // 1024)
"""


def test_no_password_and_a_wrong_one_get_401_and_the_right_one_200(host: Host) -> None:
    username, password = host.login()
    assert host.status(SEARCH) == 401
    assert host.status(SEARCH, (username, password + "x")) == 401
    assert host.status(SEARCH, ("nobody", password)) == 401
    assert host.status(SEARCH, (username, password)) == 200
    artifacts = "/api/2.0/mlflow-artifacts/artifacts?path="
    assert host.status(artifacts) == 401
    assert host.status(artifacts, (username, password)) == 200


def test_the_assistant_and_the_way_past_the_proxy_are_closed(host: Host) -> None:
    login = host.login()
    assert host.status(ASSISTANT, login) == 403
    assert host.status(ASSISTANT) == 403
    assert host.status("/api/3.0/mlflow/server-info", login) == 404


def test_the_ai_gateway_is_off_unless_asked_for(host: Host) -> None:
    login = host.login()
    assert host.status("/ajax-api/3.0/mlflow/gateway/endpoints/list", login) == 501
    assert host.status("/gateway/proxy/any/v1/files", login) == 403


def test_nothing_but_sshd_listens_beyond_the_host(host: Host) -> None:
    listeners = host.run("ss -Hltnup").splitlines()
    open_ones = [
        line
        for line in listeners
        if not re.search(r" (127\.\d+\.\d+\.\d+|\[::1\])(%\w+)?:\d+ ", line)
    ]
    assert open_ones
    assert all('"sshd"' in line and ":22 " in line for line in open_ones), open_ones
    assert host.status("/", port=80) == 0


def test_all_that_a_server_loads_was_compiled_by_install(
    host: Host, request: pytest.FixtureRequest
) -> None:
    assert_compiled(host, request.config.getoption("golden"))
    host.healthy()


def test_the_guide_s_way_by_hand_says_where_it_serves_and_refuses_beside_the_unit(
    host: Host,
) -> None:
    said = host.ssh(f"{ROOT}/start_mlflow_server.sh", code=1)
    assert f"is running. Stop it first: sudo systemctl stop {UNIT}.socket {UNIT}" in said
    with host.served_by_hand() as unit:
        said = host.run(f"journalctl -o cat -u {unit}")
        assert "Serving http://127.0.0.1:5000 (Ctrl-C ends it)" in said.splitlines()
    host.fab("deploy")
    host.healthy()


def test_other_sites_of_nginx_stay_as_they_are_through_a_deploy(host: Host) -> None:
    site = "/etc/nginx/sites-enabled/other"
    text = 'server { listen 127.0.0.1:8099; location / { return 299 "other"; } }'
    host.run(f"cat > {site}; systemctl reload nginx", stdin=text)
    try:
        before = host.run(f"stat -c '%Y %i' {site}")
        host.run(f"echo '# changed' >> /etc/nginx/sites-available/{UNIT}")
        host.fab("deploy")
        assert host.status("/", port=8099) == 299
        assert host.run(f"cat {site}") == text
        assert host.run(f"stat -c '%Y %i' {site}") == before
    finally:
        host.run(f"rm {site}; systemctl reload nginx")


def test_the_unit_is_hardened_and_fits_a_small_instance(host: Host) -> None:
    host.fab("verify")
    memory = int(host.python(MEMORY, f"{UNIT}.service"))
    exposure = host.run(f"systemd-analyze security --no-pager {UNIT}.service").splitlines()[-1]
    level = float(re.search(r": ([\d.]+) ", exposure)[1])  # type: ignore[index]
    print(f"{memory} MB, exposure {level}")
    assert level <= 1.5
    assert 200 < memory <= 550


def test_the_unit_comes_back_after_kill_9_of_its_main_process(host: Host) -> None:
    former = host.unit(UNIT, "MainPID")
    assert int(former) > 1  # kill 0 would end the tests themselves
    host.run(f"kill -9 {former}")
    until(lambda: host.unit(UNIT, "MainPID") not in (former, "0"), "a new main process")
    until(lambda: host.status("/health") == 200, "the server answers")
    host.healthy()


def test_a_reboot_brings_the_server_back_without_an_operator(host: Host) -> None:
    host.lab.rehearsal.reboot(host.alias)
    until(lambda: host.status("/health") == 200, "the server answers")
    host.healthy()
    assert host.fab("install", "configure", "deploy").out.count("nothing to change") == 3


def test_a_restart_under_load_loses_no_request(host: Host) -> None:
    login = host.login()
    statuses: list[int] = []
    waits: list[float] = []
    over = threading.Event()
    with host.tunnel() as uri:

        def ask() -> None:
            while not over.is_set():
                started = time.monotonic()
                statuses.append(answer(uri + SEARCH, login))
                waits.append(time.monotonic() - started)

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        try:
            until(lambda: len(statuses) > 20, "load")
            host.fab("restart")
            served = len(statuses)
            until(lambda: len(statuses) > served + 20, "answers after the restart")
        finally:
            over.set()
            for asker in askers:
                asker.join()
    print(f"{len(statuses)} requests, worst wait {max(waits):.1f} s")
    assert set(statuses) == {200}
    assert max(waits) > 1, "no request met the restart"


def test_forty_that_log_at_once_do_not_wait_for_each_other_in_vain(host: Host) -> None:
    # Half a minute, after which MLflow gives up on a connection that another one holds.
    with (
        host.tunnel() as uri,
        writers(host, host.login(), ("raw", 40), pause=0, patience=25, uri=uri) as load,
    ):
        load.goes_on(200)
    assert load.failures() == []


def test_stop_start_status_and_restart_say_what_is(host: Host) -> None:
    assert "✓ stopped" in host.fab("stop").out
    assert host.run(f"systemctl is-active {UNIT}.socket {UNIT}.service", code=None).split() == (
        ["inactive"] * 2
    )
    assert "nothing to change" in host.fab("stop").out
    assert "stopped" in host.fab("status").out
    assert host.status("/health") == 502
    assert "✓ the server answers" in host.fab("start").out
    assert "nothing to change" in host.fab("start").out
    assert "running" in host.fab("status").out
    host.run(f"systemctl stop {UNIT}.service")
    assert "the next request starts it" in host.fab("status").out
    assert host.status("/health") == 200
    host.healthy()


def test_by_hand_it_serves_as_in_the_guide_and_refuses_while_the_unit_runs(host: Host) -> None:
    refused = host.ssh("cd mlflow-server && ./start_mlflow_server.sh", code=1)
    assert "The unit mlflow-server is running. Stop it first: sudo systemctl stop" in refused
    host.fab("stop")
    host.ssh("cd mlflow-server; nohup ./start_mlflow_server.sh > mlflow.log 2>&1 < /dev/null &")
    try:
        until(lambda: host.status("/health") == 200, "the server answers")
        assert host.ssh("curl -s localhost:5000/health") == "OK"
        assert host.status(SEARCH) == 401
        assert host.status(SEARCH, host.login()) == 200
    finally:
        host.run(f"pkill -f '^{ROOT}.*/mlflow server'; rm -f {ROOT}/mlflow.log", code=None)
    host.fab("start")
    host.healthy()
