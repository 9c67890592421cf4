"""A backup set: found, checked and brought back again."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import io
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import tarfile
import types
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions
from host_side import (
    HOST,
    KEY,
    PLACE,
    RELEASE,
    execute,
    place_in,
    put,
    reported,
    rows,
    signed,
    vouching,
)
from store_side import Store

from tasks.backup import LOOK_TIMEOUT
from tasks.engine.server import TIMEOUT

# -- sets.py -----------------------------------------------------------------------------------


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


def test_a_store_that_is_asked_again_is_told_once(backups, store, capsys):
    talk = importlib.import_module("talk")
    place = talk.Place(**place_in(store))
    client = talk.backups_client(place, user_agent_extra="nobody-else-s")
    store.refuse("GET", "SlowDown", 503, times=3)
    for _ in range(2):
        client.list_objects_v2(Bucket=place.bucket)
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("@warn the store answers ListObjectsV2 with 503; it is asked again")


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (exceptions.ReadTimeoutError(endpoint_url="http://s3"), True),
        (exceptions.ConnectTimeoutError(endpoint_url="http://s3"), True),
        (exceptions.ConnectionClosedError(endpoint_url="http://s3"), True),
        (exceptions.HTTPClientError(error="of what is sent"), False),
        (None, False),
    ],
)
def test_only_a_store_that_is_silent_is_told_to_be(backups, capsys, error, is_told):
    patience = importlib.import_module("talk").Patience()
    for _ in range(2):
        patience(types.SimpleNamespace(name="PutObject"), None, caught_exception=error)
    said = "@warn the store does not answer; it is asked again, which may take minutes\n"
    assert capsys.readouterr().out == said * is_told


def test_a_look_at_backups_ends_before_the_task_that_waits_for_it(backups):
    """Or it would say no more than that the host did not finish."""
    config = backups.s3.meta.config
    attempts = config.retries["total_max_attempts"]
    waits = sum(min(2**n, 20) for n in range(attempts - 1))  # botocore's longest, in standard mode
    longest = max(config.read_timeout, config.connect_timeout)
    assert attempts * longest + waits < LOOK_TIMEOUT - TIMEOUT
