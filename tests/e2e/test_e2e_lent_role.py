"""Server, stream and scheduled backup live on a role whose keys end again and again.

What the SDKs do with keys that end soon (botocore 1.44, aws-sdk-go-v2): botocore, in the server and
the backup, takes them for good for another 2 to 10 minutes whatever end the instance names, then
asks again (`InstanceMetadataFetcher._evaluate_expiration`); Go's, in Litestream, asks as soon as
they have ended. AWS lends others 5 minutes before the end at the latest. So three ends of a
server's keys take half an hour; here all of it happens twenty times as fast.
"""

from __future__ import annotations

import time

import pytest
from lab import ROOT, UNIT, Host
from lending import lending
from test_e2e_role import NO_KEYS
from test_e2e_stream import STREAM, stands
from waiting import until

FASTER = 20
HELD = 10 * 60 // FASTER  # seconds that botocore holds on to keys at most
LEAST = HELD + 5
LIFE = LEAST + 10
ENDS = 3  # of keys that each of the three has used

BACKUP = f"{UNIT}-backup.service"
SHORTER = (
    r"sed -i 's/random\.randint(120, 600)/random.randint({}, {})/' "
    f"$(echo {ROOT}/venv/lib/python3*/site-packages/botocore/utils.py)"
)


# What each of the three does in the bucket, by a part of the path.
PARTS = {"server": "/lent/", "stream": "/stream/", "backup": "/manifest.json"}


def upload(host: Host, login: tuple[str, str], n: int) -> int:
    """Log a run and send a file through the server into the bucket; returns the file's status."""
    api = "http://127.0.0.1:5000/api/2.0"
    asked = (
        f'url = "{api}/mlflow/runs/create"\nuser = "{login[0]}:{login[1]}"\n'
        'header = "Content-Type: application/json"\ndata = "{\\"experiment_id\\": \\"0\\"}"\n'
        "output = /dev/null\nfail\nnext\n"
        f'url = "{api}/mlflow-artifacts/artifacts/lent/{n}.txt"\n'
        f'user = "{login[0]}:{login[1]}"\nupload-file = /etc/hostname\n'
        'output = /dev/null\nwrite-out = "%{http_code}"\n'
    )
    return int(host.run("curl -s --max-time 60 -K -", asked))


@pytest.mark.costly
def test_three_ends_of_its_keys_go_by_unnoticed_and_old_ones_do_not_do(blank: Host) -> None:
    host = blank
    with lending(host.lab, LIFE, LEAST) as (lender, url):
        host.variables |= {"FABRIC_MLFLOW_ENDPOINT_URL": url, **NO_KEYS}
        host.fab("install", timeout=600)
        host.run(SHORTER.format(120 // FASTER, HELD))
        host.fab("configure", "deploy", "backup.stream", "on", "backup.schedule", timeout=600)
        assert "credentials" not in host.run("ls /home/ubuntu/.aws")
        login = host.login()
        pids = [host.unit(unit, "MainPID") for unit in (UNIT, STREAM)]

        n, deadline = 0, time.monotonic() + 600
        while (few := {name: lender.ended(part) for name, part in PARTS.items()}) and (
            min(few.values()) < ENDS
        ):
            assert time.monotonic() < deadline, few
            n += 1
            assert upload(host, login, n) == 200
            if lender.lend() not in lender.used(PARTS["backup"]) and few["backup"] < ENDS:
                host.run(f"systemctl start {BACKUP}")
            time.sleep(1)
        assert lender.refused() == []
        assert [host.unit(unit, "MainPID") for unit in (UNIT, STREAM)] == pids
        row = stands(host)
        assert (row["running"], row["trouble"]) == (True, None)
        assert row["lag_seconds"] <= 10

        # None of this tells anything unless a role that lends the same for ever is noticed.
        lender.stuck = True
        until(lambda: upload(host, login, 0) == 500, "the server is refused", LIFE + HELD)
        host.run(f"systemctl start {BACKUP}", code=1)
        assert "ExpiredToken" in host.run(f"journalctl -o cat -u {BACKUP} -n 40")
        lender.stuck = False
        until(lambda: upload(host, login, 0) == 200, "the server has other keys", 2 * HELD)
        host.run(f"systemctl start {BACKUP}")
        host.healthy()
