"""A backup set is made, checked, sent and read back, or nothing of it stays."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import threading
import time
import types
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from botocore import exceptions
from host_side import KEY, execute, put, reported, unpacked, vouching
from store_side import Store
from waiting import soon


def test_a_set_is_sent_checked_and_reported(back_up, store, root):
    code, out = back_up()
    assert code == 0
    done = reported(out)
    assert (done["runs"], done["users"]) == (3, 1)
    server = (root / ".server-id").read_text().strip()
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}Z-{server}-[0-9a-f]{{6}}", done["id"])
    assert done["place"] == f"s3://my-bucket/mlflow-backups/default/{done['id']}/"
    place = done["place"].removeprefix("s3://my-bucket/")
    assert store.listing() == [
        f"{place}{name}"
        for name in (
            "basic_auth.db.zst",
            "configuration.tar.gz.enc",
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
    assert f"-{first.strip()}-" in reported(back_up()[1])["id"]
    assert (root / ".server-id").read_text() == first


def test_two_backups_of_one_second_are_two_sets(back_up, store):
    ids = {reported(back_up()[1])["id"] for _ in range(2)}
    assert len(ids) == 2
    assert len(store.listing()) == 8


def test_places_that_somebody_takes_end_a_backup_soon(back_up, store, root):
    """Whoever may write to the bucket could keep it at it for ever, and the lock with it."""
    (root / ".server-id").write_text("aaaaaaaa")
    now = datetime.now(timezone.utc)
    for second in range(60):
        id = f"{now + timedelta(seconds=second):%Y%m%dT%H%M%SZ}-aaaaaaaa"
        put(store, id, "x", b"")
    code, out = back_up()
    assert code == 1
    assert out.startswith("@fail Somebody writes where this server's backups go, such as s3://")


def test_two_hosts_with_one_id_that_begin_at_one_moment_make_two_sets(back_up, store, monkeypatch):
    """The second one looks before the first has sent anything."""
    from botocore.client import BaseClient

    call, ids = BaseClient._make_api_call, []

    def looked(self: Any, name: str, given: Any) -> Any:
        found = call(self, name, given)
        return {"KeyCount": 0} if name == "ListObjectsV2" else found

    class Still(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 11, 30, 12, tzinfo=tz)

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("datetime.datetime", Still)
            patch.setattr(BaseClient, "_make_api_call", looked)
            ids.append(reported(back_up()[1])["id"])
    assert ids[0][:25] == ids[1][:25]
    assert (len(set(ids)), len(store.listing())) == (2, 8)


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
    when, name, key = (root / ".backup").read_text().split()
    assert before <= int(when) <= time.time()
    assert reported(out)["id"] == name
    store.refuse("PUT .*manifest.json")
    assert back_up()[0] == 1
    assert (root / ".backup").read_text().split() == [when, name, key]


def test_the_manifest_is_sent_last(back_up, store):
    back_up()
    changed = [request for request in store.requests if request.startswith(("PUT", "POST"))]
    assert changed[-1].endswith("/manifest.json")
    assert store.requests[-1] == changed[-1], "once all else was read back"


def test_the_configuration_is_in_the_set(back_up, store):
    back_up()
    (key,) = (key for key in store.listing() if "configuration" in key)
    body = store.body(key)
    assert b"MLFLOW_FLASK_SERVER_SECRET_KEY" not in body
    opened = vouching().Key(KEY).opened(body, key.split("/")[-2])
    with tarfile.open(fileobj=io.BytesIO(opened)) as archive:
        assert sorted(archive.getnames()) == [
            ".mlflow_auth_config", ".server-id", "server.env", "users.json",
        ]  # fmt: skip
        (users,) = (archive.extractfile(name) for name in archive.getnames() if "users" in name)
        assert json.load(users) == {
            "admin": {"admin": True, "password": hashlib.sha256(b"x").hexdigest()}
        }


def test_the_bucket_says_how_objects_are_encrypted(back_up, store):
    """One that takes no other key than its own of KMS refuses whoever names AES256."""
    back_up()
    for key in store.listing():
        head = store.client().head_object(Bucket="my-bucket", Key=key)
        assert "ServerSideEncryption" not in head


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


def test_of_a_damaged_database_nothing_stays(back_up, store, root):
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
    assert "No backup was made, and earlier ones stay: the database mlflow.db is damaged" in out
    assert "Type: ./fab doctor" in out
    assert store.listing() == []


def large(root: Path, megabytes: int = 20) -> None:
    """Give the tracking database content that zstd cannot make smaller."""
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute("create table noise (body blob)")
        body = [(os.urandom(1 << 20),) for _ in range(megabytes)]
        database.executemany("insert into noise values (?)", body)


def unfinished(store: Store) -> list[Any]:
    found: list[Any] = store.client().list_multipart_uploads(Bucket="my-bucket").get("Uploads", [])
    return found


def sent_parts(store: Store) -> list[str]:
    return [request for request in store.requests if "partNumber" in request]


def test_a_large_database_arrives_in_parts_as_it_was(back_up, store, root, tmp_path):
    large(root)
    code, out = back_up()
    assert code == 0
    place = reported(out)["place"].removeprefix("s3://my-bucket/")
    assert len(sent_parts(store)) == 3
    copy = unpacked(store, f"{place}mlflow.db.zst", tmp_path)
    with contextlib.closing(sqlite3.connect(copy)) as database:
        assert database.execute("select sum(length(body)) from noise").fetchone() == (20 << 20,)
    assert unfinished(store) == []


@pytest.fixture
def unsound(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Have a database be found damaged, but only once something is there."""
    import databases

    examine = databases.examine

    def have(name: str, there: Callable[[], object]) -> None:
        def examined(path: str) -> Any:
            if os.path.basename(path) != name:
                return examine(path)
            soon(there, "what was sent")
            raise databases.Damaged(f"the database {name} is damaged: row 7")

        monkeypatch.setattr(databases, "examine", examined)

    return have


