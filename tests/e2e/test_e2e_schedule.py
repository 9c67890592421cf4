"""Backups that a host makes by itself: laid down, run, missed, failed, thinned out, taken away."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from lab import ROOT, UNIT, Host
from waiting import until

pytestmark = pytest.mark.sampled
BACKUP, VERIFY = f"{UNIT}-backup", f"{UNIT}-backup-verify"
STAMP = f"/var/lib/systemd/timers/stamp-{BACKUP}.timer"  # systemd.timer(5), Persistent=


def sets(host: Host) -> list[dict[str, object]]:
    return list(json.loads(host.fab("backup.list", "--json").out))


def aged(host: Host, days: int, minute: int = 0) -> str:
    """Put a copy of the newest set into the bucket, made so many days ago in this minute."""
    s3, bucket = host.lab.s3(), host.lab.bucket
    place = f"mlflow-backups/default/{sets(host)[0]['id']}/"
    moment = (datetime.now(timezone.utc) - timedelta(days=days)).replace(minute=minute)
    id = f"{moment:%Y%m%dT%H%M%SZ}-e2e"
    for entry in s3.list_objects_v2(Bucket=bucket, Prefix=place)["Contents"]:
        name = entry["Key"].removeprefix(place)
        body = s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        if name == "verified.json":
            continue
        if name == "manifest.json":
            body = host.signed(json.loads(body) | {"made": moment.isoformat()}, id)
        s3.put_object(Bucket=bucket, Key=f"mlflow-backups/default/{id}/{name}", Body=body)
    return id


def test_a_host_backs_itself_up_and_says_when_it_cannot(host: Host) -> None:
    assert host.fab("backup.schedule").out.count("next ") == 2
    again = host.fab("backup.schedule", "--every", "1h", "--verify", "weekly")
    assert "nothing to change (a backup every 1h, verified weekly)" in again.out
    assert "backup.schedule" not in host.fab("deploy").out
    assert host.run(f"stat -c %a {ROOT}/scheduled") == "700"

    # An operator at work is waited for. What the unit does then is a backup, and no other's.
    before = len(sets(host))
    host.run(f"systemd-run -q --uid=ubuntu flock {ROOT}/.lock sleep 4; sleep 0.5")
    host.run(f"systemctl start {BACKUP}")
    newest = sets(host)[0]
    assert len(sets(host)) == before + 1
    assert "\ttimer\tbackup\tdone" in host.audit()
    assert host.unit(f"{BACKUP}.service", "Nice") == "10"

    # The other timer's proof stands beside it.
    host.run(f"systemctl start {VERIFY}")
    verified = next(each for each in sets(host) if each["id"] == newest["id"])
    assert verified["verified"]

    # Missed while the host was off: made up for as soon as the timer is there again.
    host.run(
        f"systemctl stop {BACKUP}.timer; touch -d '2 days ago' {STAMP}; "
        f"sed -i s/RandomizedDelaySec=.*/RandomizedDelaySec=0/ /etc/systemd/system/{BACKUP}.timer; "
        f"systemctl daemon-reload; systemctl start {BACKUP}.timer"
    )
    until(lambda: len(sets(host)) == before + 2, "what was missed is made up for")
    assert "next backup" in host.fab("backup.schedule").out, "what was edited by hand is put right"

    with host.lab.bucket_denying("s3:PutObject") as bucket:
        host.fab("backup.schedule", FABRIC_MLFLOW_BUCKET=bucket)
        host.run(f"systemctl start {BACKUP}", code=1)
        (row,) = json.loads(host.fab("status", "--json").out)
        assert row["failed_by_timer"] == ["backup"]
        found = {row["key"]: row for row in json.loads(host.fab("doctor", "--json", code=None).out)}
        assert f"bucket {bucket} refuses the backup" in found["backup-failed"]["what"]
        assert "backup-schedule-due" in found, "by the settings as they are now"
    host.fab("backup.schedule", "backup")
    (row,) = json.loads(host.fab("status", "--json").out)
    assert row["failed_by_timer"] == [], "one that was made by hand makes up for it"

    kept = len(sets(host))
    assert "backups in the bucket stay" in host.fab("backup.schedule", "--off").out
    assert host.run(f"ls /etc/systemd/system | grep -c {BACKUP} || true") == "0"
    assert host.unit(f"{BACKUP}.timer", "LoadState") == "not-found"
    assert len(sets(host)) == kept
    assert "backup.schedule" in host.fab("deploy").out
    host.healthy()


def test_backups_are_thinned_out_and_one_is_brought_here(host: Host, tmp_path: Path) -> None:
    host.fab("backup")
    former, latter = aged(host, 400, minute=10), aged(host, 400, minute=40)
    before = len(sets(host))
    dry = host.fab("backup.prune").out
    assert "nothing was deleted" in dry
    assert former in dry
    assert latter not in dry, "the newest of its hour"
    assert len(sets(host)) == before
    assert "✓ deleted" in host.fab("backup.prune", "--yes").out
    ids = [each["id"] for each in sets(host)]
    assert latter in ids
    assert former not in ids
    left = host.lab.s3().list_objects_v2(
        Bucket=host.lab.bucket, Prefix=f"mlflow-backups/default/{former}/"
    )
    assert left["KeyCount"] == 0

    newest, to = sets(host)[0], tmp_path / "to/be made"
    done = host.fab("backup.download", "--to", str(to))
    assert "secrets" in done.err
    folder = to / str(newest["id"])
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["files"]:
        file = folder / entry["name"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"]
        assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    host.refused("backup.download", "--to", str(to), because=("is there already",))
    host.refused("backup.download", "--id", "nosuch", because=("--id 'nosuch' is not a backup's",))

    # A file that rotted in the bucket is found out, and nothing of it stays here.
    rotten = aged(host, 402)
    key = f"mlflow-backups/default/{rotten}/mlflow.db.zst"
    body = host.lab.s3().get_object(Bucket=host.lab.bucket, Key=key)["Body"].read()
    host.lab.s3().put_object(Bucket=host.lab.bucket, Key=key, Body=body[:-1] + b"x")
    because = (rotten, "mlflow.db.zst is not what was sent")
    host.refused("backup.download", "--to", str(to), "--id", rotten, because=because)
    assert [entry.name for entry in to.iterdir()] == [folder.name]
