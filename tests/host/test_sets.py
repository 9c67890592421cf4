"""A backup set: made, sent and read back; found, checked and brought back again."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import tarfile
import threading
import time
import types
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from host_side import (
    HOST,
    KEY,
    RELEASE,
    Store,
    execute,
    place_in,
    rows,
    signed,
    vouching,
)

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
    assert reported(back_up()[1])["id"].endswith(f"-{first.strip()}")
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


def large(root: Path, megabytes: int = 20) -> None:
    """Give the tracking database content that zstd cannot make smaller."""
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute("create table noise (body blob)")
        body = [(os.urandom(1 << 20),) for _ in range(megabytes)]
        database.executemany("insert into noise values (?)", body)


def unfinished(store: Store) -> list[Any]:
    found: list[Any] = store.client().list_multipart_uploads(Bucket="my-bucket").get("Uploads", [])
    return found


def until_sent(store: Store) -> None:
    """Wait for the first part of a file."""
    deadline = time.monotonic() + 20
    while not sent_parts(store) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sent_parts(store)


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


def test_parts_are_on_their_way_while_the_check_is_made(back_up, store, root, monkeypatch):
    import databases

    large(root)
    examine = databases.examine

    def awaiting(path: str) -> Any:
        until_sent(store)
        assert store.listing() == []
        return examine(path)

    monkeypatch.setattr(databases, "examine", awaiting)
    assert back_up()[0] == 0


@pytest.mark.parametrize("damaged", ["mlflow.db", "basic_auth.db"])
def test_no_database_becomes_an_object_unless_all_are_sound(
    back_up, store, root, monkeypatch, damaged
):
    import databases

    large(root)
    examine = databases.examine

    def sound(path: str) -> Any:
        if os.path.basename(path) == damaged:
            until_sent(store)
            raise databases.Damaged(f"the database {damaged} is damaged: row 7")
        return examine(path)

    monkeypatch.setattr(databases, "examine", sound)
    code, out = back_up()
    assert code == 1
    assert out.startswith("@fail Nothing was sent, and earlier backups stay: ")
    assert (store.listing(), unfinished(store)) == ([], [])
    assert list((root / "backups").iterdir()) == []


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
    assert out.startswith(f"@fail Nothing was sent, and earlier backups stay: {said}")
    assert out.count("\n") == 1
    assert "hidden-word" not in out
    assert store.listing() == []


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
    assert "@warn mlflow.db: 1 row with a reference to what is gone\n" in out


# -- sets.py -----------------------------------------------------------------------------------

PLACE = "mlflow-backups/default/"


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HOST))
    return importlib.import_module("sets")


@pytest.fixture
def backups(sets: Any, store: Store, backup_key: str) -> Any:
    """All backups of this environment, as the host's programs see them."""
    talk = importlib.import_module("talk")
    return sets.Sets(talk.Place(**place_in(store)))


@pytest.fixture
def made(back_up: Any) -> str:
    """The id of a set that was made of the server's folder."""
    code, out = back_up()
    assert code == 0, out
    return reported(out)["id"]


def put(store: Store, id: str, name: str, body: bytes = b"x") -> None:
    store.client().put_object(Bucket="my-bucket", Key=f"{PLACE}{id}/{name}", Body=body)


def manifest(store: Store, id: str) -> dict[str, Any]:
    return json.loads(store.body(f"{PLACE}{id}/manifest.json"))


def claim(store: Store, id: str, **values: Any) -> None:
    """Have a set's manifest say something else."""
    put(store, id, "manifest.json", signed(manifest(store, id) | values, id))


def copy(store: Store, id: str, to: str, **values: Any) -> str:
    """Make the same set once more under another id."""
    for entry in manifest(store, id)["files"]:
        put(store, to, entry["name"], store.body(f"{PLACE}{id}/{entry['name']}"))
    put(store, to, "manifest.json", signed(manifest(store, id) | values, to))
    return to


def holding(store: Store, id: str, runs: int) -> dict[str, Any]:
    """What a set's manifest says of its databases, with another number of runs."""
    seen = manifest(store, id)["databases"]
    seen["mlflow.db"]["counts"]["runs"] = runs
    return {"databases": seen}


