"""Our dataclass beside Python's own: values are compared, hashed, shown and kept alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from tasks.engine import records


def made(by: Callable[..., Any], **how: bool) -> Any:
    """Make the same class by one of both."""

    @by(**how)
    class Door:
        """A door, as a task would describe one."""

        name: str
        width: int = 1
        key: str = dataclasses.field(default="", repr=False)
        seen: int = dataclasses.field(default=0, compare=False)
        parts: tuple[str, ...] = ()
        kinds: ClassVar[int] = 7

        @property
        def area(self) -> int:
            return self.width * 2

    Door.__qualname__ = "Door"
    return Door


BOTH = pytest.mark.parametrize("by", [records.dataclass, dataclasses.dataclass])


@BOTH
def test_values_are_compared_and_hashed_by_what_counts(by):
    door = made(by, frozen=True)
    assert door("a", 2) == door("a", 2, seen=9)
    assert door("a", 2) != door("a", 3)
    assert door("a") != door("a", key="x")
    assert door("a") != made(by, frozen=True)("a"), "another class"
    assert door("a") != ("a", 1, "", ())
    assert len({door("a"), door("a", seen=3), door("b")}) == 2


@BOTH
def test_a_field_that_is_not_shown_is_not_shown(by):
    assert repr(made(by, frozen=True)("a", key="secret")) == (
        "Door(name='a', width=1, seen=0, parts=())"
    )


@BOTH
def test_what_is_frozen_cannot_be_changed(by):
    door = made(by, frozen=True)("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        door.name = "b"
    with pytest.raises(dataclasses.FrozenInstanceError):
        del door.name
    assert dataclasses.replace(door, name="b").name == "b"


@BOTH
def test_what_is_not_frozen_has_no_hash(by):
    door = made(by)("a")
    door.name = "b"
    assert dataclasses.asdict(door)["name"] == "b"
    with pytest.raises(TypeError):
        hash(door)


@BOTH
def test_what_is_ordered_is_sorted(by):
    door = made(by, frozen=True, order=True)
    assert sorted([door("b"), door("a", 2), door("a")]) == [door("a"), door("a", 2), door("b")]


@BOTH
def test_a_class_keeps_the_methods_that_are_its_own(by):
    @by(frozen=True)
    class Name:
        """A name, whatever its case."""

        text: str

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Name) and self.text.lower() == other.text.lower()

        def __hash__(self) -> int:
            return hash(self.text.lower())

        def __repr__(self) -> str:
            return self.text

    assert Name("A") == Name("a")
    assert len({Name("A"), Name("a")}) == 1
    assert repr(Name("A")) == "A"
