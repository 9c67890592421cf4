"""A host destroyed under load costs seconds of runs; every moment before can be had back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import datetime, timezone
from typing import Any

from lab import CHAIN, ROOT, UNIT, Host, Lab, until
from load import writers

from tasks.commands import sh
from tasks.facts import Facts
from tasks.server import Change, bundle
from tasks.settings import Settings
from tasks.stream import installing, restoring
from tasks.templates import read

LOSS, RECOVERY = 5, 180  # seconds
STREAM = f"{UNIT}-stream"


def test_a_destroyed_host_costs_five_seconds_of_runs_at_most(lab: Lab) -> None:
    with lab.blank() as first:
        # The writers reach the server at the host's own address.
        first.variables["FABRIC_MLFLOW_BIND"] = "0.0.0.0"
        first.fab(*CHAIN, "backup.stream", "on", timeout=600)
        with writers(first, first.login(), patience=10) as load:
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
    began = time.monotonic()
    with lab.blank() as second:
        second.fab("install", "configure", timeout=600)
        newest = restored(second, "latest")
        seconds = time.monotonic() - began
        lost = {run: at for run, at in acknowledged.items() if run not in newest}
        loss = max((destroyed - at for at in lost.values()), default=0.0)
        print(
            f"{len(acknowledged)} runs were acknowledged, {len(lost)} of the last {loss:.1f} s are "
            f"lost; restored on a new host in {seconds:.0f} s"
        )
        assert loss <= LOSS
        assert seconds <= RECOVERY
        then = restored(second, moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
        assert max(then.values()) <= moment.timestamp()
        before = [run for run, at in acknowledged.items() if at < moment.timestamp() - LOSS]
        assert before
        assert [run for run in before if run not in then] == []


def restored(host: Host, at: str) -> dict[str, float]:
    """Restore a moment into a folder, as `restore` does; return its runs and when they began."""
    settings = Settings(bucket=host.lab.bucket, endpoint_url=host.lab.endpoint)
    nothing = Facts(home="", user="", root="", now=0)
    deliver(host, *installing(nothing), restoring(settings, at, "$root/next.part"))
    found = host.python(
        "import json, sqlite3, sys; base = sqlite3.connect(sys.argv[1]);"
        "print(json.dumps(base.execute('select run_uuid, start_time / 1e3 from runs').fetchall()))",
        f"{ROOT}/next.part/mlflow.db",
    )
    host.run(f"rm -rf {ROOT}/next.part")
    return dict(json.loads(found))


def deliver(host: Host, *steps: Change) -> None:
    """Make changes on a host, in one exec, as the product does."""
    words = sh("bash", "-c", read("host/receive.sh"), "x", "change.sh", ROOT, "e2e", "e2e", "-")
    done = subprocess.run(
        ["ssh", "-F", str(host.lab.ssh_config), host.alias, words],
        env=host.environment(), input=bundle(steps), capture_output=True,
    )  # fmt: skip
    said = (done.stdout + done.stderr).decode()
    assert said.rstrip().endswith("@exit 0"), said


def stands(host: Host) -> dict[str, Any]:
    (row,) = json.loads(host.fab("backup.stream", "status", "--json", code=None).out)
    return dict(row)


def anew(host: Host, former: dict[str, Any]) -> dict[str, Any] | None:
    """Return how the stream stands once another one has been sent whole."""
    row = stands(host)
    whole = len(row["reaches"]) > len(former["reaches"])
    return row if whole and row["stream"] != former["stream"] else None


def test_a_stream_outlives_kills_begins_anew_on_other_databases_and_ends_when_told(
    host: Host,
) -> None:
    host.fab("backup")
    with host.lab.bucket_denying("s3:PutObject") as bucket:
        because = ("the bucket refuses PutObject", "type the same again")
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
        host.fab("restore", "--yes")
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
