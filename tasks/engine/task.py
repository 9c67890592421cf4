"""The kinds of task: `remote` runs once per host, `local` once on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Protocol

from invoke import Exit, Task, task

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from tasks.engine.server import Server
    from tasks.engine.settings import Settings
    from tasks.engine.ssh import Client

Reporter = Callable[..., None]

# A question to ask before the first task: for all servers at once, answered for each by its name.
Question = Callable[[list["Server"]], Mapping[str, Any]]


@dataclass(frozen=True)
class Turn:
    """What a remote task is handed with its host, beside what was typed.

    `answers` holds what was asked for this host, by the question in the task's `prepare`; a host
    that was not asked about is not in it. `several` says whether the command works on other hosts
    with the same database as well; where they take turns, `lead` is the first of them, and None
    for that one itself. `everywhere` are this host's servers, one an environment; this one alone
    where one is chosen.
    """

    answers: Mapping[Question, Any] = field(default_factory=dict)
    several: bool = False
    lead: Server | None = None
    everywhere: Sequence[Server] = ()


class Context(Protocol):
    """What both kinds of context have: Invoke's, with all tasks by their names."""

    tasks: Mapping[str, RemoteTask]
    config: Any


class Local(Context, Protocol):
    """The context of a local task: where it would work, and how hosts are reached from here.

    `place` settles the environment and its hosts, those of -H first, and raises Exit where a
    setting is wrong; `client` returns OpenSSH with what -S and -i name.
    """

    place: Callable[[], tuple[Settings, list[str]]]
    client: Callable[[], Client]


class Host(Context, Protocol):
    """The context of a remote task: Fabric's connection, our Server on top, and its turn."""

    server: Server
    turn: Turn

    def _set(self, **handed: Any) -> None: ...


class RemoteTask(Task):  # type: ignore[type-arg]
    """A task whose context is a connection to one host, with our Server as `c.server`."""

    # Gets what was typed, and refuses what makes no sense; before any connection.
    options: Callable[..., Any] | None = None
    # Looks at this machine alone, for all servers; before any connection.
    check: Callable[..., None] | None = None
    # Questions, asked of all servers of the chain at once, in the main thread, before its first
    # task; however many tasks want one answered, it is asked once. See `Turn.answers`.
    prepare: Sequence[Question] = ()
    # Gets ready on this machine what the task will need, while its hosts are waited for.
    meanwhile: Callable[[], None] | None = None
    # Whether it looks at all environments of its hosts where none is chosen (`Turn.everywhere`).
    everywhere: bool = False
    # Gets every host's value by name once all are done; with --json the executor prints them.
    report: Reporter | None = None
    # The options that it gets as well, by name.
    report_options: Sequence[str] = ()
    # Says of a value why the task failed although it has an answer, or None; an Exit with the code
    # to end with where that is not 1.
    verdict: Callable[[Any], str | Exit | None] | None = None
    # What to type when this was the last task of a chain.
    then: str | None = None
    # What it is called in its namespace, where it is meant by the namespace's own name.
    default_name: str | None = None
    # What the guide calls it: a second task at the root, for an alias of a namespace's default
    # would land inside that namespace.
    guides_name: str | None = None
    # Where several hosts have one database, has the first that can be reached do it for all.
    once: bool = False
    # There, has one host do it after the other: the first failure ends that, so that the others go
    # on serving. A function holds where it does for one of the servers, as they are before.
    in_turn: bool | Callable[[Server], bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        ours = {name: kwargs.pop(name) for name in DECLARED if name in kwargs}
        super().__init__(*args, **kwargs)
        vars(self).update(ours)


DECLARED = tuple(RemoteTask.__annotations__)  # what a remote task may say of itself


class LocalTask(Task):  # type: ignore[type-arg]
    """A task that concerns this machine alone."""


class ChoosingTask(LocalTask):
    """The task that says which environment those after it work on: read, and never run."""


def remote(*args: Any, **kwargs: Any) -> Any:
    """Declare a task that runs once per host; `RemoteTask` tells what it may say of itself."""
    return task(*args, klass=RemoteTask, **kwargs)


def local(*args: Any, **kwargs: Any) -> Any:
    """Declare a task that runs once, on this machine."""
    return task(*args, klass=LocalTask, **kwargs)


def choosing(*args: Any, **kwargs: Any) -> Any:
    """Declare the task that chooses for those after it, with one argument."""
    return task(*args, klass=ChoosingTask, **kwargs)


def asked(tasks: Iterable[RemoteTask], servers: list[Server]) -> dict[Question, Mapping[str, Any]]:
    """Ask every question of the tasks once; returns the answers by question and host's name."""
    questions = dict.fromkeys(question for task in tasks for question in task.prepare)
    return {question: question(servers) for question in questions}


def about(server: Server, found: Mapping[Question, Mapping[str, Any]]) -> dict[Question, Any]:
    """Return what was answered for one host, by question; see `Turn.answers`."""
    return {asked: of[server.name] for asked, of in found.items() if server.name in of}


def run_by_name(c: Host, name: str) -> None:
    """Run another task on the same host: what it wants to know is asked first."""
    task = c.tasks[name]
    answers = about(c.server, asked([task], [c.server]))
    c._set(turn=replace(c.turn, answers=answers))
    task(c)
