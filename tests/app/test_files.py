"""A file is fetched from the bucket, never a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from mlflow.exceptions import MlflowException

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
