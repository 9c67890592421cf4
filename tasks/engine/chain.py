"""The remote tasks of a command on their hosts: side by side or in turn, one line an error."""

from __future__ import annotations

import functools
import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from invoke import Call, Exit
from invoke.exceptions import UnexpectedExit

from tasks.engine import questions
from tasks.engine.console import console
from tasks.engine.hosts import Hosts
from tasks.engine.ssh import Client
from tasks.engine.task import RemoteTask, Turn, about, asked
from tasks.engine.typed import completed, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    import fabric

    from tasks.engine.server import Server
    from tasks.engine.settings import Settings
    from tasks.engine.task import Question

NO_HOST = (
    "No host to work on. Name one: -H ec2, or `hosts:` in fabric.yaml, or FABRIC_HOSTS. "
    "No server yet? Begin with ./fab init, or try ./fab rehearse"
)

LOOKS = 3  # at a host that others change, before the operator is told


def run_on(
    hosts: Sequence[str],
    tasks: Sequence[RemoteTask],
    config: fabric.Config,
    settings: Settings | None = None,
    client: Client | None = None,
) -> None:
    """Run remote tasks on hosts from within a local one, whatever fabric.yaml says.

    Rehearsal hosts have settings of their own. Raises Exit where one failed.
    """
    from tasks.engine.settings import Settings

    where = Hosts(client or Client(), config)
    calls = [Call(task) for task in tasks]
    run_in_turn([Chain(calls, hosts, settings or Settings(), where)], where)


def run_in_turn(chains: Sequence[Chain], hosts: Hosts) -> None:
    """Run chains one after the other, each once the one before is done; ask all questions first.

    Raises Exit where one failed: none of those after it has begun then.
    """
    try:
        for chain in chains:
            chain.begin()
        for chain in chains:
            chain.ask()
        for number, chain in enumerate(chains, 1):
            try:
                chain.run()
            except Exit as error:
                raise Exit(_with_rest(error.message, chains[number:]), error.code) from None
    finally:
        hosts.close()
    chains[-1].say_next()


def _with_rest(message: str | None, rest: Sequence[Chain]) -> str | None:
    if not rest:
        return message
    names = ", ".join(dict.fromkeys(chain.label for chain in rest))
    return f"{(message or 'It failed').rstrip('.')}. Not begun: what follows in {names}."


def have_one_database(servers: Sequence[Server]) -> bool:
    """Tell whether these are several hosts whose servers have their runs and users in common."""
    from tasks.engine import stores

    named = {stores.in_common(server.settings) for server in servers}
    return len(servers) > 1 and len(named) == 1 and named != {None}


