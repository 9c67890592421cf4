"""A command of the account's that ends at one call after another, each time in a fresh account.

The account is moto, in this process: so the process is forked at each call that changes something.
The fork is interrupted there, types the same command again and looks at what there is; this process
waits for it, and goes on as if nothing had been.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ConnectionClosedError
from moto.core.models import botocore_stubber

from tasks.engine import paths


class Killed(BaseException):
    """What ends a process at once, as `kill -9` does: it calls nothing any more."""


# The process ends before a call is sent, or after it was done; or the answer alone is lost, and
# boto3 sends the same again; or somebody types Ctrl-C, after which what was begun can be undone.
HOWS = ("before", "after", "lost", "stopped")


@dataclass
class Interruption:
    """What happens at the calls that change something; `how` is set in the fork alone."""

    third: int | None  # which third of the interruptions, None for all
    calls: list[str] = field(default_factory=list)  # where it was interrupted
    how: str = ""
    ended: bool = False  # whether the process would be no more
    trouble: list[str] = field(default_factory=list)  # what the forks found
    told: Path = Path()  # where a fork writes that down


NOW: list[Interruption] = []

READING = ("Describe", "Get", "List", "Head")


def interrupted(event_name: str, request: Any, **_: Any) -> Any:
    """Interrupt a call of boto3's, where that is wanted."""
    operation = event_name.rpartition(".")[2]
    body = request.body if isinstance(request.body, bytes) else str(request.body).encode()

    def lost() -> None:
        botocore_stubber(event_name, request)
        raise ConnectionClosedError(endpoint_url=request.url)

    reading = operation.startswith(READING) or b"DryRun=true" in body
    at_a_call("" if reading else operation, lambda: botocore_stubber(event_name, request), lost)


def at_a_call(name: str, do: Callable[[], Any], lost: Callable[[], Any] | None = None) -> None:
    """Fork here once for each way to be interrupted; without a name nothing is changed.

    `do` does the call, and `lost` loses its answer; without it, an answer can't be lost alone.
    """
    if not NOW:
        return
    now = NOW[0]
    if now.ended:
        raise Killed
    if not name or now.how:
        return
    now.calls.append(name)
    for n, how in enumerate(HOWS):
        today = now.third is None or (len(now.calls) + n) % 3 == now.third
        if today and (how != "lost" or lost):
            forked(now, how)
        if now.how:
            break
    else:
        return
    now.ended = now.how in ("before", "after")
    if now.how == "before":
        raise Killed
    if now.how == "stopped":
        raise KeyboardInterrupt
    if now.how == "lost" and lost:
        lost()
    do()
    raise Killed


def forked(now: Interruption, how: str) -> None:
    """Fork, and wait for the fork's end; what it did with this machine's files is taken back."""
    folders, aside = (Path.home(), paths.state()), Path(tempfile.mkdtemp())
    copied(folders, [aside / folder.name for folder in folders])
    pid = os.fork()
    if pid == 0:
        gc.disable()  # it would go through, and so copy, all that both have in memory
        now.how = how
        return
    os.waitpid(pid, 0)
    copied([aside / folder.name for folder in folders], folders)
    shutil.rmtree(aside)
    if text := now.told.read_text():
        now.trouble.append(f"{how} {now.calls[-1]}, call {len(now.calls)}: {text}")
        now.told.write_text("")


def copied(sources: Iterable[Path], targets: Iterable[Path]) -> None:
    """Have the targets be what the sources are, also where one is not there."""
    for source, target in zip(sources, targets, strict=True):
        shutil.rmtree(target, ignore_errors=True)
        if source.exists():
            shutil.copytree(source, target, symlinks=True)


def at_every_call(
    command: Callable[[], Any],
    check: Callable[[], Any],
    third: int | None,
    interrupted: Callable[[], Any] = lambda: None,
) -> list[str]:
    """Do a command; return the calls at each of which a fork was interrupted, in their order.

    There the same command has completed, and `check` was content; `interrupted` looks at what there
    was before that. Only a third of these interruptions takes place, or all where that is None.
    Raises AssertionError with what the forks found instead.
    """
    with tempfile.NamedTemporaryFile() as told:
        NOW.append(now := Interruption(third, told=Path(told.name)))
        try:
            with contextlib.suppress(Killed, KeyboardInterrupt):
                command()
            if now.how:
                NOW.clear()
                if now.how == "after":  # before a call it stands as after the one before
                    interrupted()
                if now.how != "lost":
                    command()
                check()
        except BaseException:
            if not now.how:
                raise
            now.told.write_text(traceback.format_exc())
        finally:
            NOW.clear()
            if now.how:
                os._exit(0)
    assert not now.trouble, "\n".join([f"{len(now.trouble)} of them", *now.trouble])
    check()
    return now.calls
