"""Backups are listed and thinned out by the host's own programs, against moto."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from host_side import place_in, program, signed, vouching
from store_side import Store

NOW = datetime.now(timezone.utc)
PLACE = "mlflow-backups/default/"
NONE = {"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}
Run = Callable[..., tuple[int, dict[str, Any]]]


def made(days: float, server: str) -> tuple[str, datetime]:
    moment = NOW - timedelta(days=days)
    return f"{moment:%Y%m%dT%H%M%SZ}-{server}", moment


@pytest.fixture
def keep_set(store: Store, backup_key: str) -> Callable[..., str]:
    """Put a set into the bucket that was made so many days ago."""

    def put(
        days: float,
        runs: int = 3,
        verified: bool = False,
        whole: bool = True,
        server: str = "926c1729",
        vouched: bool = True,
    ) -> str:
        id, moment = made(days, server)
        s3, body = store.client(), b"database " * 100
        files = {"mlflow.db.zst": body, "manifest.json": b""}
        manifest = {
            "made": moment.isoformat(), "host": "a-host", "server": server,
            "release": "3.17.2-abc", "version": "3.17.2",
            "databases": {"mlflow.db": {"counts": {"runs": runs}},
                          "basic_auth.db": {"counts": {"users": 1}}},
            "files": [{"name": "mlflow.db.zst", "bytes": len(body) + (not whole),
                       "sha256": hashlib.sha256(body).hexdigest()}],
        }  # fmt: skip
        files["manifest.json"] = signed(manifest, id) if vouched else json.dumps(manifest).encode()
        if verified:
            told = json.loads(files["manifest.json"])
            note = {"at": NOW.isoformat(), "id": id, "of": vouching().digest(told)}
            files["verified.json"] = json.dumps(
                vouching().Key(backup_key).signed("note", note)
            ).encode()
        for name, content in files.items():
            s3.put_object(Bucket="my-bucket", Key=f"{PLACE}{id}/{name}", Body=content)
        return id

    return put


@pytest.fixture
def run(store: Store, capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(name: str, **request: Any) -> tuple[int, dict[str, Any]]:
        code, out = program(capsys, name, place=place_in(store), **request)
        line = out.strip().splitlines()[-1]
        word, _, text = line.partition(" ")
        return code, json.loads(text) if word == "@report" else {word: text}

    return ran


def prune(run: Run, how: str, **keep: int) -> tuple[int, dict[str, Any]]:
    return run("prune_sets.py", keep=NONE | keep, how=how)


def ids(store: Store) -> list[str]:
    return sorted({key.removeprefix(PLACE).split("/")[0] for key in store.listing()})


def test_all_sets_are_listed_newest_first(run, keep_set):
    old, new = keep_set(40, runs=7, verified=True), keep_set(1)
    code, seen = run("list_sets.py")
    assert code == 0
    assert [each["id"] for each in seen["sets"]] == [new, old]
    assert seen["sets"][1]["runs"] == 7
    assert [bool(each["verified"]) for each in seen["sets"]] == [False, True]
    assert seen["incomplete"] == []


def test_an_empty_bucket_has_no_sets(run):
    assert run("list_sets.py")[1]["sets"] == []


def test_a_look_deletes_nothing(run, keep_set, store):
    old, new = keep_set(40), keep_set(1)
    code, seen = prune(run, "look")
    assert (code, seen["pruned"], seen["kept"]) == (0, [old], 1)
    assert ids(store) == [old, new]


@pytest.mark.parametrize("how", ["delete", "timer"])
def test_a_set_goes_with_all_its_files(run, keep_set, store, how):
    keep_set(40)
    new = keep_set(1, verified=True)
    assert prune(run, how)[1]["bytes"] == 900
    assert ids(store) == [new]
    assert len(store.listing()) == 3


def test_the_manifest_goes_first_so_that_half_a_set_is_none(run, keep_set, store):
    old = keep_set(40)
    keep_set(1)
    prune(run, "delete")
    gone = [request for request in store.requests if request.startswith("DELETE")]
    assert gone[0].startswith(f"DELETE /my-bucket/{PLACE}{old}/manifest.json")
    assert len(gone) == 2


def test_the_last_good_set_stays_although_nothing_is_asked_for(run, keep_set, store):
    good, damaged = keep_set(40), keep_set(1, whole=False)
    code, seen = prune(run, "delete")
    assert (code, seen["pruned"], seen["damaged"]) == (0, [], [damaged])
    assert ids(store) == [good, damaged]


def test_the_newest_verified_set_stays(run, keep_set, store):
    keep_set(90, verified=True)
    verified = keep_set(60, verified=True)
    keep_set(30)
    new = keep_set(2)
    prune(run, "delete")
    assert ids(store) == sorted((verified, new))


def test_an_empty_server_never_wears_away_the_runs_of_another(run, keep_set, store):
    full = keep_set(500, runs=1000)
    empty = [keep_set(days, runs=0) for days in (4, 3, 2)]
    prune(run, "delete", daily=2)
    assert ids(store) == sorted((full, *empty[1:]))


@pytest.mark.parametrize("how", ["delete", "timer"])
def test_forged_sets_wear_away_none_that_is_vouched_for_and_stay(run, keep_set, store, how):
    """Whoever may only add to the bucket cannot have the schedule delete what is there."""
    good = [keep_set(days) for days in (3.2, 2.2, 1.2)]
    forged = [keep_set(days, runs=10**6, verified=True, vouched=False) for days in (3, 2, 1, 0)]
    code, seen = prune(run, how, daily=3)
    assert (code, seen["pruned"], seen["unsigned"]) == (0, [], 4)
    assert ids(store) == sorted((*good, *forged))
    prune(run, how)
    assert ids(store) == sorted((good[-1], *forged)), "not even what may go is chosen by them"


def test_sets_from_before_the_key_go_where_somebody_asks_for_it(run, keep_set, store):
    old = [keep_set(days, vouched=False) for days in (40, 30)]
    new = [keep_set(days) for days in (3, 2)]
    assert run("prune_sets.py", keep=NONE, how="look", unsigned=True)[1]["pruned"] == [
        new[0], old[0],
    ]  # fmt: skip
    assert run("prune_sets.py", keep=NONE, how="delete", unsigned=True)[1]["unsigned"] == 0
    assert ids(store) == sorted((old[1], new[1])), "each kind for itself"


def test_a_host_without_a_key_deletes_nothing(run, keep_set, store, monkeypatch):
    every = [keep_set(40), keep_set(30, vouched=False), keep_set(1)]
    monkeypatch.delenv("REMOTE_MLFLOW_BACKUP_KEY_FILE")
    assert prune(run, "timer")[1]["unsigned"] == 3
    assert ids(store) == sorted(every)


def test_servers_that_share_a_place_keep_each_its_own(run, keep_set, store):
    # The second is always the last of a day, and the first is the one that matters.
    first = [keep_set(days + 0.01, runs=1000, server="aaaaaaaa") for days in (12, 11, 10, 9)]
    second = [keep_set(days, server="bbbbbbbb") for days in (12, 11, 10, 9)]
    prune(run, "delete", daily=2)
    assert ids(store) == sorted((*first[2:], *second[2:]))


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
@pytest.mark.parametrize("how", ["list", "look", "timer"])
def test_a_manifest_that_says_nothing_hides_no_other_set(keep_set, store, capsys, text, how):
    good = keep_set(1)
    key = f"{PLACE}20260101T000000Z-x/manifest.json"
    store.client().put_object(Bucket="my-bucket", Key=key, Body=text.encode())
    name = "list_sets.py" if how == "list" else "prune_sets.py"
    more = {} if how == "list" else {"keep": NONE, "how": how}
    code, out = program(capsys, name, place=place_in(store), **more)
    warned, report = out.strip().splitlines()
    assert code == 0
    assert warned.startswith("@warn The backup 20260101T000000Z-x is damaged")
    seen = json.loads(report.removeprefix("@report "))
    assert seen["incomplete"] == []
    if how == "list":
        assert [each["id"] for each in seen["sets"]] == [good]
    else:
        assert (seen["kept"], seen["pruned"]) == (1, [])
    assert ids(store) == ["20260101T000000Z-x", good], "it is left for people to look at"


def test_a_set_that_went_while_they_were_listed_is_no_error(run, keep_set, monkeypatch):
    good = keep_set(1, verified=True)
    run("list_sets.py")
    sets = sys.modules["sets"].Sets
    gone, listed = {"manifest.json": {}, "verified.json": {}}, sets.folders
    monkeypatch.setattr(sets, "folders", lambda self: {"20260101T000000Z-x": gone, **listed(self)})
    code, seen = run("list_sets.py")
    assert (code, [each["id"] for each in seen["sets"]]) == (0, [good])


def test_what_a_cut_off_backup_left_goes_after_a_day(run, keep_set, store, monkeypatch):
    new = keep_set(0)
    store.client().put_object(Bucket="my-bucket", Key=f"{PLACE}20260101T000000Z-x/a", Body=b"")
    assert prune(run, "delete")[1]["incomplete"] == [], "it may be at work just now"
    monkeypatch.setattr(sys.modules["sets"], "DAY", -1)
    assert run("list_sets.py")[1]["incomplete"] == ["20260101T000000Z-x"]
    prune(run, "delete")
    assert ids(store) == [new]


def test_where_deleting_is_denied_the_schedule_goes_on(run, keep_set, store):
    keep_set(40), keep_set(1)
    store.refuse("DELETE .*")
    code, said = prune(run, "timer")
    assert code == 0
    assert "denies s3:DeleteObject" in said["@warn"]
    code, said = prune(run, "delete")
    assert code == 1
    assert said["@fail"].endswith("then run the same command again.")
