"""A backup set: made, sent and read back; found, checked and brought back again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import sqlite3
import subprocess
import tarfile
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
from host_side import Store, execute

# -- back_up.py --------------------------------------------------------------------------------


def reported(out: str) -> dict[str, Any]:
    return json.loads(out.splitlines()[-1].removeprefix("@report "))


def unpacked(store: Store, key: str, folder: Path) -> Path:
    """Bring a packed database of the bucket's into a folder."""
    file = folder / "restored.db"
    done = subprocess.run(["zstd", "-d", "-q"], input=store.body(key), capture_output=True)
    file.write_bytes(done.stdout)
    return file


def test_a_set_is_sent_checked_and_reported(back_up, store, root):
    code, out = back_up()
    assert code == 0
    done = reported(out)
    assert (done["runs"], done["users"]) == (3, 1)
    server = (root / ".server-id").read_text().strip()
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}Z-{server}", done["id"])
    assert done["place"] == f"s3://my-bucket/mlflow-backups/default/{done['id']}/"
    place = done["place"].removeprefix("s3://my-bucket/")
    assert store.listing() == [
        f"{place}{name}"
        for name in (
            "basic_auth.db.zst",
            "configuration.tar.gz",
            "manifest.json",
            "mlflow.db.zst",
        )
    ]
    manifest = json.loads(store.body(f"{place}manifest.json"))
    assert (manifest["release"], manifest["version"]) == ("3.17.2-abc", "3.17.2")
    assert (manifest["server"], manifest["environment"]) == (server, "default")
    tracking, auth = (manifest["databases"][name] for name in ("mlflow.db", "basic_auth.db"))
    size = unpacked(store, f"{place}mlflow.db.zst", root).stat().st_size
    assert tracking == {
        "kind": "sqlite",
        "revision": "r1",
        "counts": {"alembic_version": 1, "runs": 3, "metrics": 3},
        "newest_run": 1002,
        "bytes": size,
        "dangling": 0,
    }
    assert (auth["revision"], auth["counts"]["users"], auth["newest_run"]) == ("a1", 1, None)
    for entry in manifest["files"]:
        body = store.body(place + entry["name"])
        assert (len(body), hashlib.sha256(body).hexdigest()) == (entry["bytes"], entry["sha256"])
    assert sum(entry["bytes"] for entry in manifest["files"]) == done["bytes"]
    assert list((root / "backups").iterdir()) == [], "nothing stays on the host"


def test_a_server_s_id_is_made_once(back_up, root):
    back_up()
    first = (root / ".server-id").read_text()
    assert re.fullmatch("[0-9a-f]{8}\n", first)
    assert reported(back_up()[1])["id"].endswith(f"-{first.strip()}")
    assert (root / ".server-id").read_text() == first


def test_two_backups_of_one_second_are_two_sets(back_up, store):
    ids = {reported(back_up()[1])["id"] for _ in range(2)}
    assert len(ids) == 2
    assert len(store.listing()) == 8


def test_what_a_killed_backup_left_is_taken_away(back_up, root):
    (root / "backups/tmpx").mkdir(parents=True)
    (root / "backups/tmpx/mlflow.db").write_text("half")
    (root / "backups/mlflow.db.part").write_text("half")
    assert back_up()[0] == 0
    assert list((root / "backups").iterdir()) == []


def test_without_zstd_it_says_what_to_type(back_up, store, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda program: None)
    code, out = back_up()
    assert code == 1
    assert out.startswith("@fail The host lacks the program zstd")
    assert "Type: ./fab install" in out
    assert store.listing() == []


def test_a_host_remembers_its_last_good_backup_and_no_other(back_up, store, root):
    before = int(time.time())
    code, out = back_up()
    assert code == 0
    when, name = (root / ".backup").read_text().split()
    assert before <= int(when) <= time.time()
    assert reported(out)["id"] == name
    store.refuse("PUT .*manifest.json")
    assert back_up()[0] == 1
    assert (root / ".backup").read_text().split() == [when, name]


def test_the_manifest_is_sent_last(back_up, store):
    back_up()
    changed = [request for request in store.requests if request.startswith(("PUT", "POST"))]
    assert changed[-1].endswith("/manifest.json")
    assert store.requests[-1] == changed[-1], "once all else was read back"


