"""Run a chain of tasks on its hosts: one login a host, hosts side by side, one line an error."""

from __future__ import annotations

import functools
import itertools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import fabric
from invoke import Call, Exit
from invoke.exceptions import ParseError, UnexpectedExit

from tasks.engine.configuration import configured, load_yaml
from tasks.engine.console import console
from tasks.engine.hosts import Hosts, without_ssh
from tasks.engine.ssh import Client
from tasks.engine.task import ChoosingTask, RemoteTask
from tasks.engine.typed import completed, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from tasks.engine.server import Server
    from tasks.engine.settings import Settings

NO_HOST = (
    "No host to work on. Name one: -H ec2, or `hosts:` in fabric.yaml, or FABRIC_HOSTS. "
    "No server yet? Try ./fab rehearse"
)

Place = tuple["Settings", list[str]]  # an environment, and the hosts that it names

NO_NAME = (
    "`use` wants the name of an environment, and what to do there: ./fab use NAME status. "
    "To see which there are: ./fab environments"
)

LOOKS = 3  # at a host that others change, before the operator is told


def adopt(program: Any) -> None:
    """Make Fabric's program run tasks our way, and leave ssh configurations to OpenSSH."""
    program.executor_class = Executor
    program.parse_tasks = in_our_words(program.parse_tasks)
    if config := getattr(program, "config", None):
        # Fabric would read them once more, with a parser that dies of a file that is not there.
        config._set(load_ssh_config=lambda: None)
        # Invoke looks these up by the file's suffix, and would die of a mistake in it.
        config._set(_load_yaml=load_yaml, _load_yml=load_yaml)


def in_our_words(parse: Callable[[], None]) -> Callable[[], None]:
    """Turn what Invoke says of a mistake in the command line into what helps.

    A word where an option wants a number is a traceback of its, and `use` without a name a riddle.
    """

    def parsed() -> None:
        try:
            parse()
        except ValueError as error:  # int()'s own, whose text ends with the word
            word = str(error).rpartition(": ")[2]
            raise Exit(f"{word} is not a whole number. Give the option one.") from None
        except ParseError as error:
            if str(error).startswith("'use' did not receive"):
                raise Exit(NO_NAME) from None
            raise

    return parsed


@dataclass(frozen=True)
class Leg:
    """Calls of one kind that follow each other, and the environment that `use` named for them."""

    name: str | None
    calls: Sequence[Any]

    @property
    def remote(self) -> bool:
        return any(isinstance(call.task, RemoteTask) for call in self.calls)


@dataclass(frozen=True)
class Stage:
    """A leg, with what its environment settles to; no settings where it needs none."""

    leg: Leg
    settings: Settings | None
    hosts: list[str]

    @property
    def calls(self) -> Sequence[Any]:
        return self.leg.calls

    @property
    def remote(self) -> bool:
        return self.leg.remote

    @property
    def named(self) -> bool:
        return self.leg.name is not None


def legs(calls: Sequence[Any]) -> Iterable[Leg]:
    """Split a chain at every `use`, and where the kind of task changes.

    A leg without calls is a `use` that nothing follows.
    """
    name: str | None = None
    pending = False
    kinds = (ChoosingTask, RemoteTask)
    for kind, group in itertools.groupby(
        calls, lambda call: next((kind for kind in kinds if isinstance(call.task, kind)), None)
    ):
        if kind is not ChoosingTask:
            pending = False
            yield Leg(name, list(group))
            continue
        for call in group:
            if pending:
                yield Leg(name, [])
            (name,) = call.kwargs.values()
            pending = True
    if pending:
        yield Leg(name, [])


