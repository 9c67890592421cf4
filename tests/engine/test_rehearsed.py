"""What rehearsal hosts are told instead of the operator's own settings."""

from __future__ import annotations

import pytest
from invoke import Exit

from tasks.engine import paths, rehearsed
from tasks.engine.settings import Settings

TOLD = {
    "sandbox": {
        "settings": {"bucket": "toy-bucket", "endpoint_url": "http://10.0.0.1:9000"},
        "variables": {"AWS_ACCESS_KEY_ID": "rehearsal"},
    }
}


def test_nothing_is_rehearsed_where_nobody_rehearsed():
    assert rehearsed.rehearsed("sandbox") is None


def test_what_was_told_comes_back():
    rehearsed.remember(TOLD)
    found = rehearsed.rehearsed("sandbox")
    assert found is not None
    assert found.settings == Settings(bucket="toy-bucket", endpoint_url="http://10.0.0.1:9000")
    assert found.variables == {"AWS_ACCESS_KEY_ID": "rehearsal"}


def test_a_real_host_is_none_of_them():
    rehearsed.remember(TOLD)
    assert rehearsed.rehearsed("ec2") is None


def test_what_was_told_before_is_replaced():
    rehearsed.remember(TOLD)
    rehearsed.remember({"sandbox-2": TOLD["sandbox"]})
    assert rehearsed.rehearsed("sandbox") is None


def test_forgetting_leaves_nothing_and_may_be_done_twice():
    rehearsed.remember(TOLD)
    rehearsed.forget()
    rehearsed.forget()
    assert rehearsed.rehearsed("sandbox") is None
    assert list(paths.state().iterdir()) == []


def test_a_setting_that_is_no_longer_known_is_named():
    rehearsed.remember({"sandbox": {"settings": {"old": "x"}, "variables": {}}})
    with pytest.raises(Exit, match="Unknown setting `mlflow: old:`"):
        rehearsed.rehearsed("sandbox")
