"""What is uploaded reaches the bucket as MLflow would have sent it, whole or not at all."""

from __future__ import annotations

import asyncio
import gc
import io
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from boto3.session import Session
from botocore.exceptions import ClientError
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import StreamUploadMixin
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from moto import mock_aws

from tasks.engine.templates import FILES

sys.path.insert(0, str(FILES / "app"))

from remote_mlflow_app import names, uploads

BUCKET, ROOT = "bucket", "mlflow-artifacts"
MB = 1 << 20
PUT, BEGIN, SEND = "PutObject", "CreateMultipartUpload", "UploadPart"
END, ABORT = "CompleteMultipartUpload", "AbortMultipartUpload"


class Store:
    """A bucket, what it was asked, and what it refuses."""

    def __init__(self) -> None:
        # One of its own: other tests share theirs by another name for this class.
        self.client = Session().client("s3", region_name="us-east-1")
        self.client.create_bucket(Bucket=BUCKET)
        self.asked: list[str] = []
        self.refuses = ""
        self.client.meta.events.register("before-parameter-build.s3", self.note)

    def note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.asked.append(model.name)
        if f"{model.name}{params.get('PartNumber', '')}" == self.refuses:
            raise ClientError({"Error": {"Code": "SlowDown"}}, model.name)

    def objects(self) -> dict[str, tuple[bytes, dict[str, Any]]]:
        found = {}
        for entry in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            answer = self.client.get_object(Bucket=BUCKET, Key=entry["Key"])
            about = {name: answer.get(name) for name in ("ContentType", "ContentEncoding")}
            about["encrypted"] = answer.get("ServerSideEncryption")
            found[entry["Key"]] = (answer["Body"].read(), about)
        return found

    def unfinished(self) -> list[Any]:
        found: list[Any] = self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return found


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        yield Store()


@pytest.fixture(params=[0, uploads.IN_MEMORY], ids=["on the disk", "in memory"])
def buffers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Room in memory for so many parts; all of it is given back."""
    found = uploads.Buffers(request.param)
    monkeypatch.setattr(uploads, "BUFFERS", found)
    yield found
    gc.collect()  # what failed may hold a part in its traceback
    assert (found.left, found.free) == (request.param, [])


@pytest.fixture
def repository(store: Store, tmp_path: Path, buffers: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", '{"ServerSideEncryption": "AES256"}')
    kind = type("Repository", (S3ArtifactRepository,), {})  # what is registered stays so
    kind._get_s3_client = lambda self: store.client  # type: ignore[attr-defined]
    found = kind(f"s3://{BUCKET}/{ROOT}")
    uploads.stand(found)
    assert isinstance(found, StreamUploadMixin)
    return found


async def pieces(content: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def upload(
    repository: Any, content: bytes, name: str = "a.json.gz", folder: str | None = "1/run"
) -> None:
    chunks = pieces(content)
    asyncio.run(repository.log_artifact_from_async_stream(chunks, name, folder))


def content_of(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize(
    ("size", "asked"),
    [
        (0, [PUT]),
        (uploads.HELD, [PUT]),
        (uploads.HELD + 1, [PUT]),
        (uploads.PART, [PUT]),
        (uploads.PART + 1, [BEGIN, SEND, SEND, END]),
        (6 * uploads.PART, [BEGIN, *[SEND] * 6, END]),
        (6 * uploads.PART + 7, [BEGIN, *[SEND] * 7, END]),
    ],
)
@pytest.mark.parametrize(("name", "folder"), [("é.json.gz", "1/run"), ("weights", None)])
def test_a_file_is_there_as_mlflow_sends_it(
    repository: Any, store: Store, tmp_path: Path, size: int, asked: list[str], name: str,
    folder: str | None,
) -> None:  # fmt: skip
    content = content_of(size)
    upload(repository, content, name, folder)
    assert list(tmp_path.iterdir()) == []
    assert store.asked == asked
    ours = store.objects()
    assert [told for told, _ in ours.values()] == [content]
    (tmp_path / name).write_bytes(content)
    repository.log_artifact(str(tmp_path / name), folder)
    assert store.objects() == ours
    assert store.unfinished() == []


def test_parts_are_sent_while_the_file_still_comes(repository: Any, store: Store) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield bytes(uploads.PART)
        yield bytes(uploads.HELD + 1)
        for _ in range(500):
            if SEND in store.asked:
                break
            await asyncio.sleep(0.01)
        yield b"the end"

    asyncio.run(repository.log_artifact_from_async_stream(slow(), "a", "1/run"))
    assert store.asked == [BEGIN, SEND, SEND, END]


def test_what_is_held_and_on_its_way_has_a_limit(
    repository: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory and on the disk."""
    held, kept, under_way, most, lock = [], [], set[int](), [0, 0], threading.Lock()
    growing = uploads.Growing
    write, send, begin = growing.write, growing.upload_part, growing.begin_part

    async def noted(self: Any, content: bytes) -> None:
        held.append(len(content))
        await write(self, content)

    def begun(self: Any) -> None:
        begin(self)
        kept.append(self.part)
        most[1] = max(most[1], sum(not is_closed(part) for part in kept))

    def counted(self: Any, number: int, part: Any) -> Any:
        with lock:
            under_way.add(number)
            most[0] = max(most[0], len(under_way))
        threading.Event().wait(0.05)
        try:
            return send(self, number, part)
        finally:
            with lock:
                under_way.remove(number)

    monkeypatch.setattr(growing, "write", noted)
    monkeypatch.setattr(growing, "upload_part", counted)
    monkeypatch.setattr(growing, "begin_part", begun)
    upload(repository, bytes(10 * uploads.PART))
    assert max(held) <= uploads.HELD + (1 << 16)
    assert 1 < most[0] <= uploads.AHEAD
    assert most[1] <= uploads.AHEAD + 1
    assert all(map(is_closed, kept))


