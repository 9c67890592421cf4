"""What is the request's own fault, and what the server's."""

from __future__ import annotations

import errno
import json
import sys
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from graphql import GraphQLSyntaxError, Source
from sqlalchemy.exc import IntegrityError, OperationalError

from tasks.engine.templates import FILES

sys.path.insert(0, str(FILES / "app"))

from remote_mlflow_app import mistakes


def of_s3(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}}, "GetObject")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Invalid IPv6 URL"),
        TypeError("unhashable type: 'list'"),
        KeyError("x"),
        UnicodeEncodeError("ascii", "é", 0, 1, "not in range"),
        GraphQLSyntaxError(Source("{"), 0, "Unexpected <EOF>"),
        IntegrityError("insert", {}, Exception("NOT NULL")),
        OSError(errno.ENAMETOOLONG, "File name too long"),
        of_s3("KeyTooLongError"),
        of_s3("NoSuchUpload"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_request_holds_is_its_own_fault(error: Exception) -> None:
    assert mistakes.is_mistake(error)
    said = json.loads(mistakes.told(error))
    assert said["error_code"] == "BAD_REQUEST"
    assert type(error).__name__ in said["message"]


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("select", {}, Exception("the database is gone")),
        OSError(errno.ENOSPC, "No space left on device"),
        EndpointConnectionError(endpoint_url="https://s3"),
        of_s3("ExpiredToken"),
        of_s3("AccessDenied"),
        of_s3("InternalError"),
        MemoryError(),
        RuntimeError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_server_lacks_stays_its_fault(error: Exception) -> None:
    assert not mistakes.is_mistake(error)
    with pytest.raises(type(error)):
        mistakes.told(error)


def test_a_mistake_behind_an_error_is_found() -> None:
    def raised(cause: Exception) -> Any:
        try:
            try:
                raise cause
            except Exception as error:
                raise RuntimeError("MLflow's") from error
        except RuntimeError as error:
            return error

    assert mistakes.is_caused(raised(ValueError("x")))
    assert not mistakes.is_caused(raised(OSError(errno.ENOSPC, "full")))
    assert not mistakes.is_caused(RuntimeError("alone"))
