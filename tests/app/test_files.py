"""A file is fetched from the bucket, never a folder."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from mlflow.exceptions import MlflowException
from starlette.requests import ClientDisconnect

from tasks.engine.templates import FILES

sys.path.insert(0, str(FILES / "app"))

from remote_mlflow_app import files


class Bucket:
    """What MLflow has for a bucket: it answers with files, or with an error of S3's."""

    def __init__(self, error: str = "") -> None:
        self.error = error

    def _download_file(self, remote: str, place: str) -> None:
        if self.error:
            raise ClientError({"Error": {"Code": self.error}}, "HeadObject")
        Path(place).write_text(remote)


def test_a_file_is_fetched_by_its_name(tmp_path: Path) -> None:
    place = files.one_file(Bucket(), "1/run/artifacts/model/MLmodel", str(tmp_path))
    assert place == str(tmp_path / "MLmodel")
    assert Path(place).read_text() == "1/run/artifacts/model/MLmodel"


@pytest.mark.parametrize("path", ["", None, "1/", ".", "1/.", "x" * 256, "é" * 200])
def test_what_is_no_file_is_not_fetched(path: str | None, tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match="names no file") as refused:
        files.one_file(Bucket(), path, str(tmp_path))
    assert refused.value.get_http_status_code() == 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", ["404", "NoSuchKey"])
def test_what_is_not_there_is_404(code: str, tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match="no file 'x'") as absent:
        files.one_file(Bucket(code), "x", str(tmp_path))
    assert absent.value.get_http_status_code() == 404


def test_what_the_bucket_refuses_is_no_answer_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ClientError):
        files.one_file(Bucket("AccessDenied"), "x", str(tmp_path))


class Body(io.BytesIO):
    """An answer of the store, which hangs up after some bytes."""

    def __init__(self, content: bytes, ends: int | None) -> None:
        super().__init__(content)
        self.ends = ends

    def read(self, size: int | None = -1) -> bytes:
        if self.ends is not None and self.tell() >= self.ends:
            raise ReadTimeoutError(endpoint_url="http://store")
        return super().read(size)


class Store:
    """A repository and its client: each answer hangs up after as many bytes as `ends` says."""

    artifact_uri = "s3://bucket/root"
    _bucket_owner_params: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, content: bytes, *ends: int | None) -> None:
        self.content, self.ends, self.asked = content, list(ends), list[dict[str, Any]]()
        self.bodies: list[Body] = []

    def _get_s3_client(self) -> Store:
        return self

    def parse_s3_compliant_uri(self, uri: str) -> tuple[str, str]:
        return "bucket", "root"

    def get_object(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        content = self.content[int(asked.get("Range", "bytes=0-")[6:-1]) :]
        self.bodies.append(Body(content, self.ends.pop(0) if self.ends else None))
        return {"ContentLength": len(content), "ETag": '"one"', "Body": self.bodies[-1]}


WHOLE = bytes(range(256)) * 16384  # 4 MB


@pytest.mark.parametrize("content", [b"", b"x", WHOLE, WHOLE + b"x"])
def test_a_file_is_streamed_as_it_is(content: bytes) -> None:
    stored = files.Stored(Store(content), "a/b")
    assert stored.length == len(content)
    assert b"".join(stored.pieces()) == content


def test_what_the_store_cut_goes_on_from_there_in_the_same_version() -> None:
    store = Store(WHOLE, 2 * files.PIECE, files.PIECE)
    assert b"".join(files.Stored(store, "a/b").pieces()) == WHOLE
    place = {"Bucket": "bucket", "Key": "root/a/b"}
    again = [{**place, "Range": f"bytes={n << 20}-", "IfMatch": '"one"'} for n in (2, 3)]
    assert store.asked == [place, *again]


def test_a_store_that_only_hangs_up_cuts_the_answer() -> None:
    store = Store(WHOLE, *[0] * 9)
    with pytest.raises(ReadTimeoutError):
        list(files.Stored(store, "a/b").pieces())
    assert len(store.asked) == 1 + files.TRIES


def test_a_wrong_sum_keeps_the_last_piece_back() -> None:
    pieces = files.Stored(Store(WHOLE, len(WHOLE)), "a/b").pieces()
    sent = [next(pieces) for _ in range(3)]
    with pytest.raises(ReadTimeoutError):
        next(pieces)
    assert b"".join(sent) == WHOLE[: -files.PIECE]


@pytest.mark.parametrize("version", ["2.3", "2.4"])
@pytest.mark.parametrize("leaves_at", ["http.response.start", "http.response.body"])
def test_where_a_client_leaves_the_store_is_left_as_well(version: str, leaves_at: str) -> None:
    store = Store(WHOLE)

    async def play() -> None:
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == leaves_at:
                gone.set()
                if version == "2.4":
                    raise OSError
                await asyncio.sleep(3600)

        answer = files.Streamed(files.Stored(store, "a/b"), {})
        scope = {"type": "http", "asgi": {"spec_version": version}}
        with contextlib.suppress(ClientDisconnect):
            await asyncio.wait_for(answer(scope, receive, send), 20)
        assert store.bodies[-1].closed

    asyncio.run(play())


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], Any]:
    async def known(path: str) -> str:
        return f"MLflow's own {path}"

    def answer(repository: Any, path: str) -> Any:
        monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        found = lambda: repository  # noqa: E731
        monkeypatch.setattr(files.handlers, "_get_artifact_repo_mlflow_artifacts", found)
        return asyncio.run(files.streaming(known)(path))

    return answer


def test_an_answer_says_its_length_and_is_no_page(answered: Callable[[Any, str], Any]) -> None:
    answer = answered(Store(b"<html>"), "1/é.html")
    assert dict(answer.headers) == {
        "content-type": "text/html",
        "content-disposition": "attachment; filename=e.html; filename*=UTF-8''%C3%A9.html",
        "x-content-type-options": "nosniff",
        "content-length": "6",
    }
    assert answered(SimpleNamespace(), "1/a") == "MLflow's own 1/a"


def test_the_route_says_what_is_no_file(answered: Callable[[Any, str], Any]) -> None:
    class Empty(Store):
        def get_object(self, **asked: Any) -> dict[str, Any]:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")

    assert answered(Empty(b""), "1/a").status_code == 404
    assert answered(Empty(b""), "1/").status_code == 400
    assert answered(Empty(b""), "1/../../a").status_code == 400


@pytest.mark.parametrize("api", ["api", "ajax-api"])
def test_the_route_stands_before_mlflow_s_own(monkeypatch: pytest.MonkeyPatch, api: str) -> None:
    from fastapi import FastAPI

    app = FastAPI()
    app.include_router(files.artifact_router.artifact_router)
    monkeypatch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    monkeypatch.setattr(files, "fetch_single_files", lambda: None)
    store = Store(WHOLE)
    monkeypatch.setattr(files.handlers, "_get_artifact_repo_mlflow_artifacts", lambda: store)
    files.stand(app)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if sent and not sent[-1].get("more_body", True):
            return {"type": "http.disconnect"}
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    path = f"/{api}/2.0/mlflow-artifacts/artifacts/1/a b"
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": [],
        "query_string": b"", "root_path": "", "http_version": "1.1", "scheme": "http",
        "server": ("localhost", 80), "asgi": {"version": "3.0", "spec_version": "2.4"},
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    head, *pieces = sent
    assert (head["status"], dict(head["headers"])[b"content-length"]) == (200, b"4194304")
    assert b"".join(piece.get("body", b"") for piece in pieces) == WHOLE
    assert store.asked == [{"Bucket": "bucket", "Key": "root/1/a b"}]
