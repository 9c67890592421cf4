"""What doctor and deploy see of a bucket, against moto on loopback."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from host_side import OTHER_KEY, place_in, program, seen_in, signed
from store_side import Store


@pytest.fixture
def look(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    def run(
        bucket: str = "my-bucket", region: str = "", endpoint: str = "", root: Path | str = ""
    ) -> dict[str, Any]:
        place = place_in(store, bucket=bucket, region=region, endpoint=endpoint or store.url)
        request = {"place": place, "backups": place, "root": root or tmp_path}
        code, out = program(capsys, "look_at_bucket.py", **request, patience=1.4)
        assert code == 0
        return seen_in(out)

    return run


def test_a_look_at_a_good_bucket_finds_nothing_and_writes_nothing(look, store):
    seen = look()
    assert (seen["bucket"], seen["backup"]) == (None, None)
    assert seen["owner"] == {}, "nobody marked it"
    assert abs(seen["skew"]) < 60
    assert store.listing() == []
    assert not [request for request in store.requests if request.startswith("DELETE")]


@pytest.mark.parametrize(
    ("pattern", "permission"),
    [
        ("(HEAD|GET) /my-bucket(\\?|$)", "s3:ListBucket"),
        ("GET /my-bucket/mlflow-artifacts/", "s3:GetObject"),
        ("PUT /my-bucket/mlflow-artifacts/", "s3:PutObject"),
    ],
)
def test_a_look_names_the_missing_permission(look, store, pattern, permission):
    store.refuse(pattern)
    assert look()["bucket"]["kind"] == "permission"
    assert permission in look()["bucket"]["what"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ExpiredToken", "credentials-expired"),
        ("InvalidAccessKeyId", "credentials-wrong"),
        ("SignatureDoesNotMatch", "credentials-wrong"),
        ("RequestTimeTooSkewed", "clock"),
        ("SlowDown", "bucket-failing"),
    ],
)
def test_a_look_names_what_s3_says_no_for(look, store, code, kind):
    store.refuse("HEAD|GET", code, 503 if code == "SlowDown" else 403)
    found = look()["bucket"]
    assert found["kind"] == kind
    assert found["remedy"]


@pytest.mark.parametrize("request_", ["HEAD", "GET", "PUT", "GET /my-bucket\\?.*mlflow-backups"])
def test_a_look_passes_over_a_failure_that_passes(look, store, request_):
    store.refuse(request_, "SlowDown", 503, times=2)
    seen = look()
    assert (seen["bucket"], seen["backup"]) == (None, None)


def test_a_look_at_a_bucket_that_is_not_there_or_not_here(look, store, monkeypatch):
    assert look("no-such-bucket")["bucket"]["kind"] == "bucket-missing"
    assert look(endpoint="http://127.0.0.1:9")["bucket"]["kind"] == "bucket-unreachable"
    store.client("eu-west-1").create_bucket(
        Bucket="in-ireland", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    assert look("in-ireland", region="us-east-2")["bucket"]["kind"] == "region-wrong"
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert look()["bucket"]["kind"] == "credentials-partial"


def test_a_store_that_never_answers_is_named_within_the_doctor_s_time(look):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        seen = look(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert seen["bucket"]["kind"] == "bucket-unreachable"
    assert time.monotonic() - began < 4


def test_a_store_that_knows_no_conditions_is_left_as_it_was(look, store):
    store.deaf_to = ("HTTP_IF_MATCH",)  # moto never looks at Content-MD5
    assert look()["bucket"] is None
    assert [request for request in store.requests if request.startswith("DELETE")]
    assert store.listing() == []


def test_the_newest_whole_set_is_found_and_compared(look, store, back_up):
    back_up()
    seen = look()["backup"]
    assert seen["damage"] is None
    assert seen["made"] > 1_700_000_000
    place = f"mlflow-backups/default/{seen['id']}"
    store.client().put_object(
        Bucket="my-bucket", Key="mlflow-backups/default/99991231T000000Z-x/mlflow.db.zst", Body=b"x"
    )
    assert look()["backup"]["id"] == seen["id"], "one without its manifest is none"
    body = store.body(f"{place}/mlflow.db.zst")
    store.client().put_object(
        Bucket="my-bucket", Key=f"{place}/mlflow.db.zst", Body=body[:-1] + b"x"
    )
    assert look()["backup"]["damage"] == "mlflow.db.zst is not the file that was sent"
    store.client().put_object(Bucket="my-bucket", Key=f"{place}/mlflow.db.zst", Body=b"x")
    assert look()["backup"]["damage"].startswith("mlflow.db.zst has 1 bytes instead of")
    store.client().delete_object(Bucket="my-bucket", Key=f"{place}/mlflow.db.zst")
    assert look()["backup"]["damage"] == "mlflow.db.zst is missing"
    store.client().put_object(Bucket="my-bucket", Key=f"{place}/manifest.json", Body=b"{")
    assert look()["backup"]["damage"] == "its manifest.json says nothing"


FIRST = {  # what a manifest of the first kind says
    "made": "2026-01-01T00:00:00+00:00",
    "host": "ip-10-0-0-1",
    "release": "3.1.0",
    "files": [{"name": "mlflow.db.gz", "bytes": 1, "sha256": "a" * 64}],
    "databases": {
        "mlflow.db": {"revisions": ["r1"], "count": 3},
        "basic_auth.db": {"revisions": ["a1"], "count": 1},
    },
}


def lay(store: Store, id: str, **files: bytes) -> str:
    """Put files into the set of this id, a manifest of the first kind where none is given."""
    for name, body in {"manifest.json": json.dumps(FIRST).encode(), **files}.items():
        key = f"mlflow-backups/default/{id}/{name}"
        store.client().put_object(Bucket="my-bucket", Key=key, Body=body)
    return id


def test_a_set_of_long_ago_is_found_too(look, store):
    old = lay(store, "20200101T000000Z-x")
    assert look()["backup"]["id"] == old


def test_a_set_of_the_first_kind_is_understood(look, store):
    id = lay(store, "20260101T000000Z-ip-10-0-0-1", **{"mlflow.db.gz": b"x"})
    seen = look()["backup"]
    assert (seen["id"], seen["damage"]) == (id, None)
    assert seen["made"] == 1767225600


@pytest.mark.parametrize(
    "key", ["stream/mlflow.db/ltx/0/1.ltx", "stream/manifest.json", "99991231T000000Z-x/mlflow.db"]
)
def test_what_is_no_backup_never_hides_one_of_long_ago(look, store, key):
    old = lay(store, "20200101T000000Z-x", **{"mlflow.db.gz": b"x"})
    store.client().put_object(Bucket="my-bucket", Key=f"mlflow-backups/default/{key}", Body=b"{}")
    seen = look()["backup"]
    assert (seen["id"], seen["damage"]) == (old, None)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (None, "nobody signed it"),
        (b'{"files": 1}', "its manifest.json lacks `made`"),
        (b'{"files": [1]}', "its manifest.json lacks `made`"),
        (b"[" * 50_000, "its manifest.json says nothing"),
        (b" " * (64 << 10) + b"{}", "its manifest.json has more than 64 KB"),
    ],
)
@pytest.mark.parametrize("stamp", ["29990101T000000Z", "29999999T999999Z"])
def test_a_forged_set_does_not_pass_for_a_fresh_backup(look, store, back_up, stamp, body, why):
    back_up()
    mine = look()["backup"]
    forged = lay(store, f"{stamp}-x", **({"manifest.json": body} if body else {}))
    assert look()["backup"] == mine | {"newer": {"id": forged, "why": why}}


def test_a_set_of_another_server_hides_none_of_this_one_s(look, store, back_up):
    back_up()
    mine = look()["backup"]
    id = "29990101T000000Z-bbbbbbbb"
    lay(store, id, **{"manifest.json": signed(FIRST, id, OTHER_KEY)})
    assert look()["backup"] == mine


def test_where_nobody_vouches_for_any_it_is_said(look, store, backup_key):
    id = lay(store, "20260101T000000Z-x", **{"mlflow.db.gz": b"x"})
    seen = look()["backup"]
    assert (seen["id"], seen["damage"], seen["newer"]) == (id, None, None)
    assert seen["doubt"].startswith(f"Nobody vouches for the backup {id}")


def test_any_number_of_forged_sets_hides_not_what_this_host_made(look, store, back_up, root):
    back_up()
    mine = look()["backup"]["id"]
    for day in range(10, 32):
        lay(store, f"299901{day}T000000Z-x")
    assert look(root=root)["backup"]["id"] == mine
    read = [each for each in store.requests if each.startswith("GET") and "manifest" in each]
    assert len(read) < 30


def test_backups_that_may_not_be_listed_are_said(look, store):
    store.refuse("GET /my-bucket\\?.*prefix=mlflow-backups")
    assert look()["backup_error"] == "AccessDenied"


def test_a_look_tells_whose_the_prefix_is(look, store):
    mark = {"server": "0badcafe", "host": "web2", "since": "2026-01-02T03:04:05Z"}
    key = "mlflow-artifacts/.remote-mlflow-owner.json"
    store.client().put_object(Bucket="my-bucket", Key=key, Body=json.dumps(mark).encode())
    assert look()["owner"] == mark
