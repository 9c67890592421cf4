"""Take what a client uploads with fewer steps on its way to the bucket.

MLflow hands each piece of a file to a thread that writes it to the disk, and begins to send it once
all of it has come, by ten threads, however small it is. Here a small file stays in memory and is
sent as one request; of a large one, parts are on their way to the bucket while it still comes, and
only those that have not arrived there are kept: a few in memory, and all others on the disk. It is
there once it is whole, and only then: S3 puts the parts together when it is told to.
"""

import asyncio
import contextlib
import os
import posixpath
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

from botocore.exceptions import BotoCoreError, ClientError
from mlflow.store.artifact.artifact_repo import StreamUploadMixin

from . import names

# Bytes of each file that are held in memory: whoever uploads slowly, on many connections, holds as
# many of them.
HELD = 1 << 18
PART = 8 << 20  # bytes, as boto3 has them
ALIKE = 5_000  # parts of that size: some stores want them all alike, and S3 takes 10,000 of a file
LARGEST = 4 << 30  # bytes; S3 takes parts of 5 GB, and files of 5 TB
AHEAD = 4  # parts of one file that are on their way at once
# Parts of all files together that are kept there; over https boto3 copies each as it sends it.
IN_MEMORY = 8
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
                    await growing.write(b"".join(held))
                    held, size = [], 0
            # Of bytes boto3 makes a file, and asks the store before it sends; this goes at once.
            rest = bytearray().join(held)
            if growing:
                await growing.finish(rest)
            else:
                await asyncio.to_thread(self.log_small, name, artifact_path, rest)

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


class Buffers:
    """Room in memory for the parts of all files, used again and again; none once nobody has any."""

    def __init__(self, count):
        self.count = self.left = count
        self.free = []
        # Python looks for garbage at any moment, and may then give back a part in this very thread.
        self.lock = threading.RLock()

    def take(self):
        """Return a buffer for one part, or None where all are in use."""
        with self.lock:
            if not self.left:
                return None
            self.left -= 1
            return self.free.pop() if self.free else bytearray(PART)

    def give(self, buffer):
        with self.lock:
            self.left += 1
            self.free.append(buffer)
            if self.left == self.count:
                self.free.clear()


BUFFERS = Buffers(IN_MEMORY)


class InMemory:
    """A part in a buffer."""

    def __init__(self, buffer):
        self.buffer, self.size = buffer, 0

    async def write(self, piece):
        self.buffer[self.size : self.size + len(piece)] = piece
        self.size += len(piece)

    def body(self):
        """Return what was written as a bytearray."""
        return self.buffer if self.size == len(self.buffer) else self.buffer[: self.size]

    def close(self):
        buffer, self.buffer = self.buffer, None
        if buffer is not None:
            BUFFERS.give(buffer)

    __del__ = close  # a part that is taken back before anybody began to send it


class OnDisk:
    """A part in a file."""

    def __init__(self):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)

    async def write(self, piece):
        await asyncio.to_thread(self.file.write, piece)

    def body(self):
        self.file.seek(0)
        return self.file

    def close(self):
        self.file.close()


def new_part(size):
    """Return where a part of so many bytes is kept until it is sent."""
    buffer = BUFFERS.take() if size == PART else None
    return OnDisk() if buffer is None else InMemory(buffer)


class Growing:
    """A file whose parts are sent while it comes.

    Each is kept until it is sent. It is closed by whoever sends it, and by nobody else: its room
    may be another part's from then on.
    """

    def __init__(self, repository, name, artifact_path):
        self.repository, self.name, self.artifact_path = repository, name, artifact_path
        self.client = repository._get_s3_client()
        self.upload, self.parts, self.part = None, [], None

    async def __aenter__(self):
        self.begin_part()
        return self

    async def __aexit__(self, error, *_):
        try:
            if error:
                await self.give_up()
        finally:
            if self.part:
                self.part.close()  # fails where the disk is full

    def begin_part(self):
        self.room = size_of(len(self.parts) + 1)
        self.part = new_part(self.room)

    async def write(self, content):
        rest = memoryview(content)
        while rest:
            if not self.room:
                await self.send_part()
            piece, rest = rest[: self.room], rest[self.room :]
            await self.part.write(piece)
            self.room -= len(piece)

    async def finish(self, content):
        await self.write(content)
        if self.parts:
            await self.send_part()
            parts = await asyncio.gather(*map(asyncio.wrap_future, self.parts))
            await asyncio.to_thread(self.put_together, parts)
        else:
            await asyncio.to_thread(self.send_whole, self.handed_over())

    def handed_over(self):
        part, self.part = self.part, None
        return part

    def send_whole(self, part):
        with contextlib.closing(part):
            self.send(AtOnce(self.client, part.body()))

    def send(self, client):
        send(self.repository, client, self.name, self.artifact_path)

    async def send_part(self):
        if self.upload is None:
            await asyncio.to_thread(self.send, self)
        if len(self.parts) >= AHEAD:
            await asyncio.wrap_future(self.parts[-AHEAD])
        self.parts.append(SENDERS.submit(self.upload_part, len(self.parts) + 1, self.handed_over()))
        self.begin_part()

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

    def upload_part(self, number, part):
        with contextlib.closing(part):
            answer = self.client.upload_part(
                PartNumber=number, Body=part.body(), **self.upload, **self.sums
            )
        kept = {"ETag", *(f"Checksum{name}" for name in self.sums.values())}
        return {"PartNumber": number, **{name: answer[name] for name in kept if name in answer}}

    def put_together(self, parts):
        self.client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **self.upload)

    async def give_up(self):
        """Take back the parts that were sent; a bucket's own rule takes those that stay."""
        await asyncio.gather(*map(asyncio.wrap_future, self.parts), return_exceptions=True)
        if self.upload:
            with contextlib.suppress(BotoCoreError, ClientError):
                await asyncio.to_thread(self.abort)

    def abort(self):
        owner = {name: value for name, value in self.upload.items() if not name.startswith("SSE")}
        self.client.abort_multipart_upload(**owner)


def size_of(number):
    """Return the bytes of a part: those of very large files are larger, or S3 would run out."""
    steps = max(0, (number - 1 - ALIKE) // 1000 + 1)
    return min(PART << 2 * steps, LARGEST)
