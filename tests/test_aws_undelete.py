"""What was deleted in the bucket comes back, and nothing else changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from account_side import BUCKET, REGION, SETTINGS, World, context, refusing, world
from invoke import Exit

from tasks import aws_undelete
from tasks.changes import operator_policy
from tasks.laptop.account import deleted

_ = world  # the fixture

MODEL = "mlflow-artifacts/1/run/model.pkl"
BACKUP = "mlflow-backups/default/20261128T120000Z/mlflow.db.gz"
SEGMENT = "mlflow-backups/default/stream/mlflow/0000/1.ltx"


@pytest.fixture
def bucket(world: World) -> World:
    """The bucket, which answers over what moto would deny everybody: see the facts on TLS."""
    world.client("s3").delete_bucket_policy(Bucket=BUCKET)
    world.calls.clear()
    return world


def put(world: World, *keys: str, body: bytes = b"model") -> None:
    for key in keys:
        world.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)


def delete(world: World, *keys: str) -> None:
    for key in keys:
        world.client("s3").delete_object(Bucket=BUCKET, Key=key)


def there(world: World, bucket: str = BUCKET) -> list[str]:
    found = world.client("s3").list_objects_v2(Bucket=bucket)
    return [one["Key"] for one in found.get("Contents", [])]


def undelete(**options: Any) -> None:
    aws_undelete.undelete(context(), **{"yes": True, **options})


def test_what_was_deleted_comes_back_as_it_was(bucket, capsys):
    put(bucket, MODEL, BACKUP)
    delete(bucket, MODEL, BACKUP)
    undelete()
    assert there(bucket) == [MODEL, BACKUP]
    found = bucket.client("s3").get_object(Bucket=BUCKET, Key=MODEL)["Body"].read()
    assert found == b"model"
    out = capsys.readouterr().out
    assert out.startswith("looking at account 123456789012, region eu-central-1, as ")
    assert "2 objects, 10 bytes" in out
    assert f"  {MODEL}  deleted 20" in out
    assert "✓ brought back 2 objects" in out


def test_a_name_that_a_client_has_chosen_is_one_line_and_gives_no_orders(bucket, capsys):
    key = MODEL + "\n✓ brought back\u202e"
    put(bucket, key)
    delete(bucket, key)
    undelete()
    assert f"  {MODEL}?✓ brought back?  deleted 20" in capsys.readouterr().out
    assert there(bucket) == [key]


def test_once_more_there_is_nothing_to_bring_back(bucket, capsys):
    put(bucket, MODEL)
    delete(bucket, MODEL)
    undelete()
    bucket.calls.clear()
    undelete()
    assert "nothing to bring back" in capsys.readouterr().out
    assert "DeleteObjects" not in bucket.calls


def test_it_is_asked_about_and_the_default_is_no(bucket, capsys):
    put(bucket, MODEL)
    delete(bucket, MODEL)
    with pytest.raises(Exit, match=r"Bring back 1 object, 5 bytes\? needs a confirmation"):
        undelete(yes=False)
    assert MODEL in capsys.readouterr().out, "it is shown before"
    assert there(bucket) == []


def test_what_is_there_stays_and_what_was_overwritten_is_said(bucket, capsys):
    put(bucket, MODEL)
    put(bucket, MODEL, body=b"newer")
    put(bucket, BACKUP)
    delete(bucket, BACKUP)
    undelete()
    assert bucket.client("s3").get_object(Bucket=BUCKET, Key=MODEL)["Body"].read() == b"newer"
    assert "overwritten, left as it is: 1 object; S3 keeps" in capsys.readouterr().out
    assert there(bucket) == [MODEL, BACKUP]


def test_what_was_deleted_and_made_again_stays_as_it_is(bucket):
    put(bucket, MODEL)
    delete(bucket, MODEL)
    put(bucket, MODEL, body=b"again")
    undelete()
    assert bucket.client("s3").get_object(Bucket=BUCKET, Key=MODEL)["Body"].read() == b"again"


def test_what_was_deleted_twice_comes_back_at_once(bucket):
    put(bucket, MODEL)
    delete(bucket, MODEL, MODEL)
    undelete()
    assert there(bucket) == [MODEL]


def test_a_key_whose_versions_are_gone_is_said(bucket, capsys):
    put(bucket, MODEL)
    s3 = bucket.client("s3")
    version = s3.list_object_versions(Bucket=BUCKET, Prefix=MODEL)["Versions"][0]["VersionId"]
    delete(bucket, MODEL)
    s3.delete_object(Bucket=BUCKET, Key=MODEL, VersionId=version)
    undelete()
    out = capsys.readouterr().out
    assert "nothing to bring back" in out
    assert "gone for good, no version is left: 1 object" in out


# By what is given: what comes back of all that was deleted.
FILTERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, [MODEL, BACKUP]),
    "a prefix": ({"prefix": "mlflow-artifacts/1/"}, [MODEL]),
    "a prefix of both": ({"prefix": "mlflow-"}, [MODEL, BACKUP]),
    "the backups": ({"prefix": "mlflow-backups/default/"}, [BACKUP]),
    "the stream": ({"prefix": "mlflow-backups/default/stream/"}, [SEGMENT]),
    "a pattern": ({"match": "*.pkl"}, [MODEL]),
    "a pattern of nothing": ({"match": "*.h5"}, []),
    "a prefix of nothing": ({"prefix": "mlflow-artifacts/2/"}, []),
}


@pytest.mark.parametrize("name", FILTERS)
def test_only_what_is_wanted_comes_back(bucket, name):
    others = ["mlflow-backups/staging/1/mlflow.db.gz", "theirs/model.pkl"]
    proof = "mlflow-artifacts/.remote-mlflow-proof-host"
    all_ = [MODEL, BACKUP, SEGMENT, proof, *others]
    put(bucket, *all_)
    delete(bucket, *all_)
    options, wanted = FILTERS[name]
    undelete(**options)
    assert there(bucket) == wanted


def test_what_was_deleted_before_is_left(bucket, monkeypatch):
    put(bucket, MODEL)
    delete(bucket, MODEL)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3601)
    undelete(since="1h")
    assert there(bucket) == []
    undelete(since="2h")
    assert there(bucket) == [MODEL]


def test_what_is_deleted_after_the_question_is_left(bucket, monkeypatch):
    put(bucket, MODEL, BACKUP)
    delete(bucket, MODEL)

    def meanwhile(*_: Any) -> bool:
        time.sleep(1.1)  # S3 tells seconds
        delete(bucket, BACKUP)
        return True

    monkeypatch.setattr(aws_undelete, "confirm", meanwhile)
    undelete()
    assert there(bucket) == [MODEL]


def test_thousands_come_back_page_by_page(bucket, monkeypatch, capsys):
    """However they are cut into pages, between the versions of one key as well."""
    keys = [f"mlflow-artifacts/1/{number:03}" for number in range(60)]
    put(bucket, *keys, body=b"1")
    put(bucket, *keys[::3], body=b"2")
    delete(bucket, *keys, *keys[::2])
    monkeypatch.setattr(deleted, "AT_ONCE", 7)
    client = bucket.client("s3")
    whole = client.get_paginator

    def small(operation: str) -> Any:
        pages = whole(operation)
        paginate = pages.paginate
        pages.paginate = lambda **asked: paginate(**asked, PaginationConfig={"PageSize": 4})
        return pages

    monkeypatch.setattr(client, "get_paginator", small)
    undelete()
    assert there(bucket) == keys
    assert "✓ brought back 60 objects" in capsys.readouterr().out
    assert bucket.calls.count("DeleteObjects") > 60 / 7


def test_of_many_the_first_are_named(bucket, capsys):
    keys = [f"mlflow-artifacts/1/{number:03}" for number in range(deleted.SHOWN + 5)]
    put(bucket, *keys)
    delete(bucket, *keys)
    undelete()
    out = capsys.readouterr().out
    assert keys[deleted.SHOWN - 1] in out
    assert keys[deleted.SHOWN] not in out
    assert "and 5 more" in out


def test_backups_in_a_bucket_of_their_own_come_back_there(bucket):
    s3 = bucket.client("s3")
    s3.create_bucket(
        Bucket="team-backups", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    s3.put_bucket_versioning(Bucket="team-backups", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="team-backups", Key=BACKUP, Body=b"x")
    s3.delete_object(Bucket="team-backups", Key=BACKUP)
    apart = SETTINGS.model_copy(update={"backup_bucket": "team-backups"})
    aws_undelete.undelete(context(apart), yes=True)
    assert there(bucket, "team-backups") == [BACKUP]


def test_a_bucket_without_versions_brings_nothing_back(bucket):
    s3 = bucket.client("s3")
    s3.create_bucket(Bucket="no-versions", CreateBucketConfiguration={"LocationConstraint": REGION})
    plain = SETTINGS.model_copy(update={"bucket": "no-versions"})
    with pytest.raises(Exit, match=r"no-versions has no versioning.*aws\.audit --fix"):
        aws_undelete.undelete(context(plain), yes=True)


def test_where_versioning_was_suspended_it_is_said_that_not_all_is_kept(bucket, capsys):
    put(bucket, MODEL)
    delete(bucket, MODEL)
    bucket.client("s3").put_bucket_versioning(
        Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"}
    )
    with pytest.raises(Exit, match="Bring back 1 object"):  # moto cannot remove the marker then
        undelete(yes=False)
    assert "versioning of team-models is suspended" in capsys.readouterr().err


def raising(**change: Any) -> Callable[[], None]:
    settings = SETTINGS.model_copy(update=change)
    return lambda: aws_undelete.undelete(context(settings), yes=True)


MISTAKES: dict[str, tuple[Callable[[], None], str]] = {
    "another prefix": (
        lambda: undelete(prefix="theirs/"),
        "--prefix is 'theirs/'. Give one that begins with mlflow-artifacts/ or mlflow-backups/def",
    ),
    "no age": (lambda: undelete(since="soon"), "--since is 'soon', which is no age"),
    "another store": (raising(endpoint_url="https://minio.example.org"), "not at AWS"),
    "no bucket": (raising(bucket=None), "No bucket is configured"),
    "a bucket that is not there": (raising(bucket="nobody-has-made-it"), "There is no such bucket"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(bucket, name):
    call, wanted = MISTAKES[name]
    with pytest.raises(Exit) as refused:
        call()
    assert wanted in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("operation", "right"),
    [("ListObjectVersions", "s3:ListBucketVersions"), ("DeleteObjects", "s3:DeleteObjectVersion")],
)
def test_a_right_that_is_missing_is_named(bucket, operation, right):
    put(bucket, MODEL)
    delete(bucket, MODEL)
    with refusing("AccessDenied", operation), pytest.raises(Exit, match=right):
        undelete()


def test_a_key_that_is_refused_is_no_success(bucket, monkeypatch):
    put(bucket, MODEL)
    delete(bucket, MODEL)
    answer = {"Errors": [{"Key": MODEL, "Code": "AccessDenied", "Message": "no"}]}
    monkeypatch.setattr(bucket.client("s3"), "delete_objects", lambda **_: answer)
    with pytest.raises(Exit, match="s3:DeleteObjectVersion"):
        undelete()


def test_every_right_that_it_asks_for_is_one_of_the_operator_s(bucket):
    put(bucket, MODEL)
    delete(bucket, MODEL)
    bucket.calls.clear()
    undelete()
    asked = set(bucket.calls) - {"GetCallerIdentity"}
    assert [call for call in asked if operator_policy.action(call) is None] == []
