"""Streams are chosen, and brought back, by the host's own programs, against moto.

What Litestream does with its files is for the end-to-end tests: here a script plays it.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from host_side import KEY, execute, place_in, rows, tracking_database, vouching
from moto.s3.models import s3_backends
from store_side import Store

MINE, OTHER = "aaaaaaaa", "bbbbbbbb"
NOON = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
PLACE = "mlflow-backups/default/stream/"
NAMES = ("mlflow.db", "basic_auth.db")
Run = Callable[..., tuple[int, dict[str, Any] | str]]


def at(seconds: float) -> str:
    """Spell a moment so long after noon."""
    return f"{NOON + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture
def stream(store: Store) -> Callable[..., str]:
    """Lay out a stream whose transactions were sent so many seconds after noon, the first whole."""

    def lay(server: str, *moments: float, names: tuple[str, ...] = NAMES) -> str:
        began = f"{NOON + timedelta(seconds=moments[0]):%Y%m%dT%H%M%SZ}"
        objects = s3_backends[next(iter(s3_backends))]["aws"].buckets["my-bucket"].keys
        for name in names:
            for number, moment in enumerate(moments, 1):
                key = f"{PLACE}{server}/{began}/{name}/0000/{number:016x}-{number:016x}.ltx"
                body = struct.pack(">4sIII", b"LTX1", 0, 4096, 10) + bytes(84)
                store.client().put_object(Bucket="my-bucket", Key=key, Body=body)
                objects[key].last_modified = (NOON + timedelta(seconds=moment)).replace(tzinfo=None)
        return f"{server}/{began}"

    return lay


@pytest.fixture
def run(store: Store, root: Path, run_program: Any) -> Run:
    (root / ".server-id").write_text(MINE + "\n")

    def ran(name: str, **request: Any) -> tuple[int, dict[str, Any] | str]:
        code, out = run_program(name, place=place_in(store), root=root, **request)
        last = out.strip().splitlines()[-1]
        if code:
            assert out.count("\n") == 1
            return code, last.removeprefix("@fail ")
        return code, json.loads(last.removeprefix("@report "))

    return ran


def streams_now(root: Path, stream: str) -> None:
    """Have the host send this stream."""
    (root / ".stream").write_text(f"{stream}\n1 2 3 4\n")


# -- choose_stream.py --------------------------------------------------------------------------


def test_the_latest_is_the_end_of_the_stream_that_began_last(run, stream):
    stream(OTHER, 0, 1)
    newest = stream(MINE, 10, 11, 15)
    code, found = run("choose_stream.py", at="latest", on=False)
    assert (code, found["stream"], found["at"]) == (0, newest, at(15))


def test_a_moment_is_brought_back_by_the_stream_of_its_time(run, stream):
    former = stream(OTHER, 0, 1, 5)
    stream(MINE, 100)
    _, found = run("choose_stream.py", at=at(4), on=False)
    assert (found["stream"], found["at"]) == (former, at(1))
    _, found = run("choose_stream.py", at=at(50), on=False)
    assert (found["stream"], found["at"]) == (former, at(5)), "in between nothing was written"


def test_the_runs_that_would_be_lost_are_counted(run, stream, root):
    stream(MINE, 0, 1)
    after = (NOON + timedelta(seconds=5)).timestamp() * 1000
    execute(root / "mlflow.db", "insert into runs values ('late', ?, 'active')", after)
    _, found = run("choose_stream.py", at="latest", on=False)
    assert found["present"] == {"runs": 4, "newest_run": after, "younger": 1}


def test_databases_that_cannot_be_read_can_be_replaced(run, stream, root):
    stream(MINE, 0)
    (root / "mlflow.db").write_text("this is no database" * 99)
    assert run("choose_stream.py", at="latest", on=False)[1]["present"] is None


def test_what_a_new_host_sends_of_nothing_does_not_hide_what_another_had(run, stream, root):
    full, empty = stream(OTHER, 0), stream(MINE, 10)
    streams_now(root, empty)
    assert run("choose_stream.py", at="latest", on=True)[1]["stream"] == empty, "it has runs"
    execute(root / "mlflow.db", "delete from runs")
    assert run("choose_stream.py", at="latest", on=True)[1]["stream"] == full
    assert run("choose_stream.py", at=at(20), on=True)[1]["stream"] == empty, "that moment is named"


@pytest.mark.parametrize("moment", [-10, 30])
def test_a_moment_that_no_stream_reaches_names_those_that_there_are(run, stream, moment):
    stream(OTHER, 0, 5)
    stream(MINE, 10, 20)
    code, said = run("choose_stream.py", at=at(moment), on=False)
    assert code == 1
    assert said == (
        f"No stream reaches to {at(moment)}. There is: {at(11)} to {at(21)}; {at(1)} to {at(6)}. "
        "Choose a moment of these, or: ./fab restore --at latest"
    )


def test_the_end_of_what_there_is_can_be_had(run, stream):
    stream(MINE, 10, 20)
    assert run("choose_stream.py", at=at(21), on=False)[1]["at"] == at(20)
    assert run("choose_stream.py", at=at(22), on=False)[0] == 1


def test_a_stream_that_runs_reaches_to_now(run, stream, root):
    streams_now(root, stream(MINE, 0, 5))
    assert run("choose_stream.py", at=at(3600), on=True)[1]["at"] == at(5)
    assert run("choose_stream.py", at=at(3600), on=False)[0] == 1, "it has ended"


def test_half_a_stream_is_none(run, stream):
    whole = stream(OTHER, 0)
    stream(MINE, 10, names=("mlflow.db",))
    assert run("choose_stream.py", at="latest", on=False)[1]["stream"] == whole


def test_without_any_stream_it_says_what_to_type(run):
    code, said = run("choose_stream.py", at="latest", on=False)
    assert code == 1
    assert said.startswith(f"There is no stream under s3://my-bucket/{PLACE}. Begin one: ./fab ")


# -- restore_stream.py -------------------------------------------------------------------------

LITESTREAM = """#!/bin/bash
echo "$@" >> "$(dirname "$0")/said"
[ -z "$FAULT" ] || { echo "$FAULT" >&2; exit 1; }
cp "$(dirname "$0")/$(basename "$5")" "$5"
"""


@pytest.fixture
def litestream(root: Path) -> Path:
    """Have a script play Litestream that gives back a database of five runs."""
    folder = root / "stream/bin"
    folder.mkdir(parents=True)
    (folder / "litestream").write_text(LITESTREAM)
    (folder / "litestream").chmod(0o755)
    tracking_database(folder / "mlflow.db", 5)
    execute(folder / "mlflow.db", "create table _litestream_seq (id)")
    shutil.copy(root / "basic_auth.db", folder)
    return folder


def restored(run: Run, root: Path, moment: str, which: str, **more: Any) -> Any:
    folder = root / "next.part"
    return run("restore_stream.py", at=moment, stream=which, folder=folder, **more)


def test_a_moment_is_laid_out_ready_to_be_served(run, stream, root, litestream):
    mine = stream(MINE, 0, 5, 10)
    before = sorted(os.listdir(root))
    code, done = restored(run, root, at(7), mine, own=True)
    assert (code, done["stream"], done["at"], done["runs"], done["users"]) == (0, mine, at(5), 5, 1)
    folder = root / "next.part"
    assert sorted(os.listdir(folder)) == ["basic_auth.db", "mlflow.db"]
    assert folder.stat().st_mode & 0o777 == 0o700
    tables = "select count(*) from sqlite_master where name like '%litestream%'"
    assert rows(folder / "mlflow.db", tables) == [(0,)]
    assert sorted(set(os.listdir(root)) - {"next.part"}) == before
    said = (litestream / "said").read_text()
    assert said.count("restore -txid 0000000000000002 -o ") == 2


def test_another_server_s_key_and_id_come_with_its_databases(run, stream, root, litestream,
                                                             back_up):  # fmt: skip
    (root / ".server-id").write_text(OTHER)
    (root / "server.env").write_text("MLFLOW_FLASK_SERVER_SECRET_KEY=theirs\n")
    assert back_up()[0] == 0
    (root / ".server-id").write_text(MINE)
    (root / "server.env").write_text("MLFLOW_FLASK_SERVER_SECRET_KEY=mine\nOTHER=1\n")
    theirs = stream(OTHER, 0)
    assert restored(run, root, "latest", theirs, own=True)[0] == 0
    folder = root / "next.part"
    assert (folder / "server.env").read_text() == (
        "MLFLOW_FLASK_SERVER_SECRET_KEY=theirs\nOTHER=1\n"
    )
    assert (folder / ".server-id").read_text().strip() == OTHER
    assert not (folder / "configuration.tar.gz").exists()
    # Beside the served one, a trial needs neither.
    assert restored(run, root, "latest", theirs)[0] == 0
    assert sorted(os.listdir(folder)) == ["basic_auth.db", "mlflow.db"]


def test_without_a_backup_of_that_server_this_host_keeps_its_key(run, stream, root, litestream,
                                                                 store, run_program):  # fmt: skip
    theirs = stream(OTHER, 0)
    folder = root / "next.part"
    code, out = run_program(
        "restore_stream.py", place=place_in(store), root=root, folder=folder, at="latest",
        stream=theirs, own=True,
    )  # fmt: skip
    assert code == 0
    assert out.startswith("@warn no backup of that server that is vouched for holds its keys")
    assert sorted(os.listdir(folder)) == [".server-id", "basic_auth.db", "mlflow.db"]


EVE = "insert into users values (2, 'eve', 'y', 1)"
ODD = "insert into users values (3, ?, 'y', 0)"


def forged(litestream: Path) -> None:
    """Have the stream bring another admin, one with a strange name, and another password."""
    execute(litestream / "basic_auth.db", EVE)
    execute(litestream / "basic_auth.db", ODD, "x\x1b[31m\n@fail y")
    execute(litestream / "basic_auth.db", "update users set password_hash = 'z' where id = 1")


def test_users_are_compared_with_the_newest_vouched_backup(run, stream, root, litestream, back_up):
    back_up()
    mine = stream(MINE, 0)
    asked = {"at": "latest", "stream": mine, "folder": root / "backups/users"}
    assert run("compare_stream.py", **asked)[1] == {"doubts": [], "keys": []}
    forged(litestream)
    _, seen = run("compare_stream.py", **asked)
    id = (root / ".backup").read_text().split()[1]
    assert seen["doubts"] == [
        f"admins that are not in the backup {id}: eve",
        f"users that are not in the backup {id}: 'x\\x1b[31m\\n@fail y'",
        f"another password than in the backup {id}: admin",
    ]
    assert not (root / "backups/users").exists()


def test_users_are_not_compared_with_an_old_backup_unnoticed(
    run, stream, root, litestream, back_up, store
):
    """Somebody who was an admin then, and may write to the bucket, takes the newer ones away."""
    back_up()
    (root / ".backup").write_text(f"4000000000 20961002T070640Z-{MINE} {vouching().Key(KEY).id}\n")
    asked = {"at": "latest", "stream": stream(MINE, 0), "folder": root / "backups/users"}
    (doubt,) = run("compare_stream.py", **asked)[1]["doubts"]
    assert doubt.startswith(f"the last backup that this host made, 20961002T070640Z-{MINE}, is not")


LATER = "case when date('now') > '2000-01-01' then 1 else 0 end"


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (
            [
                "alter table users rename to hidden",
                f"create view users as select id, username, password_hash, {LATER} is_admin"
                " from hidden",
            ],
            "views or triggers, of which MLflow makes none: users",
        ),
        (
            [
                "create trigger more after insert on users begin "
                "update users set is_admin = 1; end"
            ],
            "views or triggers, of which MLflow makes none: more",
        ),
        (
            ["insert into users values (0, 'admin', 'z', 1)"],
            "users of one name: admin",
        ),
    ],
)  # fmt: skip
def test_users_that_are_not_what_they_seem_are_told(
    run, stream, root, litestream, back_up, statements, said
):
    """They are compared at one moment, and read ever after."""
    back_up()
    mine = stream(MINE, 0)
    for statement in statements:
        execute(litestream / "basic_auth.db", statement)
    asked = {"at": "latest", "stream": mine, "folder": root / "backups/users"}
    assert run("compare_stream.py", **asked)[1]["doubts"] == [said]
    assert restored(run, root, "latest", mine, checked=True)[0] == 1


def test_without_a_vouched_backup_nobody_vouches_for_a_stream(
    run, stream, root, litestream, back_up, monkeypatch
):
    back_up()
    (root.parent / "other.key").write_text("cd" * 32)
    monkeypatch.setenv("REMOTE_MLFLOW_BACKUP_KEY_FILE", str(root.parent / "other.key"))
    asked = {"at": "latest", "stream": stream(MINE, 0), "folder": root / "backups/users"}
    _, seen = run("compare_stream.py", **asked)
    assert len(seen["doubts"]) == 1
    assert "nobody vouches for who may log in" in seen["doubts"][0]
    assert seen["keys"] == [vouching().Key(KEY).id]
    assert run("compare_stream.py", **asked, key=KEY)[1] == {"doubts": [], "keys": []}


def test_users_that_nobody_agreed_to_are_not_restored(run, stream, root, litestream, back_up):
    """Whatever was seen when somebody was asked: a stream goes on."""
    back_up()
    mine = stream(MINE, 0)
    forged(litestream)
    code, said = restored(run, root, "latest", mine, checked=True)
    assert code == 1
    assert said.startswith("Nothing was restored: admins that are not in the backup")
    assert said.endswith("./fab restore --at latest --unsigned")
    asked = {"at": "latest", "stream": mine, "folder": root / "backups/users"}
    agreed = run("compare_stream.py", **asked)[1]["doubts"]
    assert restored(run, root, "latest", mine, checked=True, agreed=agreed)[0] == 0
    assert restored(run, root, "latest", mine, checked=True, agreed=agreed[1:])[0] == 1
    assert restored(run, root, "latest", mine)[0] == 0


def test_a_stream_s_database_of_users_that_is_none_is_one_line(run, stream, root, litestream):
    mine = stream(MINE, 0)
    (litestream / "basic_auth.db").write_text("this is no database" * 99)
    asked = {"at": "latest", "stream": mine, "folder": root / "backups/users"}
    code, said = run("compare_stream.py", **asked)
    assert (code, "What the stream gives back is of no use" in said) == (1, True)
    assert not (root / "backups/users").exists()


def test_only_the_stream_that_is_named_is_restored(run, stream, root, litestream):
    former = stream(OTHER, 0)
    stream(MINE, 10)
    assert restored(run, root, "latest", former)[1]["stream"] == former
    code, said = restored(run, root, "latest", f"{OTHER}/20200101T000000Z")
    assert (code, said.startswith("No stream reaches to latest.")) == (1, True)


def test_a_stream_that_did_not_come_is_not_to_be_begun_again(run, root, litestream):
    """`backup.stream on` looks for it, and must not advise itself."""
    code, said = restored(run, root, "latest", "present")
    assert (code, said.startswith("What this host streams has not come to s3://")) == (1, True)
    assert said.endswith("./fab backup.stream status")


def test_what_litestream_cannot_restore_is_one_line(run, stream, root, litestream, monkeypatch):
    mine = stream(MINE, 0)
    monkeypatch.setenv("FAULT", "transaction not available")
    code, said = restored(run, root, "latest", mine, own=True)
    assert (code, "Litestream cannot restore mlflow.db: transaction not av" in said) == (1, True)


def test_a_damaged_database_is_of_no_use_and_does_not_stay(run, stream, root, litestream):
    mine = stream(MINE, 0)
    (litestream / "mlflow.db").write_text("this is no database" * 99)
    code, said = restored(run, root, "latest", mine, own=True)
    assert code == 1
    assert said.startswith("What the stream gives back is of no use: the database mlflow.db")
    assert not (root / "next.part").exists()


def test_a_disk_that_is_too_small_is_named_before_anything_is_fetched(
    run, stream, root, litestream, monkeypatch
):
    mine = stream(MINE, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))
    code, said = restored(run, root, "latest", mine, own=True)
    assert (code, said.startswith("Restoring the stream needs 0.1 GB of room")) == (1, True)
    assert not (litestream / "said").exists()


@pytest.mark.parametrize(
    "header",
    [b"", b"LTX1", struct.pack(">4sIII", b"LTX2", 0, 4096, 1),
     struct.pack(">4sIII", b"LTX1", 0, 7, 1), struct.pack(">4sIII", b"LTX1", 0, 1 << 31, 1 << 31)],
)  # fmt: skip
def test_what_is_none_of_litestream_s_files_is_one_line(
    run, stream, root, litestream, store, header
):
    mine = stream(MINE, 0)
    key = f"{PLACE}{mine}/mlflow.db/0000/{1:016x}-{1:016x}.ltx"
    store.client().put_object(Bucket="my-bucket", Key=key, Body=header)
    code, said = restored(run, root, "latest", mine)
    assert code == 1
    assert said.startswith(f"The stream {mine} is damaged: s3://my-bucket/{key} is none of ")
    assert not (root / "next.part").exists()


def test_a_stream_that_claims_more_than_there_is_room_for_is_refused(
    run, stream, root, litestream, store
):
    mine = stream(MINE, 0)
    key = f"{PLACE}{mine}/mlflow.db/0000/{1:016x}-{1:016x}.ltx"
    body = struct.pack(">4sIII", b"LTX1", 0, 65536, 0xFFFFFFFF)
    store.client().put_object(Bucket="my-bucket", Key=key, Body=body)
    code, said = restored(run, root, "latest", mine)
    assert (code, said.partition(" needs ")[0]) == (1, "Restoring the stream")


def test_a_database_that_becomes_larger_than_its_changes_say_is_stopped(
    run, stream, root, litestream
):
    mine = stream(MINE, 0)
    (litestream / "litestream").write_text('#!/bin/bash\nhead -c 300M /dev/zero > "$5"\n')
    code, said = restored(run, root, "latest", mine)
    assert code == 1
    assert said.startswith("Litestream cannot restore mlflow.db: ")
    assert (root / "next.part/mlflow.db").stat().st_size < 101e6


def test_without_litestream_it_says_so(run, stream, root):
    mine = stream(MINE, 0)
    code, said = restored(run, root, "latest", mine, own=True)
    assert (code, said) == (1, "Litestream is not on the host. Type: ./fab backup.stream on")


# -- look_at_stream.py and prune_streams.py ----------------------------------------------------


def test_it_is_told_how_far_back_the_streams_lead(run, stream, root):
    stream(OTHER, 0, 5)
    mine = stream(MINE, 10, 20)
    streams_now(root, mine)
    _, found = run("look_at_stream.py")
    assert found == {
        "stream": mine, "objects": 4, "bytes": 400,
        "reaches": [[at(11), at(21)], [at(1), at(6)]],
    }  # fmt: skip


@pytest.mark.parametrize(
    "place",
    [f"{name}/20270101T000000Z" for name in ("..", "x", "aaaaaaaa\x1b[31m", "a" * 9, "$(x)", "é")]
    + [f"{OTHER}/{stamp}" for stamp in ("..", "latest", "20270101T000000Z\x1b[31m", "-x", "`x`")],
)
def test_what_is_named_as_no_stream_is_left_out_with_one_warning(
    run_program, stream, root, store, place
):
    mine = stream(MINE, 0, 5)
    streams_now(root, mine)
    for name in NAMES:
        key = f"{PLACE}{place}/{name}/0000/{1:016x}-{1:016x}.ltx"
        store.client().put_object(Bucket="my-bucket", Key=key, Body=bytes(99))
    request = {"place": place_in(store), "root": root}
    code, out = run_program("choose_stream.py", **request, at="latest", on=True)
    warned, report = out.splitlines()
    assert code == 0
    assert warned.startswith(
        "@warn some of what lies beside the streams is no stream and left alone, such as '"
    )
    assert warned.isprintable()
    assert json.loads(report.removeprefix("@report "))["stream"] == mine


@pytest.mark.parametrize("name", ["0000/x.ltx", "0000/{0}-{0}.ltx/x", "x/0000/{0}-{0}.ltx",
                                  "0000/{1}-{0}.ltx", "0000/{0}-{0}.ltx.tmp"])  # fmt: skip
def test_what_is_named_as_no_changes_counts_as_none(run, stream, store, root, name):
    mine = stream(MINE, 0)
    key = f"{PLACE}{mine}/mlflow.db/{name.format(f'{9:016x}', f'{10:016x}')}"
    store.client().put_object(Bucket="my-bucket", Key=key, Body=b"")
    streams_now(root, mine)
    assert run("look_at_stream.py")[1]["objects"] == 2


def test_only_this_server_s_own_streams_that_are_over_are_deleted(run_program, stream, root, store):
    days = -400 * 86400
    over, others, now = stream(MINE, days), stream(OTHER, days), stream(MINE, days + 5)
    (root / ".server-id").write_text(MINE)
    streams_now(root, now)
    code, out = run_program("prune_streams.py", place=place_in(store), root=root, days=7)
    assert (code, out.startswith("@say deleted the stream of ")) == (0, True)
    left = {key.removeprefix(PLACE).rpartition("/mlflow.db")[0] for key in store.listing()}
    assert {others, now} <= left
    assert over not in left


def test_streams_that_may_not_be_deleted_are_a_warning(run_program, stream, root, store):
    stream(MINE, -400 * 86400)
    streams_now(root, stream(MINE, 0))
    store.refuse(r"POST /my-bucket\?delete")
    request = {"place": place_in(store), "root": root, "days": 7, "timer": True}
    code, out = run_program("prune_streams.py", **request)
    assert code == 0
    assert out.startswith("@warn the bucket denies s3:DeleteObject")


def test_a_host_that_streams_nothing_deletes_nothing(run_program, stream, root, store):
    stream(MINE, -400 * 86400)
    before = store.listing()
    request = {"place": place_in(store), "root": root, "days": 7, "timer": True}
    assert run_program("prune_streams.py", **request) == (0, "")
    assert store.listing() == before
