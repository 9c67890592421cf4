"""A name of its own: certified by a real ACME authority, guarded, renewed, and given up again."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from authority import URL, Authority, authority_on
from browser import browser_for
from lab import CHAIN, ROOT, UNIT, Host, answer
from waiting import until

NAME = "mlflow.example.org"
SITE = f"/etc/nginx/sites-available/{UNIT}"
CREATE = "/api/2.0/mlflow/experiments/create"
RENEWAL = f"/etc/letsencrypt/renewal/{NAME}.conf"

LOG = """
import mlflow, time
mlflow.set_experiment("over https")
with mlflow.start_run() as run:
    mlflow.log_text("it came through", "note.txt")
    end, count = time.monotonic() + 4, 0
    while time.monotonic() < end:
        mlflow.log_metric("loss", 1 / (count + 1), step=count)
        count += 1
print(count, mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt"))
"""

GUESS = f"""
import base64, http.client, ssl, sys
trusting = ssl.create_default_context(cafile=sys.argv[1])
connection = http.client.HTTPSConnection("{NAME}", context=trusting)
for number in range(int(sys.argv[3])):
    word = base64.b64encode(f"{{sys.argv[2]}}:wrong {{number}}".encode()).decode()
    connection.request("GET", "/version", headers={{"Authorization": "Basic " + word}})
    answer = connection.getresponse()
    print(answer.status, answer.headers["Retry-After"], answer.read().decode().strip())
"""


@pytest.fixture
def authority(host: Host) -> Iterator[Authority]:
    with authority_on(host) as authority:
        yield authority


def shown(host: Host) -> dict[str, object]:
    (row,) = json.loads(host.fab("tls.show", "--json").out)
    return dict(row)


def findings(host: Host) -> dict[str, dict[str, object]]:
    rows = json.loads(host.fab("doctor", "--json", code=None).out)
    return {row["key"]: row for row in rows}


def guesses(authority: Authority, user: str, count: int) -> list[str]:
    """Try wrong passwords one after the other; returns status, Retry-After and text of each."""
    done = authority.here(NAME, sys.executable, "-c", GUESS, str(authority.root), user, str(count))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_name_is_certified_serves_clients_is_guarded_renewed_and_given_up(
    host: Host, authority: Authority
) -> None:
    authority.name(NAME)
    login = host.login()
    host.refused("tls.enable", "nowhere.example.org", *authority.options,
                 because=("nowhere.example.org does not resolve", host.address))  # fmt: skip
    done = host.fab("tls.enable", NAME, *authority.options)
    assert f"MLflow is at https://{NAME}" in done.out
    assert "nothing to change" in host.fab("tls.enable", NAME, *authority.options).out
    # A deploy that knows nothing of the name keeps it.
    assert "nothing to change" in host.fab("deploy").out
    assert host.run("systemctl is-enabled certbot.timer") == "enabled"
    row = shown(host)
    assert (row["name"], row["names"], row["authority"]) == (NAME, [NAME], URL)
    assert row["served"]
    assert row["renewal_timer"]

    # Its pages may change something, nobody is refused, and nothing older than TLS 1.2 is spoken.
    origin = ("-u", ":".join(login), "-H", f"Origin: https://{NAME}",
              "-H", "Content-Type: application/json", "-d", '{"name": "from a page"}')  # fmt: skip
    assert authority.status(NAME, *origin, path=CREATE) in ("200", "400")
    assert authority.status(NAME) == "401"
    assert "protocol version" in authority.status(NAME, "--tls-max", "1.1")
    assert authority.status(NAME, "--tls-max", "1.2") == "401"
    answered = authority.curl(NAME, "-i", f"https://{NAME}/health").lower()
    assert "strict-transport-security: max-age=31536000" in answered
    moved = authority.curl(NAME, "-i", f"http://{NAME}/a?b=c")
    assert "301 Moved" in moved
    assert f"Location: https://{NAME}/a?b=c" in moved
    in_the_clear = authority.curl(NAME, "-i", "-u", "a:b", f"http://{NAME}/version")
    assert "403 Forbidden" in in_the_clear
    assert f"Use https://{NAME} instead" in in_the_clear

    # Somebody guesses, and at the same address a client logs as fast as it can.
    with ThreadPoolExecutor(2) as pool:
        logging = pool.submit(authority.client, NAME, LOG, login)
        time.sleep(1)
        tried = guesses(authority, login[0], 60)
        said = logging.result()
    count, _, note = said.strip().splitlines()[-1].partition(" ")
    assert note == "it came through"
    assert int(count) > 20
    assert tried[0].startswith("401 None You are not authenticated")
    too_many = "429 5 Too many wrong logins from your address. Try again in 5 seconds."
    assert tried.count(too_many) > 20
    assert len([line for line in tried if line.startswith("401 ")]) + tried.count(too_many) == 60
    assert authority.status(NAME, "-u", ":".join(login)) == "200"
    # What is kept of a good login is a digest.
    kept = host.run(f"grep -rah ^KEY /run/{UNIT}-logins").splitlines()
    assert kept
    assert all(re.fullmatch(rf"KEY: \S+ {login[0]} [0-9a-f]{{8}}", line) for line in kept), kept
    # Through the tunnel all is as before.
    assert host.status("/health") == 200
    assert host.status("/version", login) == 200

    # Due, and the authority is down: the certificate stays, and doctor says why.
    host.run(f"sed -i 's/^# renew_before_expiry.*/renew_before_expiry = 5000 days/' {RENEWAL}")
    with authority.down():
        host.run("systemctl start certbot.service", code=1)
        found = findings(host)["renewal-failed"]
        assert "Connection refused" in str(found["what"])
        host.refused("tls.renew", because=(NAME, "Connection refused", "holds until"))
        assert shown(host)["fingerprint"] == row["fingerprint"]
        assert authority.status(NAME) == "401"
    # As the timer does it: the new one is shown at once.
    host.run("systemctl start certbot.service")
    renewed = shown(host)
    assert renewed["fingerprint"] != row["fingerprint"]
    assert renewed["served"]
    assert "renewal-failed" not in findings(host)

    host.refused("tls.disable", because=("needs a confirmation", "--yes"))
    host.fab("tls.disable", "--yes")
    assert "autorenew = False" in host.run(f"cat {RENEWAL}")
    assert host.run("ss -Hltn 'sport = :80 or sport = :443'") == ""
    host.healthy()


TRAIN = """
import math, mlflow, random
chance = random.Random(1)
mlflow.set_experiment("churn")
for depth in (3, 5, 8):
    with mlflow.start_run(run_name=f"forest, depth {depth}"):
        mlflow.log_params({"depth": depth, "trees": 200})
        for step in range(12):
            mlflow.log_metric("auc", 0.93 - 0.3 * math.exp(-step * depth / 20), step=step)
        mlflow.log_metric("loss", 0.5 / depth + chance.random() / 50)
        with mlflow.start_span("predict") as span:
            span.set_inputs({"depth": depth})
mlflow.MlflowClient().create_registered_model("churn")
mlflow.genai.register_prompt("greeting", "Hello {{name}}")
run = mlflow.search_runs(experiment_names=["churn"]).run_id[0]
print(mlflow.get_experiment_by_name("churn").experiment_id, run)
"""
# Where MLflow's pages lead: the routes of its own JavaScript, but those that change something.
PAGES = (
    "/", "/experiments", "/models", "/models/churn", "/prompts", "/prompts/greeting", "/settings",
    "/account", "/admin", "/admin/users/admin", "/gateway", "/mcp-registry",
    *(f"/experiments/{{experiment}}/{tab}" for tab in (
        "overview/usage", "runs", "traces", "models", "datasets", "chat-sessions",
        "evaluation-runs", "judges", "playground", "prompts", "prompts/greeting",
    )),
    *(f"/experiments/{{experiment}}/runs/{{run}}{tab}" for tab in (
        "", "/model-metrics", "/system-metrics", "/traces", "/artifacts", "/evaluations",
    )),
    '/compare-runs?runs=["{run}"]&experiments=["{experiment}"]',
    '/metric?runs=["{run}"]&metric="auc"&experiments=["{experiment}"]',
    '/compare-experiments/s?experiments=["{experiment}"]',
)  # fmt: skip

# What pages ask for in vain: MLflow brings no picture of that name, its AI gateway is off
# (docs/ai-gateway.md), and its Assistant is closed (docs/security.md).
DOCUMENTED = (
    f"404 https://{NAME}/favicon.ico",
    f"501 https://{NAME}/ajax-api/3.0/mlflow/gateway/",
    f"403 https://{NAME}/ajax-api/3.0/mlflow/assistant/",
)


@pytest.mark.costly
def test_its_pages_open_in_a_browser_after_a_login_and_may_change_something(
    host: Host, authority: Authority, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    authority.name(NAME)
    host.fab("tls.enable", NAME, *authority.options)
    login = host.login()
    experiment, run = authority.client(NAME, TRAIN, login).split()[-2:]
    with browser_for(tmp_path, NAME, host.address, authority.root) as browser:
        # HTTP leads to HTTPS, which asks for the login; without it there is nothing to see.
        browser.open(f"http://{NAME}/")
        browser.shows("or what the browser asks for")
        assert browser.run("location.href") == f"https://{NAME}/"
        assert browser.asked == [f"https://{NAME}"]
        browser.login = login
        browser.open("about:blank")
        browser.open(f"https://{NAME}/#/experiments/{experiment}/runs")
        browser.shows("churn", "forest, depth 3", "forest, depth 8")
        # As a page does when somebody clicks: the browser names its origin, and may.
        status = browser.run(
            "fetch('/ajax-api/2.0/mlflow/experiments/create', {method: 'POST', headers: "
            "{'Content-Type': 'application/json'}, body: JSON.stringify({name: 'by hand'})})"
            ".then(answer => answer.status)"
        )
        assert status in (200, 400)  # 400 where an earlier test made it
        assert browser.run("isSecureContext") is True
        for page in PAGES:
            shown = browser.turn_to(page.format(experiment=experiment, run=run))
            assert "Something went wrong" not in shown, page
        assert {line for line in browser.failed if not line.startswith(DOCUMENTED)} == set()
        browser.open("about:blank")
        browser.open(f"https://{NAME}/#/experiments/{experiment}/runs")
        browser.shows("churn", "forest, depth 3", "forest, depth 8")
        file = Path(request.config.getoption("picture") or tmp_path / "https.png")
        browser.picture(file)
        assert file.read_bytes().startswith(b"\x89PNG")


def untouched(host: Host) -> str:
    """Digest all that a refused certificate must leave as it was."""
    return host.run(
        "ls -A /etc/nginx/sites-enabled; cat /etc/nginx/sites-enabled/*; ss -Hltn 'sport < :1024'; "
        f"cat {ROOT}/start_mlflow_server.sh; ls {ROOT}/.tls 2> /dev/null || true; "
        f"systemctl show {UNIT} -p MainPID"
    )


@pytest.mark.costly
def test_what_cannot_be_certified_is_named_and_leaves_all_as_it_was(
    host: Host, authority: Authority
) -> None:
    before = untouched(host)

    def refused(name: str, *because: str) -> None:
        host.refused("tls.enable", name, *authority.options, because=because)
        assert untouched(host) == before

    # The name means another host, where somebody else answers, or nobody.
    gateway = host.lab.endpoint.split("//")[1].split(":")[0]
    authority.name("elsewhere.example.org", gateway)
    refused("elsewhere.example.org", gateway, host.address)

    # Port 80: another program's, then closed by a firewall.
    authority.name(NAME)
    host.run("systemd-run -q --unit=e2e-80 python3 -m http.server 80")
    try:
        until(lambda: host.run("ss -Hltn 'sport = :80'"), "it listens")
        before = untouched(host)
        refused(NAME, "Port 80 of the host is taken by python3 (process ")
    finally:
        host.run("systemctl stop e2e-80")
    before = untouched(host)
    host.run("apt-get -q -y install nftables > /dev/null; nft add table inet e2e; "
             "nft add chain inet e2e input '{ type filter hook input priority 0; }'; "
             "nft add rule inet e2e input tcp dport 80 reject with tcp reset")  # fmt: skip
    try:
        refused(NAME, f"Port 80 of {NAME} ({host.address}) is closed", "security group")
    finally:
        host.run("nft delete table inet e2e")

    # The authority says no, and is not there.
    authority.name("refused.example.org")
    host.run("systemctl stop pebble")
    refused("refused.example.org", "Connection refused", "Everything is as it was")


@pytest.mark.costly
def test_an_own_certificate_is_checked_shown_and_replaced(
    host: Host, authority: Authority, tmp_path: Path
) -> None:
    def made(label: str, name: str) -> tuple[str, ...]:
        files = (str(tmp_path / f"{label}.pem"), str(tmp_path / f"{label}.key"))
        words = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                 "-nodes", "-days", "9", "-subj", f"/CN={name}", "-addext",
                 f"subjectAltName=DNS:{name}", "-out", files[0], "-keyout", files[1])  # fmt: skip
        subprocess.run(words, check=True, capture_output=True)
        return "--certificate", files[0], "--key", files[1]

    one, two, other = made("one", NAME), made("two", NAME), made("other", "other.example.org")
    before = untouched(host)
    host.refused("tls.enable", NAME, *one[:2], *two[2:], because=("is not the key of",))
    host.refused("tls.enable", NAME, *other, because=("is for other.example.org",))
    assert untouched(host) == before

    host.fab("tls.enable", NAME, *one)
    key = f"/etc/ssl/private/{UNIT}.key"
    assert host.run(f"stat -c '%a %U' {key}") == "600 root"
    first = shown(host)
    assert (first["authority"], first["served"], first["days_left"]) == ("own", True, 8)
    assert "certificate" in findings(host), "it ends within three weeks"
    host.refused("tls.renew", because=("is your own", "--certificate FILE --key FILE"))
    assert "nothing to change" in host.fab("tls.enable", NAME, *one).out
    pid = host.unit(f"{UNIT}.service", "MainPID")
    host.fab("tls.enable", NAME, *two)
    second = shown(host)
    assert second["served"]
    assert second["fingerprint"] != first["fingerprint"]
    assert host.unit(f"{UNIT}.service", "MainPID") == pid, "a new certificate is a reload"
    # From one's own to an authority's.
    authority.name(NAME)
    host.fab("tls.enable", NAME, *authority.options)
    assert shown(host)["authority"] == URL
    assert host.run(f"ls {key} 2> /dev/null || true") == ""


@pytest.mark.costly
def test_two_environments_each_have_a_name_on_one_port(host: Host, authority: Authority) -> None:
    file = host.home / "two.yaml"
    prefix = f"names-{secrets.token_hex(4)}"  # another test's server has marked the usual one
    file.write_text(f"mlflow: {{environments: {{staging: {{port: 5002, prefix: {prefix}}}}}}}\n")
    aim = ("-S", str(host.lab.ssh_config), "-f", str(file), "-H", host.alias)
    second, unit = "staging.example.org", "mlflow-server-staging"
    staging = {"FABRIC_MLFLOW_ENVIRONMENT": "staging"}
    try:
        host.fab(*CHAIN, aim=aim, timeout=600, **staging)
        for name, chosen in ((NAME, {}), (second, staging)):
            authority.name(name)
            host.fab("tls.enable", name, *authority.options, aim=aim, **chosen)
        host.refused("tls.enable", NAME, *authority.options, aim=aim, because=(
            f"{NAME} is served by /etc/nginx/sites-enabled/{UNIT} already",
        ), **staging)  # fmt: skip
        logins = [host.login(), exported(host.fab("client", "--export", aim=aim, **staging).out)]
        for name, login in zip((NAME, second), logins, strict=True):
            assert authority.status(name, "-u", ":".join(login)) == "200"
        assert authority.status(second, "-u", ":".join(logins[0])) == "401"
        # One gives its name up; the other does not notice.
        host.fab("tls.disable", "--yes", aim=aim, **staging)
        assert authority.status(NAME) == "401"
        assert authority.status(second) != "401"
    finally:
        host.run(
            f"systemctl disable -q --now {unit}.socket {unit}.service || true; "
            f"rm -rf /home/ubuntu/{unit} /etc/systemd/system/{unit}.* "
            f"/etc/tmpfiles.d/{unit}.conf /etc/nginx/sites-*/{unit}; "
            "systemctl daemon-reload; systemctl reload nginx"
        )


def exported(text: str) -> tuple[str, str]:
    """Read user and password from what `client --export` prints."""
    values = dict(word.partition("=")[::2] for word in shlex.split(text.replace("export ", "")))
    return values["MLFLOW_TRACKING_USERNAME"], values["MLFLOW_TRACKING_PASSWORD"]


@pytest.mark.costly
def test_a_port_that_is_open_to_the_network_is_warned_of_and_guarded(host: Host) -> None:
    wide = {"FABRIC_MLFLOW_BIND": "0.0.0.0"}
    try:
        done = host.fab("deploy", **wide)
        assert "bind: 0.0.0.0 lets passwords pass the network in the clear" in done.err
        login, url = host.login(), f"http://{host.address}:5000/version"
        assert answer(url) == 401
        search = f"http://{host.address}:5000/api/2.0/mlflow/experiments/search?max_results=1"
        assert answer(search, login) == 200, "the host's address is one that it answers to"
        statuses = [answer(url, (login[0], f"wrong {number}")) for number in range(60)]
        assert set(statuses) == {401, 429}
        assert answer(search, login) == 200
        assert host.status("/version", (login[0], "wrong on the host")) == 401
    finally:
        host.fab("deploy")
    host.healthy()
