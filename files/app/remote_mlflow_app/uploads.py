"""Take what a client uploads with fewer steps on its way to the bucket.

MLflow hands each piece of a file to a thread that writes it to the disk, and begins to send it once
all of it has come, by ten threads, however small it is. Here a small file stays in memory and is
sent as one request; of a large one, parts are on their way to the bucket while it still comes. It
is there once it is whole, and only then: S3 puts the parts together when it is told to.
"""

import asyncio
import contextlib
import os
import posixpath
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

from botocore.exceptions import BotoCoreError, ClientError
from mlflow.store.artifact.artifact_repo import StreamUploadMixin
from s3transfer.utils import ReadFileChunk

from . import names

# Bytes that are held in memory: whoever uploads slowly, on many connections, holds as many of them.
HELD = 1 << 18
PART = 8 << 20  # bytes, as boto3 has them
MOST = 10_000  # parts of one upload, by S3
AHEAD = 4  # parts of one file that are on their way at once
# Threads for the parts of all files, apart from those that write what comes.
SENDERS = ThreadPoolExecutor(10, "upload")
# What S3 wants to be told again of each part, and of the whole; s3transfer has the same.
REPEATED = ("ExpectedBucketOwner", "RequestPayer", "SSECustomerAlgorithm", "SSECustomerKey",
            "SSECustomerKeyMD5")  # fmt: skip


def stand(repository):
    """Have a repository in S3 take uploads so; any other stays as it is."""
    if hasattr(repository, "_upload_file") and not isinstance(repository, StreamUploadMixin):
        ours = Uploads(repository)
        repository.log_artifact_from_async_stream = ours.log_artifact_from_async_stream
        repository.log_artifact_from_stream = ours.log_artifact_from_stream
        StreamUploadMixin.register(type(repository))


class Uploads:
    """What MLflow's routes ask of a repository that takes a file as it comes."""

    def __init__(self, repository):
        self.repository = repository

    async def log_artifact_from_async_stream(self, chunks, artifact_file_name, artifact_path=None):
        name, held, size, growing = names.name_of(artifact_file_name), [], 0, None
        async with contextlib.AsyncExitStack() as begun:
            async for chunk in chunks:
                held.append(chunk)
                size += len(chunk)
                if size > HELD:
                    if growing is None:
                        growing = Growing(self.repository, name, artifact_path)
                        await begun.enter_async_context(growing)
                    await growing.write(held)
                    held, size = [], 0
            if growing:
                await growing.finish(held)
            else:
                body = b"".join(held)
                await asyncio.to_thread(self.log_small, name, artifact_path, body)

    def log_small(self, name, artifact_path, body):
        client = AtOnce(self.repository._get_s3_client(), body)
        send(self.repository, client, name, artifact_path)

    def log_artifact_from_stream(self, stream, artifact_file_name, artifact_path=None):
        with tempfile.TemporaryDirectory() as folder:
            place = os.path.join(folder, names.name_of(artifact_file_name))
            with open(place, "wb") as file:
                shutil.copyfileobj(stream, file)
            self.repository.log_artifact(place, artifact_path)


def send(repository, client, place, artifact_path):
    """Have MLflow call the client's `upload_file` as it does for a file at this place."""
    bucket, root = repository.parse_s3_compliant_uri(repository.artifact_uri)
    key = posixpath.join(root, artifact_path or "", os.path.basename(place))
    repository._upload_file(s3_client=client, local_file=place, bucket=bucket, key=key)


class AtOnce:
    """A client for S3 that uploads what it was given instead of a file's content."""

    def __init__(self, client, body):
        self.client, self.body = client, body

    def upload_file(self, Filename, Bucket, Key, ExtraArgs):
        self.client.put_object(Bucket=Bucket, Key=Key, Body=self.body, **ExtraArgs)


class Growing:
    """A file on the disk that is written as it comes, and whose parts are sent meanwhile."""

    def __init__(self, repository, name, artifact_path):
        self.repository, self.name, self.artifact_path = repository, name, artifact_path
        self.client = repository._get_s3_client()
        self.length = self.sent = 0
        self.upload, self.parts = None, []

    async def __aenter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.place = os.path.join(self.folder.name, self.name)
        return self

    async def __aexit__(self, error, *_):
        try:
            if error:
                await self.give_up()
        finally:
            await asyncio.to_thread(self.folder.cleanup)

    async def write(self, pieces):
        await asyncio.to_thread(append, self.place, pieces)
        self.length += sum(map(len, pieces))
        while self.length - self.sent > PART and len(self.parts) < MOST:
            await self.send_part(PART)

    async def finish(self, pieces):
        await self.write(pieces)
        if self.parts and len(self.parts) < MOST:
            await self.send_part(self.length - self.sent)
            parts = await asyncio.gather(*self.parts)
            await asyncio.to_thread(self.put_together, parts)
        else:  # so short that it is one part, or so long that these would have to be larger
            await self.give_up()
            await asyncio.to_thread(self.repository.log_artifact, self.place, self.artifact_path)

    async def send_part(self, size):
        if self.upload is None:
            await asyncio.to_thread(send, self.repository, self, self.place, self.artifact_path)
        if len(self.parts) >= AHEAD:
            await self.parts[-AHEAD]
        part = (len(self.parts) + 1, self.sent, size)
        sending = asyncio.get_running_loop().run_in_executor(SENDERS, self.upload_part, *part)
        self.parts.append(sending)
        self.sent += size

    def upload_file(self, Filename, Bucket, Key, ExtraArgs):
        """Begin what MLflow would have uploaded whole."""
        checked = self.client.meta.config.request_checksum_calculation == "when_supported"
        told = {**({"ChecksumAlgorithm": "CRC32"} if checked else {}), **ExtraArgs}
        begun = self.client.create_multipart_upload(Bucket=Bucket, Key=Key, **told)
        self.upload = {
            "Bucket": Bucket, "Key": Key, "UploadId": begun["UploadId"],
            **{name: told[name] for name in REPEATED if name in told},
        }  # fmt: skip
        self.sums = {name: told[name] for name in told if name == "ChecksumAlgorithm"}

    def upload_part(self, number, start, size):
        with ReadFileChunk.from_filename(self.place, start, size) as body:
            answer = self.client.upload_part(
                PartNumber=number, Body=body, **self.upload, **self.sums
            )
        kept = {"ETag", *(f"Checksum{name}" for name in self.sums.values())}
        return {"PartNumber": number, **{name: answer[name] for name in kept if name in answer}}

    def put_together(self, parts):
        self.client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **self.upload)

    async def give_up(self):
        """Take back the parts that were sent; a bucket's own rule takes those that stay."""
        await asyncio.gather(*self.parts, return_exceptions=True)
        if self.upload:
            with contextlib.suppress(BotoCoreError, ClientError):
                await asyncio.to_thread(self.abort)

    def abort(self):
        owner = {name: value for name, value in self.upload.items() if not name.startswith("SSE")}
        self.client.abort_multipart_upload(**owner)


def append(place, pieces):
    with open(place, "ab") as file:
        file.writelines(pieces)