def test_the_configuration_is_in_the_set(back_up, store):
    back_up()
    (key,) = (key for key in store.listing() if "configuration" in key)
    with tarfile.open(fileobj=io.BytesIO(store.body(key))) as archive:
        assert sorted(archive.getnames()) == [".mlflow_auth_config", ".server-id", "server.env"]


def test_objects_are_encrypted_at_rest(back_up, store):
    back_up()
    for key in store.listing():
        head = store.client().head_object(Bucket="my-bucket", Key=key)
        assert head["ServerSideEncryption"] == "AES256"


def test_a_writer_at_work_cannot_tear_the_copy(back_up, store, root, tmp_path):
    begun, stop = threading.Event(), threading.Event()

    def write() -> None:
        n = 3
        with contextlib.closing(sqlite3.connect(root / "mlflow.db", timeout=20)) as database:
            while not stop.is_set():
                with database:  # both rows or none
                    database.execute("insert into runs values (?, ?, 'active')", (f"run{n}", n))
                    database.execute("insert into metrics values (?, ?)", (n, "x" * 4000))
                n += 1
                if n > 50:
                    begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(20)
        code, out = back_up()
    finally:
        stop.set()
        writer.join()
    assert code == 0
    runs = reported(out)["runs"]
    (key,) = (key for key in store.listing() if key.endswith("/mlflow.db.zst"))
    with contextlib.closing(sqlite3.connect(unpacked(store, key, tmp_path))) as copy:
        counts = [
            copy.execute(f"select count(*) from {name}").fetchone()[0]
            for name in ("runs", "metrics")
        ]
        assert copy.execute("pragma integrity_check").fetchone()[0] == "ok"
        assert copy.execute("pragma journal_mode").fetchone()[0] == "delete"
    assert counts == [runs, runs]
    assert runs > 3


def test_a_damaged_database_sends_nothing(back_up, store, root):
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.executemany(
            "insert into metrics values (?, ?)", [(n, "x" * 400) for n in range(999)]
        )
        database.execute("create index by_n on metrics (n)")
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    data = bytearray((root / "mlflow.db").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8192] = b"\xff" * 8192
    (root / "mlflow.db").write_bytes(data)
    code, out = back_up()
    assert code == 1
    assert out.startswith("@fail ")
    assert "Nothing was sent, and earlier backups stay: the database mlflow.db is damaged" in out
    assert "Type: ./fab doctor" in out
    assert store.listing() == []


def test_a_file_that_is_no_database_sends_nothing(back_up, store, root):
    (root / "basic_auth.db").write_text("this is no database" * 99)
    code, out = back_up()
    assert code == 1
    assert out.startswith("@fail A database cannot be read: file is not a database")
    assert store.listing() == []


@pytest.mark.parametrize("refused", ["mlflow.db.zst", "configuration.tar.gz"])
def test_a_set_that_could_not_be_sent_whole_has_no_manifest(back_up, store, refused):
    store.refuse(f"PUT .*{refused}")
    code, out = back_up()
    assert code == 1
    assert out.startswith("@fail ")
    assert "AccessDenied" in out
    assert not any("manifest" in key for key in store.listing())


def test_a_set_that_comes_back_otherwise_has_no_manifest(back_up, store):
    store.refuse("GET .*mlflow.db.zst", status=200)
    code, out = back_up()
    assert code == 1
    assert "came back other than it was sent" in out
    assert not any("manifest" in key for key in store.listing())


def test_a_refused_manifest_names_the_permissions(back_up, store):
    store.refuse("PUT .*manifest.json")
    code, out = back_up()
    assert code == 1
    assert "Allow s3:PutObject, s3:GetObject and s3:ListBucket there" in out


def test_a_full_disk_is_named_before_anything_is_copied(back_up, store, root, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**6))
    code, out = back_up()
    assert code == 1
    assert "A backup needs 0.1 GB of room on the host" in out
    assert not (root / "backups").exists()


def test_rows_that_refer_to_nothing_are_a_warning(back_up, root):
    execute(root / "mlflow.db", "create table parents (id integer primary key)")
    execute(root / "mlflow.db", "create table children (parent references parents (id))")
    execute(root / "mlflow.db", "insert into children values (7)")
    code, out = back_up()
    assert code == 0
    assert "@warn mlflow.db has 1 rows that refer to nothing\n" in out