def is_closed(part: Any) -> bool:
    closed: bool = part.file.closed if isinstance(part, uploads.OnDisk) else part.buffer is None
    return closed


def test_many_files_at_once_share_the_room_in_memory(
    repository: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each arrives as it was, whatever else was where it lay; the rest is on the disk."""
    shared, kinds = uploads.Buffers(3), set()
    monkeypatch.setattr(uploads, "BUFFERS", shared)
    new_part = uploads.new_part

    def noted(size: int) -> Any:
        assert 0 <= shared.left <= 3
        part = new_part(size)
        kinds.add(type(part))
        return part

    monkeypatch.setattr(uploads, "new_part", noted)
    contents = {f"{one}.bin": bytes([one]) * (3 * uploads.PART + one) for one in range(5)}

    async def all_at_once() -> None:
        take = repository.log_artifact_from_async_stream
        await asyncio.gather(*(take(pieces(held), name) for name, held in contents.items()))

    asyncio.run(all_at_once())
    assert {key.rpartition("/")[2]: held for key, (held, _) in store.objects().items()} == contents
    assert kinds == {uploads.InMemory, uploads.OnDisk}
    assert (shared.left, shared.free) == (3, [])


def test_a_part_may_be_given_back_while_another_is_begun(buffers: Any) -> None:
    """Python looks for garbage at any moment, in the thread that has the lock as well."""
    part = uploads.new_part(uploads.PART)
    with buffers.lock:
        del part
    assert buffers.left == buffers.count


def test_what_is_taken_back_before_it_was_sent_leaves_its_room(buffers: Any) -> None:
    part = uploads.new_part(uploads.PART)
    if buffers.count:
        assert buffers.left == buffers.count - 1
    del part
    assert buffers.left == buffers.count


@pytest.mark.parametrize("size", [1, 1 << 16, uploads.HELD + 1, 3 * uploads.PART])
def test_what_does_not_come_whole_is_not_there(
    repository: Any, store: Store, tmp_path: Path, size: int
) -> None:
    async def cut() -> AsyncIterator[bytes]:
        async for piece in pieces(content_of(size)):
            yield piece
        raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError):
        asyncio.run(repository.log_artifact_from_async_stream(cut(), "a", "1/run"))
    assert store.objects() == {}
    assert store.unfinished() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("refuses", [PUT, BEGIN, f"{SEND}1", f"{SEND}5", END])
def test_what_the_store_refuses_fails_and_leaves_nothing(
    repository: Any, store: Store, tmp_path: Path, refuses: str
) -> None:
    store.refuses = refuses
    with pytest.raises(ClientError, match="SlowDown"):
        upload(repository, content_of(1 if refuses == PUT else 6 * uploads.PART))
    assert store.objects() == {}
    assert store.unfinished() == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_parts(
    repository: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file could not write, it tries to write again as it is closed."""
    begin, full = uploads.Growing.begin_part, Mock(side_effect=OSError("no space left"))

    def begun(self: Any) -> None:
        begin(self)
        if len(self.parts) == 2:
            self.part.close()
            self.part = Mock(write=full, close=full)

    monkeypatch.setattr(uploads.Growing, "begin_part", begun)
    with pytest.raises(OSError, match="no space left"):
        upload(repository, content_of(3 * uploads.PART))
    assert SEND in store.asked
    assert store.objects() == {}
    assert store.unfinished() == []


def test_a_refused_end_to_a_failure_hides_it_from_nobody(repository: Any, store: Store) -> None:
    store.refuses = ABORT

    async def cut() -> AsyncIterator[bytes]:
        yield bytes(3 * uploads.PART)
        yield bytes(uploads.HELD + 1)
        raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError):
        asyncio.run(repository.log_artifact_from_async_stream(cut(), "a", "1/run"))
    assert ABORT in store.asked