def replace(store: Store, id: str, name: str, body: bytes) -> None:
    """Put other bytes into a set and have its manifest say so, as if it had been made of them."""
    files = manifest(store, id)["files"]
    for entry in files:
        if entry["name"] == name:
            entry |= {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    put(store, id, name, body)
    claim(store, id, files=files)


OLD, NEW = "20250101T000000Z-aaaaaaaa", "20990101T000000Z-bbbbbbbb"


def test_complete_sets_are_listed_newest_first_whatever_their_ids(backups, store, made):
    copy(store, made, OLD, made="2099-01-01T00:00:00+00:00")
    copy(store, made, NEW, made="2020-01-01T00:00:00+00:00")
    found = backups.complete()
    assert [each["id"] for each in found] == [OLD, made, NEW]
    assert found[0]["place"] == f"s3://my-bucket/{PLACE}{OLD}/"
    assert found[0]["verified"] is None


def test_a_folder_without_a_manifest_is_no_backup(backups, store, made):
    copy(store, made, NEW)
    store.client().delete_object(Bucket="my-bucket", Key=f"{PLACE}{NEW}/manifest.json")
    assert [each["id"] for each in backups.complete()] == [made]


def test_what_verify_left_comes_with_the_set(backups, store, made):
    (found,) = backups.complete()
    note = {"at": "2026-11-24T00:00:00+00:00", "seconds": 9}
    backups.put(made, "verified.json", note)
    assert backups.complete()[0]["verified"] is None, "nobody vouches for it"
    backups.note(made, found["digest"], note)
    (found,) = backups.complete()
    assert found["verified"]["seconds"] == 9
    head = store.client().head_object(Bucket="my-bucket", Key=f"{PLACE}{made}/verified.json")
    assert "ServerSideEncryption" not in head


def test_other_environments_and_what_lies_beside_the_sets_is_not_theirs(backups, store, made):
    client = store.client()
    for key in (
        "mlflow-backups/staging/20260101T000000Z-x/manifest.json",
        "mlflow-backups/default-2/20260101T000000Z-x/manifest.json",
        f"{PLACE}stream/mlflow.db/ltx/0/manifest.json",
        f"{PLACE}stream/manifest.json",
        f"{PLACE}notes/why.txt",
        f"{PLACE}manifest.json",
    ):
        client.put_object(Bucket="my-bucket", Key=key, Body=b"{}")
    assert set(backups.folders()) == {made}
    assert [each["id"] for each in backups.complete()] == [made]


@pytest.mark.parametrize("body", [b"{", b"[]", b""])
def test_one_set_whose_manifest_is_damaged_does_not_hide_the_others(
    backups, store, made, capsys, body
):
    put(store, NEW, "manifest.json", body)
    assert [each["id"] for each in backups.complete()] == [made]
    assert capsys.readouterr().out == (
        f"@warn The backup {NEW} is damaged, and left alone: its manifest.json says nothing.\n"
    )


def test_of_many_damaged_ones_few_are_named(backups, store, made, capsys):
    for number in range(9):
        put(store, f"2999010{number}T000000Z-x", "manifest.json", b"{")
    assert [each["id"] for each in backups.complete()] == [made]
    *named, more = capsys.readouterr().out.splitlines()
    assert len(named) == 3
    assert more == "@warn damaged and left alone as well: 6 more"


def test_a_note_of_a_verification_that_is_damaged_counts_as_none(backups, store, made):
    put(store, made, "verified.json", b"{")
    assert backups.complete()[0]["verified"] is None


def test_a_set_that_is_deleted_while_it_is_listed_is_none(backups, store, made, monkeypatch):
    listed = backups.folders()
    backups.delete(made, listed[made])
    assert backups.complete(listed) == []


def test_a_file_is_fetched_whole_or_not_at_all(backups, store, made, tmp_path, capsys):
    (found,) = backups.complete()
    backups.fetch(found, "mlflow.db.zst", str(tmp_path / "a"))
    body = store.body(f"{PLACE}{made}/mlflow.db.zst")
    assert (tmp_path / "a").read_bytes() == body
    flipped = bytearray(body)
    flipped[len(body) // 2] ^= 1
    put(store, made, "mlflow.db.zst", bytes(flipped))
    with pytest.raises(SystemExit):
        backups.fetch(found, "mlflow.db.zst", str(tmp_path / "b"))
    assert capsys.readouterr().out == (
        f"@fail The backup {made} is damaged: mlflow.db.zst is not what was sent (SHA-256). "
        "Choose another: ./fab backup.list\n"
    )
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["a"]


def test_a_file_that_is_missing_is_named(backups, store, made, tmp_path, capsys):
    (found,) = backups.complete()
    store.client().delete_object(Bucket="my-bucket", Key=f"{PLACE}{made}/basic_auth.db.zst")
    with pytest.raises(SystemExit):
        backups.fetch(found, "basic_auth.db.zst", str(tmp_path / "a"))
    assert capsys.readouterr().out == (
        f"@fail The backup {made} is damaged: basic_auth.db.zst is missing. "
        "Choose another: ./fab backup.list\n"
    )


def test_a_set_is_deleted_with_its_manifest_first(backups, store, made):
    store.requests.clear()
    backups.delete(made, backups.folders()[made])
    gone = [request for request in store.requests if request.startswith("DELETE")]
    assert gone[0] == f"DELETE /my-bucket/{PLACE}{made}/manifest.json"
    assert len(gone) == 4
    assert store.listing() == []


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("20250101T000000Z-aaaaaaab", f" Did you mean {OLD}?"),
        ("20250101", f" Did you mean {OLD}?"),
        ("?", ""),
    ],
)
def test_a_wrong_id_names_the_nearest(sets, capsys, asked, hint):
    found = [{"id": NEW}, {"id": OLD}]
    assert sets.named(found, NEW) is found[0]
    with pytest.raises(SystemExit):
        sets.named(found, asked)
    assert capsys.readouterr().out == (
        f"@fail There is no complete backup {asked}.{hint} See them all: ./fab backup.list\n"
    )


