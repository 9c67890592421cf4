"""The walls: what somebody without a login, or with one, gets beyond what was given."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from authority import authority_on
from lab import CHAIN, ROOT, SEARCH, UNIT, Host, Lab
from test_e2e_tls import NAME
from waiting import until

HERE = Path(__file__).parent
API = "http://127.0.0.1:5000/api/2.0/mlflow"
PAGES = "http://127.0.0.1:5000/ajax-api/3.0/mlflow"

# Requests without a login, or with something that is none.
STRANGERS = (
    "",
    "-H 'Authorization: Bearer x'",
    "-H $'Authorization: Basic\\tYTpi'",
    "-H 'Authorization: Basic YWJj'",
    "-u nobody:nothing",
)


def code(host: Host, words: str, stdin: str = "") -> int:
    """Send a request from the host itself; return the answer's code."""
    return int(host.run(f"curl -s -m 60 -o /dev/null -w '%{{http_code}}' {words}", stdin))


@pytest.mark.parametrize("words", STRANGERS)
def test_whoever_shows_no_login_is_answered_401(host: Host, words: str) -> None:
    assert code(host, f"{words} {API}/experiments/search") == 401
    assert code(host, f"{words} {PAGES}/gateway/endpoints/list") == 401


def test_what_pages_and_balancers_need_takes_no_login(host: Host) -> None:
    assert code(host, "http://127.0.0.1:5000/health") == 200
    assert code(host, "http://127.0.0.1:5000/usable") == 200
    assert code(host, "http://127.0.0.1:5000/static-files/favicon.ico") == 200
    assert code(host, f"{PAGES}/server-info") == 401


LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
# What is sent at once: who says nothing, who says it slowly, with a login and without one.
FLOODS = (
    {"kind": "body", "path": LOG_BATCH},
    {"kind": "idle", "path": LOG_BATCH},
    {"kind": "heads", "path": LOG_BATCH},
    {"kind": "bodies", "path": LOG_BATCH},
    {"kind": "bodies", "path": "/health"},
    {"kind": "bodies", "path": LOG_BATCH, "with a login": True},
    {"kind": "bodies", "path": "/v1/traces", "with a login": True},
    {"kind": "bodies", "path": "/api/2.0/mlflow-artifacts/artifacts/x", "with a login": True},
    {"kind": "bodies", "path": "/api/2.0/mlflow-artifacts/mpu/create/x", "with a login": True},
    {"kind": "bodies", "path": "/ajax-api/2.0/mlflow/upload-artifact", "with a login": True},
)
SOME = FLOODS[1::2]  # at a name and at a balancer; all with --full
SECONDS, CONNECTIONS = 12, 200


def memory(host: Host) -> int:
    """Return what the server's processes and nginx's have in memory together, in kB."""
    lines = host.run("ps -eo rss=,cgroup:200=").splitlines()
    names = f"/{UNIT}.service|/nginx.service"
    return sum(int(line.split()[0]) for line in lines if re.search(names, line))


def disk(host: Host) -> int:
    """Return what lies where a server and nginx write, in kB; other hosts share the disk itself."""
    places = f"/var/lib/nginx /var/log /var/tmp /tmp {ROOT}"
    # Some 40,000 files of a release, where neither can write.
    return int(host.run(f"du -skc --exclude={ROOT}/releases {places} | tail -1 | cut -f1"))


def flooded(
    host: Host, flood: dict[str, Any], place: dict[str, Any], sender: Host | None = None
) -> dict[str, int]:
    """Have a flood come, by default from the host itself, and a user work meanwhile.

    Returns how many of its connections ended how.
    """
    sender = sender or host
    login = host.login()
    before = memory(host), disk(host)
    job = {"count": CONNECTIONS, "seconds": SECONDS, **flood, **place}
    job["login"] = ":".join(login) if "with a login" in flood else ""
    waits, most = [], before
    sender.run("cat > /tmp/flood.py", (HERE / "flood.py").read_text())
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(sender.run, "python3 /tmp/flood.py", json.dumps(job))
        while not coming.done():
            began = time.monotonic()
            assert host.status(SEARCH, login) == 200
            waits.append(time.monotonic() - began)
            now = memory(host), disk(host)
            most = max(most[0], now[0]), max(most[1], now[1])
            time.sleep(0.5)
    told = json.loads(coming.result())
    grown = most[0] - before[0], most[1] - before[1]
    print(f"{flood} {place}: {told}, users waited {max(waits):.1f} s, grown by {grown} kB")
    assert max(waits) < 5
    assert grown[0] < 50_000
    assert grown[1] < 100_000
    return dict(told)