def test_databases_are_sent_while_they_are_checked(back_up, store, root, monkeypatch):
    import databases

    large(root)
    examine = databases.examine

    def awaiting(path: str) -> Any:
        soon(lambda: len(store.listing()) == 2, "two objects")
        return examine(path)

    monkeypatch.setattr(databases, "examine", awaiting)
    assert back_up()[0] == 0
    assert len(sent_parts(store)) == 3


@pytest.mark.parametrize("sent", ["parts", "objects"])
@pytest.mark.parametrize("damaged", ["mlflow.db", "basic_auth.db"])
def test_what_was_sent_is_removed_where_a_database_is_not_sound(
    back_up, store, root, unsound, damaged, sent
):
    large(root)
    there = {"parts": lambda: sent_parts(store), "objects": lambda: len(store.listing()) == 2}
    unsound(damaged, there[sent])
    code, out = back_up()
    assert code == 1
    assert out.startswith("@fail No backup was made, and earlier ones stay: ")
    assert (store.listing(), unfinished(store)) == ([], [])
    assert list((root / "backups").iterdir()) == []


def test_where_it_cannot_be_removed_it_is_no_backup(back_up, store, unsound):
    store.refuse("DELETE .*")
    unsound("mlflow.db", lambda: len(store.listing()) == 2)
    code, out = back_up()
    assert (code, out.count("@")) == (1, 1)
    assert "row 7" in out
    assert [key.rpartition("/")[2] for key in store.listing()] == [
        "basic_auth.db.zst", "mlflow.db.zst",
    ]  # fmt: skip


def test_what_can_be_removed_is_where_something_cannot(back_up, store, unsound):
    store.refuse("DELETE .*basic_auth.*")
    unsound("mlflow.db", lambda: len(store.listing()) == 2)
    assert back_up()[0] == 1
    assert [key.rpartition("/")[2] for key in store.listing()] == ["basic_auth.db.zst"]


def test_a_store_that_fails_is_not_asked_to_remove_anything(back_up, store):
    store.refuse("PUT .*configuration.tar.gz.enc", "InternalError", 500)
    assert back_up()[0] == 1
    assert len(store.listing()) == 2
    assert not any(request.startswith("DELETE") for request in store.requests)


def test_a_backup_whose_second_database_cannot_be_sent_ends(back_up, store, root, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    large(root)
    submit, begun = ThreadPoolExecutor.submit, []

    def refuse_the_second(self: Any, work: Any, *words: Any, **options: Any) -> Any:
        if work.__name__ == "send_packed":
            begun.append(work)
            if len(begun) == 2:
                raise OSError("can't start new thread")
        return submit(self, work, *words, **options)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse_the_second)
    code, out = back_up()
    assert (code, len(begun)) == (1, 2)
    assert "No backup was made; earlier ones stay" in out
    assert (store.listing(), unfinished(store)) == ([], [])