def test_the_newest_of_none_says_how_to_make_one(sets, capsys):
    assert sets.newest([1, 2]) == 1
    with pytest.raises(SystemExit):
        sets.newest([])
    assert capsys.readouterr().out.endswith("Make one: ./fab backup\n")


FIRST_KIND = {"databases": {"mlflow.db": {"revisions": ["r1"], "count": 4}}, "release": "3.16.0-ab"}


def test_sets_of_both_kinds_are_counted(sets):
    new = {"databases": {"mlflow.db": {"counts": {"runs": 5}}}, "version": "3.17.2"}
    assert sets.count(new, "mlflow.db", "runs") == 5
    assert sets.count(FIRST_KIND, "mlflow.db", "runs") == 4
    assert sets.count(new, "basic_auth.db", "users") == 0
    assert (sets.version(new), sets.version(FIRST_KIND)) == ("3.17.2", "3.16.0")


# -- choose_set.py -----------------------------------------------------------------------------


@pytest.fixture
def choose(store: Store, root: Path, run_program: Any) -> Any:
    def run(id: str = "", key: str = "") -> Any:
        code, out = run_program("choose_set.py", place=place_in(store), root=root, id=id, key=key)
        return out if code else reported(out)

    return run


def test_a_restore_takes_the_newest_set_that_has_runs(choose, store, made):
    """A new host's own first backup is empty, and must not hide the others."""
    copy(store, made, OLD, made="2025-01-01T00:00:00+00:00", **holding(store, made, 9))
    copy(store, made, NEW, made="2099-01-01T00:00:00+00:00", **holding(store, made, 0))
    assert choose()["set"]["id"] == made
    assert choose(NEW)["set"]["runs"] == 0
    assert choose(OLD)["set"]["runs"] == 9


def unsigned(store: Store, id: str, **values: Any) -> str:
    """Make it a set that nobody vouches for."""
    told = {k: v for k, v in manifest(store, id).items() if k not in ("id", "key", "signature")}
    put(store, id, "manifest.json", json.dumps(told | values).encode())
    return id


def test_a_newer_one_that_nobody_vouches_for_is_left_alone_and_named(
    choose, store, made, root, run_program
):
    unsigned(store, copy(store, made, NEW), made="2099-01-01T00:00:00+00:00")
    code, out = run_program("choose_set.py", place=place_in(store), root=root)
    assert code == 0
    assert out.startswith(f"@warn a newer one is left alone. Nobody vouches for the backup {NEW}")
    assert (reported(out)["set"]["id"], reported(out)["doubt"]) == (made, "")
    assert choose(NEW)["doubt"].startswith(f"Nobody vouches for the backup {NEW}")


