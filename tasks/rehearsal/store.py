"""Stand in for AWS: moto's server answers as S3, STS, IAM, EC2 and the instance's metadata."""

from __future__ import annotations

import socket
import sys
import time
from typing import TYPE_CHECKING

from invoke.exceptions import Exit

from tasks.engine.records import dataclass
from tasks.rehearsal import processes

if TYPE_CHECKING:
    from pathlib import Path
    from urllib.request import OpenerDirector

BUCKET = "REMOTE_MLFLOW_BUCKET"

USUAL_PORT = 9000

PATIENCE = 60.0

VERSIONED = (
    b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Status>Enabled</Status></VersioningConfiguration>"
)


@dataclass(frozen=True)
class Store:
    """A running moto server."""

    address: str
    port: int
    bucket: str

    @property
    def endpoint(self) -> str:
        """Spell the URL that stands for every AWS endpoint."""
        return f"http://{self.address}:{self.port}"

    def make_bucket(self) -> None:
        """Make the bucket, versioned, in us-east-1; one that is there already is fine."""
        from urllib.error import HTTPError

        try:
            self._put(f"/{self.bucket}", b"")
            self._put(f"/{self.bucket}?versioning", VERSIONED)
        except HTTPError as error:
            # Somebody has switched moto's access control on, so the bucket was made before.
            if error.code != 403:
                raise

    def wait(self, mark: str, log: Path) -> None:
        """Wait until it answers, then make its bucket.

        Raises Exit with the last line of its log when it does not start.
        """
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > deadline or not processes.marked(mark):
                last = log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise Exit(f"moto's server did not start: {last}. Look at {log}.")
            time.sleep(0.05)
        self.make_bucket()

    def _answers(self) -> bool:
        try:
            _opener().open(f"{self.endpoint}/moto-api/", timeout=10).close()
        except OSError:
            return False
        return True

    def _put(self, path: str, body: bytes) -> None:
        from urllib.request import Request

        request = Request(f"{self.endpoint}{path}", data=body, method="PUT")
        request.add_header("Content-Type", "application/xml")
        _opener().open(request, timeout=30).close()


def moto(address: str, port: int) -> list[str]:
    """Spell the command line of moto's server, in the very Python that runs this."""
    return [sys.executable, "-m", "moto.server", "--host", address, "--port", str(port)]


def running(mark: str) -> Store | None:
    """Find the server that carries the mark."""
    for process in processes.marked(mark):
        if "moto.server" in process.argv:
            *_, address, _, port = process.argv
            return Store(address, int(port), process.environment[BUCKET])
    return None


def start(address: str, bucket: str, mark: str, log: Path) -> Store:
    """Start a server on an address, detached; the usual port if that is free there."""
    store = Store(address, free_port(address), bucket)
    processes.detach(moto(address, store.port), mark, log, **{BUCKET: bucket})
    return store


def free_port(address: str) -> int:
    """Choose a port that nothing listens on; the usual one first, so that it stays the same."""
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Exit(f"No port is free on {address}. Stop some program that listens there.")


def _opener() -> OpenerDirector:
    from urllib.request import ProxyHandler, build_opener

    # The store is on this machine: never ask a proxy for it.
    return build_opener(ProxyHandler({}))
