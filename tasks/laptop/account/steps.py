"""Several steps that belong together: all are done, or those that were are undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.records import dataclass
from tasks.laptop.account.refusals import said_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Step:
    """What is done, and what undoes it, also where it was done in part or not at all."""

    what: str
    do: Callable[[], object]
    undo: Callable[[], object] | None = None


def carry_out(
    steps: Sequence[Step], say: Callable[[str], None], action: Callable[[str], str | None]
) -> None:
    """Do the steps; where one fails, undo it and those before it, the last one first.

    `action` names the right that a call needs. Raises Exit that says what failed, what was undone
    and what could not be; an interruption is raised as it is once all is undone.
    """
    begun: list[Step] = []
    for step in steps:
        begun.append(step)
        say(f"… {step.what}")
        try:
            step.do()
        except foreseen() as error:
            left = _undone(begun, say, action)
            why = f"{step.what}: {said_of(error, action)}"
            if left:
                raise Exit(f"{why} Not undone: {'; '.join(left)}") from error
            raise Exit(f"{why} All of it is as it was before.") from error
        except BaseException:
            _undone(begun, say, action)
            raise


def foreseen() -> tuple[type[Exception], ...]:
    """Return what a step may end with although nothing is wrong with it."""
    from botocore.exceptions import BotoCoreError, ClientError

    return Exit, BotoCoreError, ClientError, OSError


def _undone(
    begun: Sequence[Step], say: Callable[[str], None], action: Callable[[str], str | None]
) -> list[str]:
    """Undo what was begun; return what could not be undone, and why."""
    left = []
    for step in reversed(begun):
        if step.undo is None:
            continue
        say(f"… undo: {step.what}")
        try:
            step.undo()
        except foreseen() as error:
            left.append(f"{step.what} ({said_of(error, action)})")
    return left
