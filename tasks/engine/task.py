"""The kinds of task: `remote` runs once per host, `local` once on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from invoke import Task, task

if TYPE_CHECKING:
    from tasks.engine.server import Server

Reporter = Callable[[Mapping[str, Any]], None]


class Host(Protocol):
    """The context of a remote task: Fabric's connection, and our Server on top of it.

    `tasks` are all tasks by their names, for one that has others done.
    """

    server: Server
    tasks: Mapping[str, RemoteTask]
    config: Any


class RemoteTask(Task):  # type: ignore[type-arg]
    """A task whose context is a connection to one host, with our Server as `c.server`.

    `options` gets what was typed and refuses what makes no sense; `check` looks at this machine
    alone; both before any connection. `everywhere` says that the task looks at all environments of
    its hosts where none is chosen (see `Server.everywhere`). `prepare` gets all servers of the
    chain at once, in the main thread, before the first task: the place to ask questions. `report`
    gets every host's return value by name once all hosts are done; with `--json` the executor
    prints the values itself. `verdict` says of a value why the task failed although it has an
    answer, or None. `then` is what to type when this was the last task of a chain.

    Where several hosts have one database, `once` has the first that can be reached do it for all,
    and `in_turn` has one host do it after the other: the first failure ends that, so that the
    others go on serving. It may be a function: where it holds for one of the servers, as they are
    before the chain begins.
    """

    def __init__(
        self,
        *args: Any,
        options: Callable[..., Any] | None = None,
        everywhere: bool = False,
        check: Callable[..., None] | None = None,
        prepare: Callable[[list[Server]], None] | None = None,
        report: Reporter | None = None,
        verdict: Callable[[Any], str | None] | None = None,
        then: str | None = None,
        once: bool = False,
        in_turn: bool | Callable[[Server], bool] = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.options, self.everywhere = options, everywhere
        self.check, self.prepare, self.report, self.then = check, prepare, report, then
        self.verdict = verdict
        self.once, self.in_turn = once, in_turn


class LocalTask(Task):  # type: ignore[type-arg]
    """A task that concerns this machine alone."""


class ChoosingTask(LocalTask):
    """The task that says which environment those after it work on: read, and never run."""


def remote(*args: Any, **kwargs: Any) -> Any:
    """Declare a task that runs once per host."""
    return task(*args, klass=RemoteTask, **kwargs)


def local(*args: Any, **kwargs: Any) -> Any:
    """Declare a task that runs once, on this machine."""
    return task(*args, klass=LocalTask, **kwargs)


def choosing(*args: Any, **kwargs: Any) -> Any:
    """Declare the task that chooses for those after it, with one argument."""
    return task(*args, klass=ChoosingTask, **kwargs)