def test_where_another_key_signed_all_it_is_named(choose, store, made):
    other = vouching().Key("cd" * 32).id
    told = manifest(store, made)
    put(store, made, "manifest.json", signed(told, made, "cd" * 32))
    found = choose()
    assert (found["set"]["id"], found["keys"]) == (made, [other])
    assert f"was signed by the backup key {other}" in found["doubt"]
    assert choose(key="cd" * 32)["doubt"] == ""


def test_any_number_of_made_up_keys_hides_none(choose, store, made):
    put(store, made, "manifest.json", signed(manifest(store, made), made, "cd" * 32))
    for number in range(30):
        id = copy(store, made, f"299901{number:02}T000000Z-x")
        told = manifest(store, made) | {"id": id, "key": f"{number:08x}"}
        put(store, id, "manifest.json", json.dumps(told).encode())
    assert vouching().Key("cd" * 32).id in choose()["keys"]


@pytest.mark.parametrize("task", ["choose", "verify"])
def test_a_last_backup_that_is_gone_is_told(
    store, root, made, back_up, run_program, verify, backups, task
):
    last = reported(back_up()[1])["id"]

    def out() -> str:
        if task == "verify":
            return verify()[1]
        return run_program("choose_set.py", place=place_in(store), root=root)[1]

    assert "is not in the bucket any more" not in out()
    told = store.body(f"{PLACE}{last}/manifest.json")
    unsigned(store, last)
    warned = f"@warn the last backup that this host made, {last}, is not in the bucket any more"
    assert warned in out(), "its signature was taken away"
    backups.delete(last, backups.folders()[last])
    assert warned in out()
    put(store, last, "manifest.json", told)
    assert warned not in out()


def test_where_no_set_has_runs_it_is_the_newest(choose, store, made):
    claim(store, made, **holding(store, made, 0))
    copy(store, made, OLD, made="2025-01-01T00:00:00+00:00")
    assert choose()["set"]["id"] == made


def test_it_is_told_what_would_replace_what(choose, root, made):
    execute(root / "mlflow.db", "insert into runs values ('late', 5000, 'active')")
    found = choose()
    assert found["present"] == {"runs": 4, "newest_run": 5000}
    size, moment = found["set"].pop("bytes"), found["set"].pop("made")
    assert size > 0
    assert moment.startswith(f"{made[:4]}-{made[4:6]}-{made[6:8]}T")
    assert found["set"] == {
        "id": made, "host": socket.gethostname(), "version": "3.17.2",
        "runs": 3, "users": 1, "newest_run": 1002,
    }  # fmt: skip


@pytest.mark.parametrize("content", [None, "this is no database" * 99])
def test_what_is_there_now_need_not_be_readable(choose, root, made, content):
    (root / "mlflow.db").unlink()
    if content:
        (root / "mlflow.db").write_text(content)
    assert choose()["present"] is None
    assert (root / "mlflow.db").exists() is (content is not None)


def test_a_set_of_the_first_kind_can_be_chosen(choose, store, root):
    first_kind(store, root, OLD)
    found = choose()["set"]
    assert (found["id"], found["runs"], found["users"]) == (OLD, 3, 1)
    assert (found["version"], found["newest_run"]) == ("3.17.2", None)


def test_without_any_set_it_says_where_it_looked(choose):
    assert choose() == (
        "@fail There is no complete backup under s3://my-bucket/mlflow-backups/default/. Check "
        "`bucket:` and `backup_prefix:`, or make one: ./fab backup\n"
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("NoSuchBucket", "The bucket does not exist."),
        ("AccessDenied", "The bucket refuses the host to ListObjectsV2 (AccessDenied)."),
    ],
)
def test_what_s3_refuses_is_one_line(choose, store, code, said):
    store.refuse("GET", code)
    out = choose()
    assert out.startswith(f"@fail {said}")
    assert out.count("\n") == 1


# -- fetch_set.py ------------------------------------------------------------------------------


