"""A store that plays S3: moto, behind a door that can refuse; and sessions that are made once."""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import boto3
from moto.s3.models import s3_backends
from moto.server import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # else every request needs a connection and a thread of its own

    def log(self, *words: Any) -> None:
        pass


class Store:
    """moto behind a door that can refuse: notes every request, fails what it is told to."""

    def __init__(self) -> None:
        self._moto = create_backend_app("s3")
        self.requests: list[str] = []
        self.faults: list[list[Any]] = []  # pattern, status, code, how often
        self.deaf_to: tuple[str, ...] = ()
        self.guard: Callable[[str], bool] | None = None
        self._clients: dict[str, Any] = {}
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def refuse(
        self, pattern: str, code: str = "AccessDenied", status: int = 403, times: float = math.inf
    ) -> None:
        """Answer requests such as 'GET /bucket/key?query' with an error of S3's, so many times."""
        self.faults.append([pattern, status, code, times])

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        query = environ.get("QUERY_STRING")
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        request += f"?{query}" if query else ""
        self.requests.append(request)
        # A policy that holds for this request alone.
        denied = [["", 403, "AccessDenied", 1]] if self.guard and not self.guard(request) else []
        for fault in denied + self.faults:
            pattern, status, code, times = fault
            if times and re.match(pattern, request):
                fault[3] -= 1
                length = int(environ.get("CONTENT_LENGTH") or 0)
                environ["wsgi.input"].read(length)
                body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
                if status == 200:
                    body = b"other than what was sent"
                if request.startswith("HEAD"):
                    body = b""
                start_response(f"{status} x", [("Content-Length", str(len(body)))])
                return [body]
        for header in self.deaf_to:
            environ.pop(header, None)
        return self._moto(environ, start_response)

    def close(self) -> None:
        self._server.shutdown()

    def reset(self) -> None:
        """Forget all buckets, which moto keeps in this very process."""
        self.requests, self.faults, self.deaf_to, self.guard = [], [], (), None
        s3_backends.reset()

    def client(self, region: str = "us-east-1") -> Any:
        """Look into it as nobody's script; clients are made once, for they take long to make."""
        if region not in self._clients:
            self._clients[region] = boto3.session.Session().client(
                "s3", endpoint_url=self.url, region_name=region, **TOY
            )
        return self._clients[region]

    def listing(self, bucket: str = "my-bucket") -> list[str]:
        found = self.client().list_objects_v2(Bucket=bucket)
        return [entry["Key"] for entry in found.get("Contents", [])]

    def body(self, key: str) -> bytes:
        return self.client().get_object(Bucket="my-bucket", Key=key)["Body"].read()


class Session(boto3.session.Session):
    """Make one client for all who ask alike: making it takes longer than most tests."""

    @cached_property
    def made(self) -> dict[str, Any]:
        return {}

    def client(self, service: str, *words: Any, **options: Any) -> Any:
        config = getattr(options.get("config"), "_user_provided_options", None)
        asked = repr((service, words, sorted((options | {"config": config}).items())))
        if asked not in self.made:
            self.made[asked] = super().client(service, *words, **options)
        return self.made[asked]


def session(*keys: str, **options: str) -> Any:
    """Return the session asked for; that of the environment's keys is one while it asks alike."""
    elsewhere = keys or options or Path.home().joinpath(".aws").exists()
    if elsewhere or "AWS_SECRET_ACCESS_KEY" not in os.environ:  # where it may ask for anything
        return Session(*keys, **options)
    return _session(*sorted(pair for pair in os.environ.items() if pair[0].startswith("AWS_")))


@cache
def _session(*variables: tuple[str, str]) -> Session:
    made = Session()
    made.get_credentials()  # these, whatever the environment is once somebody wants a client
    return made


TOY = {"aws_access_key_id": "toy", "aws_secret_access_key": "toy"}
