"""Values as people read them."""

from __future__ import annotations

import pytest

from tasks.engine.tables import counted, held, size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 users"),
        (1, "1 user"),
        (2, "2 users"),
        (None, "an unknown number of users"),
    ],
)
def test_one_of_them_is_no_plural(count, text):
    assert counted(count, "user") == text


def test_what_is_held_is_counted():
    assert held({"runs": 1, "users": 2}) == "1 run, 2 users"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (640, "640 bytes"),
        (12_000, "12 kB"),
        (900_000, "879 kB"),
        (1024**2, "1.0 MB"),
        (4.2 * 1024**2, "4.2 MB"),
        (17 * 1024**2, "17 MB"),
        (1.5 * 1024**3, "1.5 GB"),
    ],
)
def test_no_size_is_rounded_to_nothing(size, text):
    assert size_text(size) == text