def test_a_full_disk_is_noticed_before_a_database_becomes_an_object(back_up, store, monkeypatch):
    known = open

    def full(path: Any, *words: Any, **options: Any) -> Any:
        if str(path).endswith("configuration.tar.gz.enc"):
            raise OSError(28, "No space left on device")
        return known(path, *words, **options)

    monkeypatch.setattr("builtins.open", full)
    code, out = back_up()
    assert (code, "No space left on device" in out) == (1, True)
    assert store.listing() == []


def test_damage_is_told_though_zstd_is_still_at_work(back_up, store, tmp_path, monkeypatch):
    import databases

    zstd = tmp_path / "bin/zstd"
    zstd.parent.mkdir()
    zstd.write_text("#!/bin/sh\nexec sleep 60\n")
    zstd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{zstd.parent}:{os.environ['PATH']}")
    damaged = databases.Damaged("the database mlflow.db is damaged: row 7")
    monkeypatch.setattr(databases, "examine", Mock(side_effect=damaged))
    began = time.monotonic()
    code, out = back_up()
    assert (code, "row 7" in out) == (1, True)
    assert time.monotonic() - began < 30
    assert store.listing() == []


@pytest.mark.parametrize("megabytes", [0, 20])
def test_what_zstd_could_not_pack_does_not_become_an_object(
    back_up, store, root, tmp_path, monkeypatch, megabytes
):
    if megabytes:
        large(root, megabytes)
    zstd = tmp_path / "bin/zstd"
    zstd.parent.mkdir()
    zstd.write_text('#!/bin/sh\nhead -c 18000000 "$4"\nexit 3\n')
    zstd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{zstd.parent}:{os.environ['PATH']}")
    code, out = back_up()
    assert code == 1
    assert re.match(r"@fail zstd could not pack .+\.db \(3\)\. Type \./fab backup again\.", out)
    assert (store.listing(), unfinished(store)) == ([], [])


def test_a_database_of_any_size_has_no_more_parts_than_s3_takes():
    import packed

    for most in (0, 1 << 30, 1 << 40, 5 << 40):
        part = packed.transfer(most).multipart_chunksize
        assert part >= 8 << 20
        assert most / part < 9_500


def test_a_file_that_is_no_database_sends_nothing(back_up, store, root):
    (root / "basic_auth.db").write_text("this is no database" * 99)
    code, out = back_up()
    assert code == 1
    assert out.startswith("@fail A database cannot be read: file is not a database")
    assert store.listing() == []


@pytest.mark.parametrize("refused", ["mlflow.db.zst", "configuration.tar.gz.enc"])
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


def test_a_store_that_is_silent_to_the_end_is_one_line(back_up, store, monkeypatch):
    def silent(*_: Any, **__: Any) -> None:
        raise exceptions.ConnectionClosedError(endpoint_url=store.url)

    monkeypatch.setattr("botocore.httpsession.URLLib3Session.send", silent)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    code, out = back_up()
    assert code == 1
    *_, last = out.splitlines()
    assert last.startswith("@fail The backup could not be sent, and earlier ones stay: Connection")
    # To configure would look no further than at its settings, which are as they were.
    assert last.endswith(f'URL: "{store.url}". See why: ./fab doctor')


def test_a_refused_manifest_names_the_permissions(back_up, store):
    store.refuse("PUT .*manifest.json")
    code, out = back_up()
    assert code == 1
    assert "Allow s3:PutObject, s3:GetObject and s3:ListBucket there" in out


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("postgresql+psycopg2://u:hidden-word@127.0.0.1:9/d", "PostgreSQL cannot be asked: "),
        ("postgresql+nothing://u:hidden-word@h/d", "PostgreSQL cannot be asked: "),
    ],
)
def test_a_postgresql_that_cannot_be_asked_is_one_line(back_up, store, root, uri, said):
    (root / "server.env").write_text(f"MLFLOW_BACKEND_STORE_URI='{uri}'\n")
    code, out = back_up()
    assert code == 1
    assert out.startswith(f"@fail No backup was made, and earlier ones stay: {said}")
    assert out.count("\n") == 1
    assert "hidden-word" not in out
    assert store.listing() == []


def test_a_full_disk_is_named_before_anything_is_copied(back_up, store, root, monkeypatch):

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
    assert "@warn mlflow.db: 1 row with a reference to what is gone\n" in out
