"""Have the server pass a file on from the bucket, and never a folder.

Asked for a folder, MLflow downloads all that lies in it to its disk before it says that this is no
file; and the root of the proxy (`GET …/mlflow-artifacts/artifacts/`) is every experiment's folder,
open to whoever has READ by default. A file that is not there was answered 500 besides, and clients
asked for it again and again.

The proxy's route streams what it reads from S3, so that nothing lies on the server's disk. Its
answer says how long the file is: one that ends in the middle is no whole file to any client. What
else needs a file downloads one.
"""

import asyncio
import contextlib
import functools
import json
import os
import posixpath
import tempfile

from botocore.exceptions import BotoCoreError, ClientError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.server import artifact_router, handlers
from mlflow.utils.uri import validate_path_is_safe

from . import names, uploads

ABSENT = frozenset({"404", "NoSuchKey"})
PIECE = 1 << 20  # bytes that are read at once
TRIES = 3  # in turn, without a byte between them


def one_file(repository, artifact_path, dst_path=None):
    """Download one file; return its path, or raise what MLflow answers with 400 or 404."""
    name = names.name_of(artifact_path)
    place = os.path.join(dst_path or tempfile.mkdtemp(), name)
    with absent_is_404(artifact_path):
        repository._download_file(artifact_path, place)
    return place


@contextlib.contextmanager
def absent_is_404(artifact_path):
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in ABSENT:
            raise
        message = f"There is no file {artifact_path!r}."
        raise MlflowException(message, RESOURCE_DOES_NOT_EXIST) from error


class Stored:
    """A file in the bucket, read once from its begin to its end."""

    def __init__(self, repository, artifact_path):
        bucket, root = repository.parse_s3_compliant_uri(repository.artifact_uri)
        key = posixpath.join(root, artifact_path)
        owner = repository._bucket_owner_params or {}
        client = repository._get_s3_client()
        self._get = functools.partial(client.get_object, Bucket=bucket, Key=key, **owner)
        with absent_is_404(artifact_path):
            found = self._get()
        self.length, self._etag = found["ContentLength"], found["ETag"]
        self._body, self._read = found["Body"], 0

    def pieces(self):
        """Yield the bytes; where the store hangs up, go on from there with the same version."""
        failed = 0
        while self._read < self.length:
            try:
                piece = self.piece()
            except BotoCoreError:
                failed += 1
                if failed > TRIES or self._read == self.length:
                    raise
                self.resume()
                continue
            failed = 0
            yield piece

    def piece(self):
        piece = self._body.read(PIECE)
        self._read += len(piece)
        if self._read == self.length:
            self._body.read(1)  # checks the sum: a wrong one must keep the last piece back
        return piece

    def resume(self):
        self.close()
        self._body = self._get(Range=f"bytes={self._read}-", IfMatch=self._etag)["Body"]

    def close(self):
        self._body.close()


class Streamed(StreamingResponse):
    """An answer that ends its connection to the store with itself, also where a client leaves."""

    def __init__(self, stored, headers):
        super().__init__(stored.pieces(), headers=headers)
        self._stored = stored

    async def __call__(self, scope, receive, send):
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stored.close()


def streaming(known):
    """Return the proxy's route for a download; `known` is MLflow's, for what is not in S3."""

    async def download_artifact(artifact_path: str):
        if not artifact_router._is_serving_proxied_artifacts():
            return await known(artifact_path)
        try:
            path = validate_path_is_safe(artifact_path)
            path = handlers._get_workspace_scoped_repo_path_if_enabled(path)
            repository = handlers._get_artifact_repo_mlflow_artifacts()
            if not hasattr(repository, "_get_s3_client"):
                return await known(artifact_path)
            name = names.name_of(path)
            stored = await asyncio.to_thread(Stored, repository, path)
        except MlflowException as error:
            told = json.loads(error.serialize_as_json())
            return JSONResponse(told, error.get_http_status_code())
        headers = {
            "Content-Type": artifact_router._guess_mime_type(name),
            "Content-Disposition": handlers._content_disposition_attachment(name),
            "X-Content-Type-Options": "nosniff",
            "Content-Length": str(stored.length),
        }
        return Streamed(stored, headers)

    return download_artifact


def stand(app):
    """Have all of MLflow's handlers fetch so; AttributeError where a release's has other names."""
    known = artifact_router.download_artifact
    ours = streaming(known)
    # Before MLflow's, which includes its own lazily; its others would all be looked at first.
    app.router.routes[:0] = [
        APIRoute(route.path, ours, methods=["GET"]) if route.endpoint is known else route
        for route in artifact_router.artifact_router.routes
    ]
    fetch_single_files()


def fetch_single_files():
    known = handlers._get_artifact_repo_mlflow_artifacts

    @functools.cache
    def repository():
        found = known()
        assert found._download_file, found
        if found.get_local_path("x") is None:
            found.download_artifacts = functools.partial(one_file, found)
        uploads.stand(found)
        return found

    handlers._get_artifact_repo_mlflow_artifacts = repository
