"""A host destroyed under load costs seconds of runs; every moment before can be had back."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from lab import CHAIN, ROOT, SEARCH, UNIT, Host, Lab
from load import writers
from waiting import until

LOSS, RECOVERY = 5, 180  # seconds
STREAM, SPELT = f"{UNIT}-stream", "%Y-%m-%dT%H:%M:%SZ"


def test_a_destroyed_host_costs_five_seconds_of_runs_at_most(lab: Lab, full: bool) -> None:
    with lab.blank() as first:
        # The writers reach the server at the host's own address.
        first.variables["FABRIC_MLFLOW_BIND"] = "0.0.0.0"
        first.fab(*CHAIN, "backup.stream", "on", timeout=600)
        login = first.login()
        with writers(first, login, patience=10) as load:
            time.sleep(2 * LOSS)  # so that there are runs that no loss can touch
            moment = datetime.now(timezone.utc).replace(microsecond=0)
            time.sleep(LOSS)
            load.goes_on()
            pid = first.pid
            assert pid
            destroyed = time.time()
            os.kill(pid, signal.SIGKILL)  # a container's first process takes all others along
            until(lambda: first.pid is None, "the host is gone")
        acknowledged = {
            note["run"]: note["at"]
            for note in load.notes()
            if "run" in note and note["at"] < destroyed
        }
    # Its disk is gone with it.
    assert first.machine not in [machine.name for machine in lab.rehearsal.machines()]
    with lab.blank() as second:
        # It takes the place of the other, artifacts and all.
        second.variables["FABRIC_MLFLOW_PREFIX"] = first.variables["FABRIC_MLFLOW_PREFIX"]
        (key,) = (first.home / ".config/remote-mlflow").glob("*backup-key")
        second.variables["REMOTE_MLFLOW_BACKUP_KEY"] = key.read_text().strip()
        began = time.monotonic()
        done = second.fab(*CHAIN, "--yes", "restore", "--at", "latest", "--yes", timeout=600)
        seconds = time.monotonic() - began
        newest = runs(second)
        lost = {run: at for run, at in acknowledged.items() if run not in newest}
        loss = max((destroyed - at for at in lost.values()), default=0.0)
        print(
            f"{len(acknowledged)} runs were acknowledged, {len(lost)} of the last {loss:.1f} s are "
            f"lost; restored on a new host in {seconds:.0f} s"
        )
        assert f": {len(newest)} runs, the newest of " in done.out
        assert "streams nothing itself yet" in done.out
        assert loss <= LOSS
        assert seconds <= RECOVERY
        second.healthy()
        assert second.status(SEARCH, login) == 200, "the users came too"
        if not full:
            return

        early = ("No stream reaches to 2020-01-01T00:00:00Z. There is: 2", "--at latest")
        second.refused("restore", "--at", "2020-01-01T00:00:00Z", "--yes", because=early)
        late = datetime.now(timezone.utc).strftime(SPELT)
        second.refused("restore", "--at", late, "--yes", because=(f"No stream reaches to {late}",))
        second.refused("restore", "--at", "noon", because=("'noon' does not say when",))
        assert runs(second) == newest

        second.fab("restore", "--at", moment.strftime(SPELT), "--yes", timeout=600)
        then = runs(second)
        assert max(then.values()) <= moment.timestamp()
        before = [run for run, at in acknowledged.items() if at < moment.timestamp() - LOSS]
        assert before
        assert [run for run in before if run not in then] == []
        second.fab("rollback", "--yes", timeout=600)
        assert runs(second) == newest
        second.healthy()


def runs(host: Host) -> dict[str, float]:
    """Return the runs that a host has, and when they began."""
    found = host.python(
        "import json, sqlite3, sys; base = sqlite3.connect(sys.argv[1]);"
        "print(json.dumps(base.execute('select run_uuid, start_time / 1e3 from runs').fetchall()))",
        f"{ROOT}/mlflow.db",
    )
    return dict(json.loads(found))


def stands(host: Host) -> dict[str, Any]:
    (row,) = json.loads(host.fab("backup.stream", "status", "--json", code=None).out)
    return dict(row)


def anew(host: Host, former: dict[str, Any]) -> dict[str, Any] | None:
    """Return how the stream stands once another one has been sent whole."""
    row = stands(host)
    whole = len(row["reaches"]) > len(former["reaches"])
    return row if whole and row["stream"] != former["stream"] else None


@pytest.mark.costly
def test_a_stream_outlives_kills_begins_anew_on_other_databases_and_ends_when_told(
    host: Host,
) -> None:
    host.fab("backup")
    with host.lab.bucket_denying("s3:PutObject") as bucket:
        because = ("the bucket refuses PutObject", "run the same command again")
        host.refused("backup.stream", "on", because=because, FABRIC_MLFLOW_BUCKET=bucket)
    assert host.run(f"ls -A {ROOT}; ls /etc/systemd/system").count("stream.") == 0
    try:
        done = host.fab("backup.stream", "on")
        assert "restored from it on the side" in done.out
        assert "nothing to change" in host.fab("backup.stream", "on").out
        began = stands(host)
        assert (began["on"], began["every_seconds"], began["trouble"]) == (True, 1, None)
        assert began["lag_seconds"] <= 10

        # What was missed meanwhile cannot be told: each start begins with all of it.
        host.run(f"systemctl kill -s KILL {STREAM}")
        again = until(lambda: anew(host, began), "it comes back")
        host.fab("restore", "--at", "latest", "--yes")
        until(lambda: anew(host, again), "it follows the restored databases")
        assert "restored and served" in host.fab("backup.stream", "verify").out
        findings = json.loads(host.fab("doctor", "--json", code=None).out)
        assert [row["key"] for row in findings if row["key"].startswith("stream")] == []

        host.run(f"systemctl stop {STREAM}")
        findings = json.loads(host.fab("doctor", "--json", code=1).out)
        assert "stream-stopped" in [row["key"] for row in findings]
    finally:
        assert "stays" in host.fab("backup.stream", "off").out
    row = stands(host)
    assert (row["on"], row["running"]) == (False, False)
    assert row["reaches"], "what was streamed stays in the bucket"
    assert host.run(f"ls -A {ROOT}; ls /etc/systemd/system").count("stream.") == 0
    host.healthy()