def check_refusals(flood: dict[str, Any], ends: dict[str, int]) -> None:
    """Assert that what can be refused without its body was."""
    if flood["kind"] == "body":
        assert ends == {"413": 1}, "it is answered by its size alone"
    if flood["kind"] == "bodies" and "with a login" not in flood:
        assert ends["held"] == 0, "no body is waited for"


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: " ".join(map(str, flood.values())))
def test_a_flood_ends_and_users_go_on(host: Host, flood: dict[str, Any]) -> None:
    ends = flooded(host, flood, {"address": "127.0.0.1", "port": 5000, "tls": False})
    check_refusals(flood, ends)


@pytest.mark.sampled
def test_a_flood_at_a_name_with_tls_ends_too(host: Host, full: bool) -> None:
    place = {"address": host.address, "port": 443, "tls": True, "name": NAME}
    with authority_on(host) as authority:
        authority.name(NAME)
        host.fab("tls.enable", NAME, *authority.options, timeout=600)
        try:
            for flood in FLOODS if full else SOME:
                check_refusals(flood, flooded(host, flood, place))
        finally:
            host.fab("tls.disable", "--yes")


@pytest.mark.sampled
def test_a_flood_at_a_balancer_ends_too(lab: Lab, full: bool) -> None:
    with lab.blank() as web, lab.blank() as balancer:
        web.variables |= {
            "FABRIC_MLFLOW_BIND": "0.0.0.0",
            "FABRIC_MLFLOW_BALANCER": balancer.address,
        }
        web.fab(*CHAIN, timeout=600)
        balancer.home, balancer.variables = web.home, web.variables
        balancer.fab("balancer", "--servers", web.address, timeout=600)
        place = {"address": "127.0.0.1", "port": 5000, "tls": False}
        for flood in FLOODS if full else SOME:
            check_refusals(flood, flooded(web, flood, place, balancer))


def test_a_stranger_s_body_is_not_read(host: Host) -> None:
    """Neither memory nor disk grows by a body without a size, from somebody without a login."""
    before = memory(host), disk(host)
    body = "head -c 900000000 /dev/zero"
    sent = f"curl -s -m 60 -o /dev/null -w '%{{http_code}}' -X POST -T - {API}/runs/log-batch"
    assert host.run(f"{body} | {sent} || true").endswith("401")
    assert memory(host) - before[0] < 50_000
    assert disk(host) - before[1] < 100_000
    host.healthy()


def test_a_request_is_bounded_and_an_artifact_is_not(host: Host) -> None:
    user = ":".join(host.login())
    host.run("truncate -s 70M /tmp/large")
    json = "-H 'Content-Type: application/json' --data-binary @/tmp/large"
    login = "-K -"
    stdin = f'user = "{user}"\n'
    assert code(host, f"{login} -X POST {json} {API}/runs/log-batch", stdin) == 413
    artifacts = "http://127.0.0.1:5000/api/2.0/mlflow-artifacts/artifacts/walls/large"
    assert code(host, f"{login} -T /tmp/large {artifacts}", stdin) == 200
    assert code(host, f"{login} -X DELETE {artifacts}", stdin) == 200


def test_a_file_that_the_server_could_not_finish_is_no_whole_one(host: Host) -> None:
    """curl and whatever goes by a length know it; on the server's disk lies nothing of it."""
    stdin = f'user = "{":".join(host.login())}"\n'
    place = "http://127.0.0.1:5000/api/2.0/mlflow-artifacts/artifacts/walls/cut"
    host.run("head -c 60M /dev/urandom > /tmp/cut")
    assert code(host, f"-K - -T /tmp/cut {place}", stdin) == 200
    fetch = f"curl -s -m 60 -K - -o /root/got {place}"
    host.run(f"{fetch} && cmp /tmp/cut /root/got", stdin)
    killing = f"(sleep 1; systemctl kill -s KILL {UNIT}) & "
    before = disk(host)
    login = host.login()
    try:
        host.run(f"{killing} {fetch} --limit-rate 20M", stdin, 18)
        assert 0 < int(host.run("stat -c %s /root/got")) < 60 << 20
        assert disk(host) - before < 20_000
    finally:
        until(lambda: host.status(SEARCH, login) == 200, "the server is back", 120)
    assert code(host, f"-K - -X DELETE {place}", stdin) == 200
    host.run("rm /tmp/cut /root/got")


