"""Streams that are sent to the bucket while they are made, and what was sent."""

import hashlib
import os
import subprocess

import databases
from boto3.s3.transfer import TransferConfig

PART, PARTS = 8 << 20, 9_000  # bytes of a part, and how many there are at most; S3 takes 10,000
AT_ONCE = 4  # parts on their way, which keep the memory below 200 MB


class NotPacked(Exception):
    """zstd could not pack a file."""


class Counted:
    """A stream of some `most` bytes that is read once, with its bytes and their SHA-256."""

    def __init__(self, stream, most):
        self.stream, self.most = stream, most
        self.bytes, self.sha = 0, hashlib.sha256()

    def read(self, size=-1):
        block = self.stream.read(size)
        self.bytes += len(block)
        self.sha.update(block)
        return block


class Packed(Counted):
    """What zstd makes of a file; in the place of its end NotPacked is raised where zstd fails."""

    def __init__(self, path):
        # Behind the check, which takes longer.
        command = ["nice", "-n", str(databases.LEAST), "zstd", "-1", "-q", "-c", path]
        self.packing = subprocess.Popen(command, stdout=subprocess.PIPE)
        super().__init__(self.packing.stdout, os.path.getsize(path))
        self.path = path

    def read(self, size=-1):
        block = super().read(size)
        ended = size < 0 or len(block) < size
        if ended and self.packing.wait():
            raise NotPacked(f"zstd could not pack {self.path} ({self.packing.returncode})")
        return block

    def give_up(self):
        """Let whoever reads it fail at once."""
        self.packing.kill()

    def close(self):
        self.give_up()
        self.stream.close()
        self.packing.wait()


def transfer(most):
    """Return how boto3 sends a stream of some `most` bytes."""
    part = max(PART, most // PARTS)
    config = TransferConfig(multipart_chunksize=part, max_concurrency=AT_ONCE)
    # Parts of a stream wait in memory. boto3 has no word for how many; s3transfer beneath it has.
    config.max_in_memory_upload_chunks = AT_ONCE
    return config