class Executor(fabric.Executor):
    """Fabric's executor, with hosts from the settings and remote tasks only ever on hosts."""

    def execute(self, *tasks: Any) -> dict[Any, Any]:
        """Run the tasks in order; raises Exit(1) after a summary where a host failed."""
        calls = self.normalize(tasks)
        self._refuse_what_is_not_ours()
        console.quiet_stdout = any(call.kwargs.get("json") for call in calls)
        stages = self._settled(list(legs(calls)))
        for kind, group in itertools.groupby(stages, lambda stage: stage.remote):
            if kind:
                self._run_remote(list(group))
            else:
                for stage in group:
                    for call in stage.calls:
                        call.task(call.make_context(without_ssh(self.config)), **call.kwargs)
        return {}

    def _settled(self, found: Sequence[Leg]) -> list[Stage]:
        """Find out where each part of the chain works; raises Exit before any of it has begun."""
        from tasks.engine.environments import has_default, refuse_shared

        file = configured(self.config)
        stages = []
        for leg in found:
            # A task of this machine alone needs no settings; mistakes in them are not its matter.
            if not (leg.remote or leg.name):
                stages.append(Stage(leg, None, []))
                continue
            settings, hosts = self.settings(leg.name)
            if not leg.calls:
                raise Exit(
                    f"Nothing follows `use {leg.name}`. Say what to do there, such as: "
                    f"./fab use {leg.name} status"
                )
            stages.append(Stage(leg, settings, hosts))
        if chosen := [(stage.settings, stage.hosts) for stage in stages if stage.settings]:
            refuse_shared(file, os.environ, chosen)
            by_variable = os.environ.get("FABRIC_MLFLOW_ENVIRONMENT")
            named = any(stage.named for stage in stages)
            console.chosen = named or bool(by_variable) or has_default(file)
        return stages

    def _run_remote(self, stages: Sequence[Stage]) -> None:
        for stage in stages:
            for call in stage.calls:
                if call.task.options:
                    call.task.options(**call.kwargs)
        hosts = Hosts(self.client(), self.config, self.collection)
        chains = [self._chain(stage, hosts) for stage in stages]
        try:
            run_in_turn(chains, hosts)
        except KeyboardInterrupt:
            # Invoke would exit 1, as after a failure; 130 is what shells make of Ctrl-C.
            raise Exit(code=130) from None

    def _chain(self, stage: Stage, where: Hosts) -> Chain:
        settings, hosts = stage.settings, stage.hosts
        assert settings is not None
        everywhere = None
        if all(call.task.everywhere for call in stage.calls) and not console.chosen:
            from tasks.engine.environments import settle_all

            places = settle_all(configured(self.config), os.environ)
            if not self.core[0].args.hosts.value:
                hosts = list(dict.fromkeys(host for _, own in places for host in own))
            everywhere = functools.partial(settings_of, places)
        return Chain(stage.calls, hosts, settings, where, stage.named, everywhere)

    def _refuse_what_is_not_ours(self) -> None:
        if self.core.remainder:
            raise Exit("Commands after -- are not for these tasks. Type: ssh HOST COMMAND")
        if self.config.run.dry:
            raise Exit("--dry would still connect and change things. Type: ./fab plan")

    def settings(self, use: str | None = None) -> tuple[Settings, list[str]]:
        from tasks.engine.configuration import host_names
        from tasks.engine.settings import settle

        settings, hosts = settle(configured(self.config), os.environ, use)
        given = self.core[0].args.hosts.value
        return settings, host_names(given) if given else hosts

    def client(self) -> Client:
        arguments = self.core[0].args
        configured = self.config.get("ssh_config_path")
        return Client(
            arguments["ssh-config"].value or configured,
            tuple(arguments.identity.value or ()),
        )


def settings_of(places: Sequence[Place], host: str) -> list[Settings]:
    """Choose the environments that a host is for: those that name it, or may be on any host."""
    named = [settings for settings, hosts in places if host in hosts]
    free = [settings for settings, hosts in places if not hosts]
    return named or free or [settings for settings, _ in places]


