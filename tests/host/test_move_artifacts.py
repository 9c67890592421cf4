"""Files at a former place in the bucket: counted, copied, compared, and left where they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from host_side import place_in, program
from store_side import Store

Moving = Callable[..., tuple[int, str]]
RUN, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
FILES = {
    f"1/{RUN}/artifacts/a/note.txt": b"note",
    f"1/{RUN}/artifacts/z.txt": b"z",
    f"1/{OTHER}/artifacts/odd #1%20?.txt": b"odd",
    "1/models/m-1/artifacts/MLmodel": b"model",
}


@pytest.fixture
def moving(store: Store, home: Path, capsys: pytest.CaptureFixture[str]) -> Moving:
    root = home / "mlflow-server"
    root.mkdir()
    (root / ".elsewhere").write_text("noted\n")
    for key, body in FILES.items():
        put(store, f"art-51/{key}", body)
    put(store, "art-51/.remote-mlflow-owner.json", b"{}")

    def run(action: str, prefix: str = "art-51", bucket: str = "my-bucket") -> tuple[int, str]:
        former = [f"s3://{bucket}/{prefix} at {store.url}"]
        request: dict[str, Any] = {"place": place_in(store), "root": root, "former": former}
        return program(capsys, "move_artifacts.py", **request, action=action)

    return run


def put(store: Store, key: str, body: bytes) -> None:
    store.client().put_object(Bucket="my-bucket", Key=key, Body=body)


def reported(out: str) -> dict[str, Any]:
    return json.loads(out.rpartition("@report ")[2])


def present(store: Store) -> dict[str, bytes]:
    keys = [key for key in store.listing() if key.startswith("mlflow-artifacts/")]
    objects = {key: store.client().get_object(Bucket="my-bucket", Key=key) for key in keys}
    return {key.partition("/")[2]: found["Body"].read() for key, found in objects.items()}


def test_what_is_missing_at_the_present_place_is_counted_with_its_runs(moving, store):
    code, out = moving("count")
    assert code == 0
    found = reported(out)
    assert (found["files"], found["runs"], found["bytes"]) == (4, 2, 13)
    assert present(store) == {}, "counting changes nothing"


def test_files_are_copied_whole_and_stay_where_they_were(moving, store, home):
    before = store.listing()
    assert moving("copy")[0] == 0
    assert present(store) == FILES
    assert set(before) <= set(store.listing())
    assert (home / "mlflow-server/.elsewhere").exists(), "more may come until the server changes"
    assert reported(moving("count")[1])["files"] == 0


def test_what_came_meanwhile_is_brought_at_the_end_and_the_note_goes(moving, store, home):
    moving("copy")
    put(store, f"art-51/1/{RUN}/artifacts/late.txt", b"late")
    put(store, f"art-51/1/{RUN}/artifacts/z.txt", b"anew")
    code, out = moving("finish")
    assert (code, reported(out)["files"]) == (0, 2)
    assert present(store) == FILES | {
        f"1/{RUN}/artifacts/late.txt": b"late",
        f"1/{RUN}/artifacts/z.txt": b"anew",
    }
    assert not (home / "mlflow-server/.elsewhere").exists()


def test_what_clients_wrote_at_the_present_place_is_never_overwritten(moving, store):
    moving("copy")
    put(store, f"mlflow-artifacts/1/{RUN}/artifacts/z.txt", b"N")
    moving("finish")
    assert present(store)[f"1/{RUN}/artifacts/z.txt"] == b"N"


def test_a_copy_that_was_cut_off_is_continued(moving, store, home):
    store.refuse("PUT /my-bucket/mlflow-artifacts/1/models/", "AccessDenied")
    code, out = moving("finish")
    assert code == 1
    assert "is denied to the host's credentials" in out
    assert "type ./fab deploy --move-artifacts again" in out
    assert (home / "mlflow-server/.elsewhere").exists(), "it is still to be done"
    store.faults.clear()
    store.requests.clear()
    assert moving("finish")[0] == 0
    assert present(store) == FILES
    copied = [request for request in store.requests if request.startswith("PUT")]
    assert len(copied) < len(FILES), "what was copied is not copied again"


def test_a_place_below_the_former_one_is_not_copied_into_itself(moving, store, home, capsys):
    place = place_in(store)
    place["prefix"] = "art-51/v2"
    request = {"place": place, "root": home, "former": [f"s3://my-bucket/art-51 at {store.url}"]}
    for _ in range(2):
        assert program(capsys, "move_artifacts.py", **request, action="copy")[0] == 0
    assert not [key for key in store.listing() if "v2/v2" in key]


def test_nothing_at_the_former_place_is_nothing_to_copy(moving):
    assert reported(moving("count", "empty")[1])["files"] == 0


def test_a_bucket_that_is_gone_has_nothing_to_lose(moving, store):
    code, out = moving("count", bucket="gone-bucket")
    assert (code, reported(out)["files"]) == (0, 0)
    assert "@warn s3://gone-bucket/art-51 at" in out
    assert "The bucket gone-bucket does not exist." in out


def test_a_place_that_cannot_be_looked_at_may_be_left(moving, store):
    store.faults = [["GET .*prefix=art-51", 403, "AccessDenied", 9]]
    code, out = moving("count")
    assert code != 0
    assert "cannot be looked at: s3:ListBucket is denied" in out
    assert "./fab deploy --leave-artifacts" in out
    code, out = moving("leave")
    assert (code, reported(out)["files"]) == (0, 0)
    assert "@warn" in out