def test_an_upload_that_is_cut_leaves_nothing(host: Host) -> None:
    """Its first parts are in the store while it still comes, and are gone once its client is.

    Those that are not there yet are open files of the server's.
    """
    assert int(host.unit(f"{UNIT}.service", "LimitNOFILE")) >= 65536
    stdin = f'user = "{":".join(host.login())}"\n'
    place = "http://127.0.0.1:5000/api/2.0/mlflow-artifacts/artifacts/walls/left"
    host.run("head -c 60M /dev/urandom > /tmp/left; cat > /root/login", stdin)

    def unfinished() -> list[str]:
        found = host.lab.s3().list_multipart_uploads(Bucket=host.lab.bucket).get("Uploads", [])
        return [upload["Key"] for upload in found if upload["Key"].endswith("walls/left")]

    host.run(
        "systemd-run -q --unit e2e-left timeout 30 "
        f"curl -s -K /root/login --limit-rate 2M -T /tmp/left {place}"
    )
    until(unfinished, "parts are sent", 30)
    host.run("systemctl stop e2e-left")
    until(lambda: not unfinished(), "they are taken back", 30)
    assert code(host, f"-K - {place}", stdin) == 404
    assert code(host, f"-K - -T /tmp/left {place}", stdin) == 200
    assert unfinished() == []
    host.run(f"curl -s -K - -o /root/got {place} && cmp /tmp/left /root/got", stdin)
    assert code(host, f"-K - -X DELETE {place}", stdin) == 200
    host.run("rm /tmp/left /root/got /root/login")


def test_long_queries_pass_and_what_is_closed_stays_so(host: Host) -> None:
    stdin = f'user = "{":".join(host.login())}"\n'
    long = f"{API}/experiments/get-by-name?experiment_name={'x' * 34_000}"
    assert code(host, f"-K - '{long}'", stdin) == 404
    for path in ("demo/generate", "%64emo/generate", "/demo/generate"):
        assert code(host, f"-K - -X POST {PAGES}/{path}", stdin) == 403
    header = "-H 'X-MLFLOW-WORKSPACE: x'"
    assert code(host, f"-K - {header} '{API}/experiments/get?experiment_id=0'", stdin) == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("experiments/create", {"artifact_location": "s3://{bucket}/mlflow-backups/default"}),
        ("experiments/create", {"artifact_location": "file:///home/ubuntu/mlflow-server/next"}),
        ("experiments/create", {"artifact_location": "/etc"}),
        ("experiments/create", {"artifact_location": "mlflow-artifacts:/../mlflow-backups"}),
        ("model-versions/create", {"source": "s3://{bucket}/mlflow-backups/default"}),
        ("model-versions/create", {"source": "http://169.254.169.254/latest/meta-data"}),
        ("model-versions/create", {"source": "file:///etc"}),
    ],
)
def test_a_login_names_no_place(host: Host, path: str, body: dict[str, str]) -> None:
    """Not even an admin's: what is read and written there would be with the server's rights."""
    name = json.dumps({"name": "walls"} | body).replace("{bucket}", host.lab.bucket)
    stdin = f'user = "{":".join(host.login())}"\ndata = {json.dumps(name)}\n'
    assert code(host, f"-K - -H 'Content-Type: application/json' {API}/{path}", stdin) == 400
    host.healthy()


def test_the_server_runs_what_only_root_can_change(host: Host) -> None:
    pid = host.unit("mlflow-server", "MainPID")
    line = host.run(f"tr '\\0' ' ' < /proc/{pid}/cmdline")
    folder = line.split("--app-dir ")[1].split()[0]
    assert host.run(f"find {folder} ! -user root -o -perm /go+w") == ""
