"""What cannot be restored is told in one line, and the server never notices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from lab import UNIT
from older import SETS, Older
from sabotage import small_disk

pytestmark = pytest.mark.sampled
Spoil = Callable[[bytes], bytes]


def test_a_set_that_cannot_be_restored_is_one_line_and_changes_nothing(older: Older) -> None:
    before = untouched(older)
    refused(older, "20991231T235959Z-00000000", "There is no complete backup 20991231T235959Z")
    with spoiled(older, "mlflow.db.zst", flipped) as id:
        refused(older, id, f"The backup {id} is damaged: mlflow.db.zst is not what was sent")
    with spoiled(older, "manifest.json", newer) as id:
        refused(older, id, "made by MLflow 3.99.0, which is newer", " upgrade --to 3.99.0")
    with spoiled(older, "manifest.json", None) as id:
        refused(older, id, f"There is no complete backup {id}")
    assert untouched(older) == before


def test_a_disk_that_is_too_small_is_one_line_and_changes_nothing(older: Older) -> None:
    host = older.host
    with small_disk(older, 90):
        older.serves()
        before = untouched(older)
        refused(
            older, older.backup, "Restoring", "GB of room on the host", "run the same command again"
        )
        host.refused("backup", because=("A backup needs", "GB of room on the host", "backup again"))
        assert untouched(older) == before


def refused(older: Older, id: str, *because: str) -> None:
    older.host.refused("restore", "--yes", "--id", id, because=because)


def untouched(older: Older) -> tuple[object, ...]:
    """Return what would differ if anything had been stopped, replaced or left behind."""
    host = older.host
    state = older.state()
    assert state.left == []
    here = "/home/ubuntu/mlflow-server"
    return (
        state,
        host.unit(f"{UNIT}.service", "ActiveEnterTimestampMonotonic"),
        host.run(f"cd {here}; ls -A . backups; ls -A former || true; sha256sum server.env"),
    )


@contextmanager
def spoiled(older: Older, name: str, spoil: Spoil | None) -> Iterator[str]:
    """Put a copy of the backup into the bucket, one file of it spoilt or (None) missing."""
    s3, bucket = older.host.lab.s3(), older.host.lab.bucket
    id = "20200101T000000Z-e2e"
    place = f"{SETS}{older.backup}/"
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=place)["Contents"]
    copies = [f"{SETS}{id}/{entry['Key'].removeprefix(place)}" for entry in listed]
    try:
        for entry, copy in zip(listed, copies, strict=True):
            body = s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
            if copy.endswith(f"/{name}"):
                if spoil is None:
                    continue
                body = spoil(body)
            if copy.endswith("/manifest.json"):
                body = older.host.signed(json.loads(body), id)
            s3.put_object(Bucket=bucket, Key=copy, Body=body)
        yield id
    finally:
        for copy in copies:
            s3.delete_object(Bucket=bucket, Key=copy)


def flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def newer(body: bytes) -> bytes:
    manifest = json.loads(body)
    manifest["databases"]["mlflow.db"]["revision"] = "f" * 12
    return json.dumps(manifest | {"release": "3.99.0-00000000", "version": "3.99.0"}).encode()
