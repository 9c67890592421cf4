"""Status of a real host: true figures from one look, and a stopped server stays stopped."""

from __future__ import annotations

import json
from typing import Any

from lab import UNIT, Host


def table(host: Host, **rest: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(host.fab("status", "--json", **rest).out)
    return rows


def test_a_running_server_s_figures_are_true(host: Host) -> None:
    host.fab("verify")
    (row,) = table(host)
    assert (row["host"], row["environment"]) == (host.alias, "default")
    assert (row["state"], row["workers"], row["database"]) == ("running", 1, "sqlite")
    # What test_the_unit_is_hardened_and_fits_a_small_instance measures its own way.
    assert 200 < row["memory_bytes"] / 2**20 < 550
    assert 100_000 < row["database_bytes"] < 10**8
    assert row["users"] >= 1
    assert 0 < row["disk_free_bytes"] < row["disk_bytes"]


def test_a_backup_is_remembered_by_the_host_that_made_it(host: Host) -> None:
    host.run("rm -f /home/ubuntu/mlflow-server/.backup")
    assert table(host)[0]["last_backup"] is None
    assert "never" in host.fab("status").out
    host.fab("backup")
    assert 0 <= table(host)[0]["backup_age_seconds"] < 60
    assert " s ago" in host.fab("status").out


def test_a_stopped_server_is_asked_nothing_and_stays_stopped(host: Host) -> None:
    (running,) = table(host)
    host.run(f"systemctl stop {UNIT}.service")
    before = host.run(f"systemctl show {UNIT}.service -p InvocationID,InactiveEnterTimestamp")
    (row,) = table(host)
    assert "the next request starts it" in row["state"]
    assert (row["running"], row["memory_bytes"]) == (False, None)
    assert row["experiments"] == running["experiments"] >= 1
    assert 0 <= row["since_seconds"] < 60
    assert "the next request starts it" in host.fab("status").out
    after = host.run(f"systemctl show {UNIT}.service -p InvocationID,InactiveEnterTimestamp")
    assert after == before
    assert host.run(f"systemctl is-active {UNIT}.service", code=None) == "inactive"


def test_all_environments_stand_in_one_table(host: Host) -> None:
    file = host.lab.clone / "fabric.yaml"
    file.write_text("mlflow:\n  environments:\n    staging:\n      port: 5005\n")
    try:
        rows = table(host)
        assert [(row["environment"], row["state"], row["port"]) for row in rows] == [
            ("default", "running", 5000),
            ("staging", "not deployed", 5005),
        ]
        lines = host.fab("status").out.splitlines()
        assert len(lines) == 3
        (row,) = table(host, FABRIC_MLFLOW_ENVIRONMENT="staging")
        assert row["environment"] == "staging"
    finally:
        file.unlink()


def test_a_certificate_s_days_are_counted(host: Host) -> None:
    site = f"/etc/nginx/sites-available/{UNIT}"
    with host.kept(site):
        host.run(
            "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=e2e -days 30 "
            "-keyout /root/e2e.key -out /root/e2e.pem 2> /dev/null; "
            f"sed -i 's|^server {{|server {{\\n  ssl_certificate /root/e2e.pem;|' {site}"
        )
        assert table(host)[0]["certificate_days_left"] in (29, 30)
        host.run("rm /root/e2e.key /root/e2e.pem")
        assert table(host)[0]["certificate_days_left"] is None