def run_on(hosts: Sequence[str], tasks: Sequence[RemoteTask], config: fabric.Config) -> None:
    """Run remote tasks on rehearsal hosts from within a local one, whatever fabric.yaml says."""
    from tasks.engine.settings import Settings

    where = Hosts(Client(), config)
    run_in_turn([Chain([Call(task) for task in tasks], hosts, Settings(), where)], where)


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
    from tasks.engine import stores as stores

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
        named: bool = False,
        everywhere: Callable[[str], list[Settings]] | None = None,
    ) -> None:
        self._calls: Sequence[Any] = calls  # their tasks are all RemoteTasks
        self._hosts = list(dict.fromkeys(hosts))
        self._settings = settings
        self._where = where
        self._named = named
        self._everywhere = everywhere or (lambda host: [settings])
        self._servers: list[Server] = []
        self._failures: dict[str, str] = {}
        self._answers: list[dict[str, Any]] = [{} for _ in calls]
        self._results_lock = threading.Lock()

    @property
    def label(self) -> str:
        """Name the environment to people."""
        return self._settings.label

    def begin(self) -> None:
        """Look at this machine; raises Exit where no host is named or a task cannot be done."""
        if not self._hosts:
            raise Exit(NO_HOST)
        self._servers = [self._server(host) for host in self._hosts]
        for server in self._servers:
            server.several = have_one_database(self._servers)
        self._each(lambda task: task.check, self._servers)

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

    def _server(self, host: str) -> Server:
        server = self._where.server(host, self._settings, self._named)
        if not server.rehearsal:
            server.everywhere = [server.beside(one) for one in self._everywhere(host)]
        return server

    def _each(self, hook: Callable[[Any], Callable[..., None] | None], servers: Any) -> None:
        """Call the hook of each task once, however often the task stands in the chain."""
        for found in dict.fromkeys(hook(call.task) for call in self._calls):
            if found:
                try:
                    found(servers)
                except Exit as error:
                    raise Exit(self._completed(error.message), error.code) from None

    def _completed(self, message: str | None) -> str | None:
        return message and completed(message, self._settings.environment)

    def ask(self) -> None:
        """Ask what is missing for all hosts at once; hosts that cannot be looked at drop out."""
        console.tagged = len(self._servers) > 1
        if any(call.task.prepare for call in self._calls):
            self._side_by_side(self._servers, lambda server: server.facts)
            self._each(lambda task: task.prepare, self._ready)

    @property
    def _ready(self) -> list[Server]:
        return [server for server in self._servers if server.name not in self._failures]

    def _side_by_side(self, servers: Sequence[Any], work: Callable[[Any], Any]) -> None:
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
                    server.interrupted.set()
                    server.connection.close()
                raise

    def _manner(self, task: Any) -> Callable[[Sequence[Any], Callable[[Any], Any]], None]:
        """Choose how hosts work on a task: several of one database may have to mind each other."""
        if not self._servers[0].several:
            return self._side_by_side
        if task.once:
            return self._once
        return self._in_turn if self._takes_turns(task) else self._side_by_side

    def _takes_turns(self, task: Any) -> bool:
        if not callable(task.in_turn):
            return bool(task.in_turn)
        self._side_by_side(self._servers, lambda server: server.facts)
        return any(task.in_turn(server) for server in self._ready)

    def _in_turn(self, servers: Sequence[Any], work: Callable[[Any], Any]) -> None:
        """Have one host begin once the one before is done; end with the first that fails."""
        for number, server in enumerate(servers):
            server.lead = servers[0] if number else None
            self._guarded(server, work)
            if server.name in self._failures:
                why = f"Not begun, and serving as before: {server.name} has failed."
                self._failures |= {rest.name: why for rest in servers[number + 1 :]}
                return

    def _once(self, servers: Sequence[Any], work: Callable[[Any], Any]) -> None:
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

    def _guarded(self, server: Any, work: Callable[[Any], Any]) -> None:
        try:
            work(server)
        except (Exit, UnexpectedExit) as error:
            reason = error.message if isinstance(error, Exit) else str(error)
            reason = server.completed(reason or "it failed")
            with self._results_lock:
                self._failures[server.name] = console.redacted(reason)

    def _run_tasks(self, part: Sequence[tuple[dict[str, Any], Any]], server: Any) -> None:
        self._where.turn_to(server)
        for answers, call in part:
            value = self._result(server, call)
            with self._results_lock:
                answers[server.name] = value
            if len(self._hosts) == 1:
                self._show(call, answers)
            if call.task.verdict and (reason := call.task.verdict(value)):
                raise Exit(reason)

    def _result(self, server: Any, call: Any) -> Any:
        """Run one task; again where others changed the host between its look and its change."""
        from tasks.engine.server import Outdated

        for _ in range(LOOKS - 1):
            try:
                return call.task(server.connection, *call.args, **call.kwargs)
            except Outdated:
                server.say("the host changed meanwhile; looking again")
        return call.task(server.connection, *call.args, **call.kwargs)

    def _show(self, call: Any, answers: Mapping[str, Any]) -> None:
        if call.task.report and answers and not call.kwargs.get("json"):
            call.task.report(answers)

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
            raise Exit(next(iter(self._failures.values())))
        for host, reason in self._failures.items():
            console.fail(reason, host)
        good = [host for host in self._hosts if host not in self._failures]
        done = f" Done on: {', '.join(good)}." if good else ""
        raise Exit(
            f"{len(self._failures)} of {len(self._hosts)} hosts failed: "
            f"{', '.join(self._failures)}.{done} Mend what stands above and type the same with "
            f"-H {','.join(self._failures)}"
        )
