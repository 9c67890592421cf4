"""Programs of the host's, imported into the tests' process."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from host_side import HOST


@pytest.fixture
def databases(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HOST))
    return importlib.import_module("databases")
