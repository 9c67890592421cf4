"""What every start reads, as plain data."""

from __future__ import annotations

import pytest

from tasks.engine.configuration import closest, host_names, nearest


@pytest.mark.parametrize(
    ("text", "names"), [("a,b", ["a", "b"]), (" a , b,", ["a", "b"]), ("a b", ["a", "b"])]
)
def test_what_h_was_given_is_split(text, names):
    assert host_names(text) == names


def test_nothing_near_is_no_guess():
    assert nearest("zzz", ["bucket"]) == ""


@pytest.mark.parametrize(
    ("word", "wanted"), [("prot", "port"), ("buket", "bucket"), ("zzz", None), ("PORT", "port")]
)
def test_the_closest_word_is_the_one_that_was_meant(word, wanted):
    assert closest(word, ["root", "port", "bucket"], 0.5) == wanted