def first_kind(store: Store, root: Path, id: str) -> None:
    """Put a set as the project's first releases made it: packed with gzip, one count each."""
    bodies = {
        f"{name}.gz": gzip.compress(file_of(root / name)) for name in ("mlflow.db", "basic_auth.db")
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(root / "server.env", "server.env")
    bodies["configuration.tar.gz"] = packed.getvalue()
    for name, body in bodies.items():
        put(store, id, name, body)
    told = {
        "made": "2026-01-01T00:00:00+00:00", "host": "ip-10-0-0-1", "release": "3.17.2-abc",
        "databases": {
            "mlflow.db": {"revisions": ["r1"], "count": 3},
            "basic_auth.db": {"revisions": ["a1"], "count": 1},
        },
        "files": [
            {"name": name, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            for name, body in bodies.items()
        ],
    }  # fmt: skip
    put(store, id, "manifest.json", json.dumps(told).encode())


def file_of(database: Path) -> bytes:
    """Return a database as one file."""
    with contextlib.closing(sqlite3.connect(database)) as base:
        base.execute("vacuum into ?", (str(database) + ".one",))
    try:
        return Path(f"{database}.one").read_bytes()
    finally:
        Path(f"{database}.one").unlink()


@pytest.fixture
def fetch(store: Store, root: Path, run_program: Any) -> Any:
    def run(id: str = "", **more: Any) -> tuple[int, str]:
        folder = root / "next.part"
        return run_program(
            "fetch_set.py", place=place_in(store), root=root, folder=folder, id=id, **more
        )

    return run


def refused(done: tuple[int, str]) -> str:
    code, out = done
    assert code == 1
    assert out.startswith("@fail ")
    assert out.count("\n") == 1
    return out.removeprefix("@fail ").rstrip()


def test_a_set_is_laid_out_ready_to_be_served_and_nothing_else_is_touched(fetch, root, made):
    before = sorted(os.listdir(root))
    execute(root / "mlflow.db", "delete from runs")
    code, out = fetch(made)
    assert code == 0
    done = reported(out)
    assert (done["id"], done["runs"], done["users"]) == (made, 3, 1)
    assert done["release"] == RELEASE
    folder = root / "next.part"
    assert sorted(os.listdir(folder)) == [".server-id", "basic_auth.db", "mlflow.db", "server.env"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert rows(folder / "mlflow.db", "select count(*) from runs") == [(3,)]
    assert (folder / ".server-id").read_text() == (root / ".server-id").read_text()
    assert sorted(set(os.listdir(root)) - {"next.part"}) == before
    assert rows(root / "mlflow.db", "select count(*) from runs") == [(0,)]


def test_without_an_id_it_is_the_newest(fetch, store, made):
    copy(store, made, OLD, made="2025-01-01T00:00:00+00:00")
    assert reported(fetch()[1])["id"] == made


def test_the_set_s_key_comes_and_this_host_s_place_stays(fetch, root, made):
    mine = "# Made once\nMLFLOW_BACKEND_STORE_URI='sqlite:////here/mlflow.db'\n"
    (root / "server.env").write_text(f"{mine}MLFLOW_FLASK_SERVER_SECRET_KEY=mine\nOTHER=1\n")
    assert fetch(made)[0] == 0
    assert (root / "next.part/server.env").read_text() == (
        f"{mine}MLFLOW_FLASK_SERVER_SECRET_KEY=abc\nOTHER=1\n"
    )


def test_a_set_of_the_first_kind_is_restored_too(fetch, store, root):
    first_kind(store, root, OLD)
    assert refused(fetch(OLD)).startswith(f"Nobody vouches for the backup {OLD}: it is from before")
    code, out = fetch(OLD, unsigned=True)
    assert code == 0, out
    assert (reported(out)["runs"], reported(out)["users"]) == (3, 1)
    folder = root / "next.part"
    assert sorted(os.listdir(folder)) == ["basic_auth.db", "mlflow.db", "server.env"]
    assert rows(folder / "mlflow.db", "select count(*) from runs") == [(3,)]


def test_a_database_of_other_rows_than_its_manifest_says_is_refused(fetch, store, made):
    claim(store, made, **holding(store, made, 4))
    assert refused(fetch(made)) == (
        f"The backup {made} is not what its manifest says: mlflow.db has other rows in runs. "
        "Choose another: ./fab backup.list"
    )


def test_a_flipped_byte_is_refused(fetch, store, made):
    body = bytearray(store.body(f"{PLACE}{made}/basic_auth.db.zst"))
    body[20] ^= 1
    put(store, made, "basic_auth.db.zst", bytes(body))
    assert "basic_auth.db.zst is not what was sent (SHA-256)" in refused(fetch(made))


def test_what_cannot_be_unpacked_is_refused(fetch, store, made):
    replace(store, made, "mlflow.db.zst", b"no archive")
    assert "mlflow.db.zst cannot be unpacked: " in refused(fetch(made))


def test_a_damaged_database_is_refused_although_it_is_what_was_sent(fetch, store, made):
    packed = subprocess.run(["zstd", "-q"], input=b"no database" * 99, capture_output=True).stdout
    replace(store, made, "mlflow.db.zst", packed)
    assert refused(fetch(made)) == (
        f"The backup {made} is of no use: the database mlflow.db cannot be read: file is not a "
        "database. Choose another: ./fab backup.list"
    )


def made_by_newer(store: Store, id: str) -> None:
    seen = manifest(store, id)["databases"]
    seen["mlflow.db"]["revision"] = "r9"
    claim(store, id, databases=seen, release="3.18.0-def", version="3.18.0")


def test_a_set_of_a_newer_mlflow_is_refused_before_anything_is_fetched(fetch, store, root, made):
    made_by_newer(store, made)
    assert refused(fetch(made)) == (
        f"The backup {made} was made by MLflow 3.18.0, which is newer than the host's. Type: "
        "./fab upgrade --to 3.18.0, then run the same command again."
    )
    assert not (root / "next.part").exists()


@pytest.mark.parametrize(("stamp", "taken"), [(True, True), (False, False)])
def test_on_the_side_the_release_that_made_a_set_may_serve_it(
    fetch, store, root, made, stamp, taken
):
    made_by_newer(store, made)
    newer = root / "releases/3.18.0-def"
    shutil.copytree(root / "releases" / RELEASE, newer)
    (versions,) = newer.glob("lib/python3*/site-packages/mlflow/store/db_migrations/versions")
    (versions / "r9.py").write_text('revision = "r9"\ndown_revision = "r1"\n')
    if stamp:
        (newer / ".complete").touch()
    assert (fetch(made, aside=True)[0] == 0) is taken
    assert fetch(made)[0] == 1, "in place of the server only what it can read"


def test_a_set_that_needs_more_room_than_there_is_names_both(fetch, store, root, made, monkeypatch):
    seen = manifest(store, made)["databases"]
    seen["mlflow.db"]["bytes"] = 4_000_000_000
    claim(store, made, databases=seen)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=3.95e9))
    assert refused(fetch(made)) == (
        f"Restoring {made} needs 4.1 GB of room on the host, and 4.0 are free. Free some, then "
        "run the same command again."
    )
    assert not (root / "next.part").exists()


def test_a_set_of_the_other_kind_of_database_is_refused(fetch, store, made, root):
    text = (root / "server.env").read_text()
    uri = "postgresql+psycopg2://u@h/d"
    (root / "server.env").write_text(f"{text}MLFLOW_BACKEND_STORE_URI='{uri}'\n")
    assert "is of SQLite databases, and this server is on PostgreSQL" in refused(fetch(made))
    (root / "server.env").write_text(text)
    seen = manifest(store, made)["databases"]
    seen["mlflow.db"]["kind"] = "postgresql"
    claim(store, made, databases=seen)
    assert "is of PostgreSQL databases, and this server is on SQLite" in refused(fetch(made))


# -- verify_set.py -----------------------------------------------------------------------------

# Plays the Python of a release: says which it is, and reports as migrate.py and try_server.py do.
PYTHON = """#!/bin/bash
echo "$(basename "$(dirname "$(dirname "$0")")") $(basename "$1") $2" >> "$HOME/called"
case $1 in
  *migrate.py) [ ! -e "$HOME/bad" ] || { echo "@fail it broke"; exit 1; } ;;
esac
echo '@report {"migrated": []}'
"""


@pytest.fixture
def verify(
    store: Store, root: Path, run_program: Any, backup_key: str, monkeypatch: pytest.MonkeyPatch
) -> Any:
    key = Path(os.environ["REMOTE_MLFLOW_BACKUP_KEY_FILE"])
    for release in (RELEASE, "3.18.0-def"):
        python = root / "releases" / release / "bin/python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(PYTHON)
        python.chmod(0o755)
        (root / "releases" / release / ".complete").touch()

    def run(id: str = "", **more: Any) -> tuple[int, str, list[str]]:
        folder = root / "backups/verifying"
        # The program forgets where the key is, here for all that follow it in this process.
        monkeypatch.setenv("REMOTE_MLFLOW_BACKUP_KEY_FILE", str(key))
        code, out = run_program(
            "verify_set.py", place=place_in(store), root=root, folder=folder, id=id, **more
        )
        called = root.parent / "called"
        return code, out, called.read_text().splitlines() if called.exists() else []

    return run


def test_a_set_is_verified_by_the_release_that_made_it_and_that_is_noted(
    verify, backups, root, made
):
    (root / "venv").unlink()
    (root / "venv").symlink_to("releases/3.18.0-def")
    code, out, called = verify(made)
    folder = root / "backups/verifying"
    assert called == [f"{RELEASE} migrate.py folder={folder}",
                      f"{RELEASE} try_server.py folder={folder}"]  # fmt: skip
    assert out.startswith(f"@say serve {made} on the side with MLflow 3.17.2\n")
    done = reported(out)
    assert (code, done["id"], done["runs"], done["users"]) == (0, made, 3, 1)
    (found,) = backups.complete()
    assert found["verified"] == {
        "at": done["at"], "seconds": done["seconds"], "by": socket.gethostname(),
        "id": made, "of": found["digest"], "key": found["key"],
        "signature": found["verified"]["signature"],
    }  # fmt: skip


@pytest.mark.parametrize("gone", ["", ".complete"])
def test_where_that_is_gone_it_is_the_present_release(verify, backups, root, made, gone):
    present = root / "releases/3.18.0-def"
    shutil.copytree(root / "releases" / RELEASE / "lib", present / "lib")
    (root / "venv").unlink()
    (root / "venv").symlink_to(f"releases/{present.name}")
    lost = root / "releases" / RELEASE / gone
    if gone:
        lost.unlink()
    else:
        shutil.rmtree(lost)
    _, _, called = verify()
    assert [line.split()[:2] for line in called] == [
        [present.name, "migrate.py"], [present.name, "try_server.py"],
    ]  # fmt: skip


def test_a_set_that_fails_is_never_noted_as_verified(verify, backups, root, made):
    (root.parent / "bad").touch()
    code, out, called = verify()
    assert (code, out.splitlines()[-1]) == (1, "@fail it broke")
    assert [line.split()[1] for line in called] == ["migrate.py"]
    (found,) = backups.complete()
    assert found["verified"] is None


def test_a_set_that_nobody_vouches_for_is_not_served_on_the_side(verify, store, made):
    unsigned(store, made)
    code, out, called = verify()
    assert (code, called) == (1, [])
    assert out.endswith(f"./fab backup.verify --id {made} --unsigned\n")
    code, out, called = verify(made, unsigned=True)
    assert (code, len(called)) == (0, 2)


def test_a_timer_has_nothing_to_verify_until_the_first_signed_backup(
    verify, store, root, made, backups
):
    unsigned(store, made)
    (root / ".backup").write_text(f"1 {made}\n")  # as before there was a key
    code, out, called = verify(timer=True)
    assert (code, called) == (0, [])
    assert out == (
        "@warn no backup is signed yet, so none was verified; the next one will be\n@report null\n"
    )
    (root / ".backup").write_text(f"1 {made} {vouching().Key(KEY).id}\n")
    code, out, called = verify(timer=True)
    assert (code, called) == (1, []), "there was a signed one"
    assert out.endswith("Type: ./fab doctor\n")


def test_what_is_served_on_the_side_does_not_know_where_the_key_is(verify, made, root):
    for release in (root / "releases").glob("*/bin/python"):
        release.write_text(PYTHON + '\nenv >> "$HOME/env"\n')
    assert verify()[0] == 0
    assert "BACKUP_KEY" not in (root.parent / "env").read_text()


def test_backups_use_keys_of_their_own_where_there_are_some(back_up, store, root, monkeypatch):
    """As systemd or a script lays them; the server's own are none that the store would take."""
    file = root.parent / "aws"
    file.write_text("[default]\naws_access_key_id = b%ckup\naws_secret_access_key = hidden\n")
    monkeypatch.setenv("REMOTE_MLFLOW_BACKUP_AWS", str(file))
    talk = importlib.import_module("talk")
    client = talk.backups_client(talk.Place(**place_in(store)))
    assert client._request_signer._credentials.access_key == "b%ckup"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert back_up()[0] == 0