def test_a_file_as_large_as_s3_takes_one_has_no_more_parts_than_it_takes() -> None:
    sizes = [uploads.size_of(number) for number in range(1, 10_001)]
    assert sum(sizes) >= 5 << 40
    assert all(5 << 20 <= size <= 5 << 30 for size in sizes)
    assert sizes == sorted(sizes)
    assert set(sizes[:5000]) == {uploads.PART}


def test_parts_of_another_size_make_the_same_file(
    repository: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "size_of", lambda number: 5 * MB if number < 3 else 20 * MB)
    content = content_of(50 * MB)
    upload(repository, content)
    assert [told for told, _ in store.objects().values()] == [content]
    assert store.asked[:6] == [BEGIN, *[SEND] * 4, END]


def test_each_part_is_told_of_the_bucket_s_owner(repository: Any, store: Store) -> None:
    asked = []
    repository._bucket_owner_params = {"ExpectedBucketOwner": "123456789012"}
    note = lambda params, model, **_: asked.append(params.get("ExpectedBucketOwner"))  # noqa: E731
    store.client.meta.events.register("before-parameter-build.s3", note)
    upload(repository, content_of(2 * uploads.PART))
    assert asked == ["123456789012"] * 4


@pytest.mark.parametrize("name", ["", ".", "x" * (names.LONGEST + 1)])
def test_what_names_no_file_is_refused(repository: Any, store: Store, name: str) -> None:
    with pytest.raises(MlflowException, match="names no file"):
        upload(repository, b"x", name)
    assert store.asked == []


def test_what_flask_takes_is_sent_as_well(repository: Any, store: Store, tmp_path: Path) -> None:
    repository.log_artifact_from_stream(io.BytesIO(b"x"), "a", "1/run")
    assert [(key, told) for key, (told, _) in store.objects().items()] == [
        (f"{ROOT}/1/run/a", b"x")
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_repository_that_is_not_in_s3_stays_as_it_is(tmp_path: Path) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    local = LocalArtifactRepository(str(tmp_path))
    before = dict(vars(local))
    uploads.stand(local)
    assert vars(local) == before