class Chain:
    """The remote tasks that follow each other without a local one between them."""

    def __init__(
        self,
        calls: Sequence[Call],
        hosts: Sequence[str],
        settings: Settings,
        where: Hosts,
        everywhere: Callable[[str], list[Settings]] | None = None,
    ) -> None:
        self._calls: Sequence[Any] = calls  # their tasks are all RemoteTasks
        self._hosts = list(dict.fromkeys(hosts))
        self._settings = settings
        self._where = where
        self._environments = everywhere or (lambda host: [settings])
        self._servers: list[Server] = []
        self._everywhere: dict[str, list[Server]] = {}
        self._several = False
        self._asked: Mapping[Question, Mapping[str, Any]] = {}
        self._failures: dict[str, str] = {}
        self._codes: set[int] = set()  # with which they would end the command
        self._answers: list[dict[str, Any]] = [{} for _ in calls]
        self._results_lock = threading.Lock()

    @property
    def label(self) -> str:
        """Name the environment to people."""
        return self._settings.label

    def refuse_options(self) -> None:
        """Raise Exit where what was typed after a task makes no sense."""
        with self._naming_the_servers():
            for call in self._calls:
                if call.task.options:
                    call.task.options(**call.kwargs)

    def begin(self) -> None:
        """Look at this machine; raises Exit where no host is named or a task cannot be done.

        What the tasks will need here is made ready meanwhile, in threads of its own.
        """
        if not self._hosts:
            raise Exit(NO_HOST)
        self._where.reach(self._hosts)
        self._servers = [self._where.server(host, self._settings) for host in self._hosts]
        self._everywhere = {server.name: self._all_at(server) for server in self._servers}
        self._several = have_one_database(self._servers)
        with self._naming_the_servers():
            for check in dict.fromkeys(call.task.check for call in self._calls):
                if check:
                    check(self._servers)
        for work in dict.fromkeys(call.task.meanwhile for call in self._calls):
            if work:
                threading.Thread(target=work, daemon=True).start()

    def run(self) -> None:
        """Run all tasks on all hosts; raises Exit after a summary where one failed."""
        console.tagged = len(self._servers) > 1
        if console.chosen:
            console.head(f"{self._servers[0].settings.label} on {', '.join(self._hosts)}:")
        # Chosen before the first begins: hosts that cannot be looked at are none of the ready ones.
        steps = [
            (self._manner(call.task), (answers, call))
            for answers, call in zip(self._answers, self._calls, strict=True)
        ]
        for manner, part in itertools.groupby(steps, lambda step: step[0]):
            manner(self._ready, functools.partial(self._run_tasks, [pair for _, pair in part]))
        self._report(self._servers)
        self._summarise()

    def say_next(self) -> None:
        """Say what to type when this was the end of a chain."""
        if then := self._calls[-1].task.then:
            environment = self._servers[0].settings.environment
            console.say(f"Next: {typed(','.join(self._hosts), environment, then)}")

    def _all_at(self, server: Server) -> list[Server]:
        """Return this host's servers, one an environment that the tasks are to look at."""
        if server.rehearsal:
            return [server]
        return [server.beside(settings) for settings in self._environments(server.name)]

    def _completed(self, text: str | None) -> str | None:
        hosts, environment = ",".join(self._hosts), self._settings.environment
        return completed(text, hosts, environment) if text and hosts else text

    @contextmanager
    def _naming_the_servers(self) -> Iterator[None]:
        """Have the commands in what a task refuses be such as can be typed, for these servers."""
        try:
            yield
        except Exit as error:
            raise Exit(self._completed(error.message), error.code) from None

    def ask(self) -> None:
        """Ask what is missing for all hosts at once; hosts that cannot be looked at drop out."""
        console.tagged = len(self._servers) > 1
        if any(call.task.prepare for call in self._calls):
            self._side_by_side(self._servers, lambda server: server.facts)
            with self._naming_the_servers():
                self._asked = asked((call.task for call in self._calls), self._ready)

    @property
    def _ready(self) -> list[Server]:
        return [server for server in self._servers if server.name not in self._failures]

    def _side_by_side(self, servers: Sequence[Any], work: Callable[..., Any]) -> None:
        if len(servers) == 1:
            self._guarded(servers[0], work)
            return
        with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
            try:
                for future in [pool.submit(self._guarded, server, work) for server in servers]:
                    future.result()
            except KeyboardInterrupt:
                # Only this thread hears Ctrl-C; the others wait for their hosts.
                for server in servers:
                    server.interrupt()
                raise KeyboardInterrupt(questions.stop()) from None

    def _manner(self, task: Any) -> Callable[[Sequence[Any], Callable[..., Any]], None]:
        """Choose how hosts work on a task: several of one database may have to mind each other."""
        if not self._several:
            return self._side_by_side
        if task.once:
            return self._once
        return self._in_turn if self._takes_turns(task) else self._side_by_side

    def _takes_turns(self, task: Any) -> bool:
        if not callable(task.in_turn):
            return bool(task.in_turn)
        self._side_by_side(self._servers, lambda server: server.facts)
        return any(task.in_turn(server) for server in self._ready)

    def _in_turn(self, servers: Sequence[Any], work: Callable[..., Any]) -> None:
        """Have one host begin once the one before is done; end with the first that fails."""
        for number, server in enumerate(servers):
            lead = servers[0] if number else None
            self._guarded(server, functools.partial(work, lead=lead))
            if server.name in self._failures:
                why = f"Not begun, and serving as before: {server.name} has failed."
                self._failures |= {rest.name: why for rest in servers[number + 1 :]}
                return

    def _once(self, servers: Sequence[Any], work: Callable[..., Any]) -> None:
        """Have the first host that can be reached do it for all."""
        for server in servers:
            self._guarded(server, work)
            if server.execs:
                break
        else:
            return
        if server.name not in self._failures:
            names = ", ".join(self._hosts)
            console.say(f"Done once, through {server.name}: {names} have one database.")

    def _guarded(self, server: Any, work: Callable[..., Any]) -> None:
        try:
            work(server)
        except (Exit, UnexpectedExit) as error:
            reason = error.message if isinstance(error, Exit) else str(error)
            reason = server.completed(reason or "it failed")
            with self._results_lock:
                self._failures[server.name] = console.redacted(reason)
                self._codes.add((isinstance(error, Exit) and error.code) or 1)

    def _run_tasks(
        self,
        part: Sequence[tuple[dict[str, Any], Any]],
        server: Server,
        lead: Server | None = None,
    ) -> None:
        context = self._where.turn_to(server, self._turn(server, lead))
        for answers, call in part:
            value = self._result(context, call)
            server.go_on()
            with self._results_lock:
                answers[server.name] = value
            if len(self._hosts) == 1:
                self._show(call, answers)
            if call.task.verdict and (reason := call.task.verdict(value)):
                raise reason if isinstance(reason, Exit) else Exit(reason)

    def _turn(self, server: Server, lead: Server | None) -> Turn:
        answers = about(server, self._asked)
        return Turn(answers, self._several, lead, self._everywhere[server.name])

    def _result(self, context: Any, call: Any) -> Any:
        """Run one task; again where others changed the host between its look and its change."""
        from tasks.engine.server import Outdated

        for _ in range(LOOKS - 1):
            try:
                return call.task(context, *call.args, **call.kwargs)
            except Outdated:
                context.server.say("the host changed meanwhile; looking again")
        return call.task(context, *call.args, **call.kwargs)

    def _show(self, call: Any, answers: Mapping[str, Any]) -> None:
        if call.task.report and answers and not call.kwargs.get("json"):
            named = [name for name in call.task.report_options if name in call.kwargs]
            call.task.report(answers, **{name: call.kwargs[name] for name in named})

    def _report(self, servers: Sequence[Server]) -> None:
        """Answer for all hosts together; a single host's answer was shown in its place."""
        environments = {server.name: server.settings.environment for server in servers}
        for unordered, call in zip(self._answers, self._calls, strict=True):
            answers = {host: unordered[host] for host in self._hosts if host in unordered}
            if call.kwargs.get("json"):
                console.answer(json.dumps(list(self._objects(answers, environments)), indent=2))
            elif len(self._hosts) > 1:
                self._show(call, answers)

    def _objects(
        self, answers: Mapping[str, Any], environments: Mapping[str, str | None]
    ) -> Iterable[dict[str, Any]]:
        for host, value in answers.items():
            for row in value if isinstance(value, list) else [value]:
                yield {
                    "host": host,
                    "environment": environments[host] or "default",
                    **row,
                }
        for host, reason in self._failures.items():
            if host in answers:
                continue  # it answered; the failure is its verdict
            yield {
                "host": host,
                "environment": environments[host] or "default",
                "error": reason,
            }

    def _summarise(self) -> None:
        if not self._failures:
            return
        if len(self._hosts) == 1:
            raise Exit(next(iter(self._failures.values())), min(self._codes, default=1))
        for host, reason in self._failures.items():
            console.fail(reason, host)
        good = [host for host in self._hosts if host not in self._failures]
        done = f" Done on: {', '.join(good)}." if good else ""
        raise Exit(
            f"{len(self._failures)} of {len(self._hosts)} hosts failed: "
            f"{', '.join(self._failures)}.{done} Fix what stands above, then run the same "
            f"command with -H {','.join(self._failures)}",
            # A problem counts more than what was not looked at.
            min(self._codes, default=1),
        )
