"""Known vulnerabilities: one question to a database, else the floors that are known here."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from tasks.findings import advisories as known
from tasks.findings.advisories import Advisories, Advisory


def test_one_question_is_asked_for_all_packages(monkeypatch):
    asked: list[Any] = []

    def answer(request: Any, timeout: float) -> Any:
        asked.append(json.loads(request.data))
        return io.BytesIO(b'{"results": [{"vulns": [{"id": "GHSA-1"}, {"id": "CVE-2"}]}, {}]}')

    monkeypatch.setattr("urllib.request.urlopen", answer)
    found = known.advisories({"mlflow": "3.0.0", "jinja2": "3.1.6"})
    assert found == Advisories(
        (Advisory("mlflow", "3.0.0", "GHSA-1"), Advisory("mlflow", "3.0.0", "CVE-2")), "osv.dev"
    )
    assert asked == [{"queries": [
        {"package": {"name": "mlflow", "ecosystem": "PyPI"}, "version": "3.0.0"},
        {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": "3.1.6"},
    ]}]  # fmt: skip


@pytest.mark.parametrize("text", [b"not json", b"{}", b'{"results": []}', b'{"results": [3]}'])
def test_an_answer_that_makes_no_sense_is_none(monkeypatch, text):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(text))
    assert known.advisories({"mlflow": "3.17.2"}) == Advisories((), "files/advisories.txt")


@pytest.mark.usefixtures("unreached")
@pytest.mark.parametrize(
    ("version", "wanted"),
    [("3.17.2", 0), ("3.17.0", 0), ("3.16.0", 1), ("3.9.0", 2), ("2.21.3", 3), ("2.22.0rc0", 2)],
)
def test_below_a_floor_its_advisory_holds(version, wanted):
    assert len(known.advisories({"mlflow": version, "other": "0.1"}).found) == wanted


def test_what_is_installed_here_by_default_is_below_no_floor():
    from tasks.engine.settings import TESTED_VERSION

    assert known.below_floors({"mlflow": TESTED_VERSION}) == []


def test_nothing_installed_asks_nobody():
    assert known.advisories({}).found == ()


def test_every_floor_names_its_advisory():
    for package, version, advisory, words in known.floors():
        assert package == package.lower()
        assert known.number(version)
        assert re.fullmatch(r"(CVE-\d{4}-\d+|GHSA(-[a-z0-9]{4}){3})", advisory)
        assert words
