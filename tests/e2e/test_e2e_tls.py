"""A name of its own: certified by a real ACME authority, guarded, renewed, and given up again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from authority import URL, Authority, authority_on
from lab import UNIT, Host

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
    answer.read()
    print(answer.status)
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


def guesses(authority: Authority, user: str, count: int) -> list[int]:
    """Try wrong passwords one after the other on one connection; returns the statuses."""
    done = authority.here(NAME, sys.executable, "-c", GUESS, str(authority.root), user, str(count))
    assert done.returncode == 0, done.stderr
    return list(map(int, done.stdout.split()))


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
        statuses = guesses(authority, login[0], 60)
        said = logging.result()
    count, _, note = said.strip().splitlines()[-1].partition(" ")
    assert note == "it came through"
    assert int(count) > 20
    assert set(statuses) == {401, 429}
    assert statuses[0] == 401
    assert statuses.count(429) > 20
    too_many = authority.curl(NAME, "-i", "-u", "admin:wrong", f"https://{NAME}/version")
    assert "Retry-After: 5" in too_many
    assert "Try again in 5 seconds" in too_many
    assert authority.status(NAME, "-u", ":".join(login)) == "200"
    stored = host.run(f"cat /run/{UNIT}-logins/*/* /run/{UNIT}-logins/* 2> /dev/null || true")
    assert f" {login[0]} " in stored
    assert login[1] not in stored
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
