"""Run a chain of tasks on its hosts: one login a host, hosts side by side, one line an error."""

from __future__ import annotations

import functools
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import fabric
from invoke import Call, Exit
from invoke.exceptions import UnexpectedExit
from paramiko import SSHConfig

from tasks.console import console
from tasks.kinds import RemoteTask
from tasks.ssh import Client

if TYPE_CHECKING:
    from tasks.server import Server
    from tasks.settings import Settings

NO_HOST = (
    "No host to work on. Name one: -H ec2, or `hosts:` in fabric.yaml, or FABRIC_HOSTS. "
    "No server yet? Try ./fab rehearse"
)

Place = tuple["Settings", list[str]]  # an environment, and the hosts that it names

LOOKS = 3  # at a host that others change, before the operator is told


def adopt(program: Any) -> None:
    """Make Fabric's program run tasks our way, and leave ssh configurations to OpenSSH."""
    program.executor_class = Executor
    program.parse_tasks = numbers_only(program.parse_tasks)
    if config := getattr(program, "config", None):
        # Fabric would read them once more, with a parser that dies of a file that is not there.
        config._set(load_ssh_config=lambda: None)
        # Invoke looks these up by the file's suffix, and would die of a mistake in it.
        config._set(_load_yaml=load_yaml, _load_yml=load_yaml)


def numbers_only(parse: Callable[[], None]) -> Callable[[], None]:
    """Turn Invoke's traceback for a word where an option wants a number into one line."""

    def parsed() -> None:
        try:
            parse()
        except ValueError as error:  # int()'s own, whose text ends with the word
            word = str(error).rpartition(": ")[2]
            raise Exit(f"{word} is not a whole number. Give the option one.") from None

    return parsed


def load_yaml(path: str) -> dict[str, Any]:
    """Read a configuration file; raises Exit that names file and line of a mistake."""
    import yaml

    try:
        with open(path) as stream:
            data = yaml.safe_load(stream)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise Exit(f"{path}{line} is not YAML: {reason}. Mend that line.") from None
    if not isinstance(data, dict | None):
        raise Exit(f"{path} holds no `key: value` lines at its top. Start from the one in git.")
    return data or {}


class Executor(fabric.Executor):
    """Fabric's executor, with hosts from the settings and remote tasks only ever on hosts."""

    def execute(self, *tasks: Any) -> dict[Any, Any]:
        """Run the tasks in order; raises Exit(1) after a summary where a host failed."""
        calls = self.normalize(tasks)
        self._refuse_what_is_not_ours()
        console.quiet_stdout = any(call.kwargs.get("json") for call in calls)
        for kind, group in itertools.groupby(calls, lambda call: isinstance(call.task, RemoteTask)):
            if kind:
                self._run_remote(list(group))
            else:
                for call in group:
                    call.task(call.make_context(without_ssh(self.config)), **call.kwargs)
        return {}

    def _run_remote(self, calls: list[Any]) -> None:
        for call in calls:
            if call.task.options:
                call.task.options(**call.kwargs)
        from tasks.settings import settle_all

        settings, hosts = self.settings()
        everywhere = None
        if all(call.task.everywhere for call in calls) and settings.environment is None:
            places = settle_all(configured(self.config), os.environ)
            if not self.core[0].args.hosts.value:
                hosts = list(dict.fromkeys(host for _, own in places for host in own))
            everywhere = functools.partial(settings_of, places)
        try:
            Chain(calls, hosts, settings, self.client(), self.config, everywhere).run()
        except KeyboardInterrupt:
            # Invoke would exit 1, as after a failure; 130 is what shells make of Ctrl-C.
            raise Exit(code=130) from None

    def _refuse_what_is_not_ours(self) -> None:
        if self.core.remainder:
            raise Exit("Commands after -- are not for these tasks. Type: ssh HOST COMMAND")
        if self.config.run.dry:
            raise Exit("--dry would still connect and change things. Type: ./fab plan")

    def settings(self) -> tuple[Settings, list[str]]:
        from tasks.settings import host_names, settle

        settings, hosts = settle(configured(self.config), os.environ)
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


def without_ssh(config: fabric.Config) -> fabric.Config:
    """Clone a configuration without what Paramiko read: OpenSSH answers for aliases."""
    clone = config.clone()
    clone._set(base_ssh_config=SSHConfig())
    return clone


def configured(config: fabric.Config) -> dict[str, Any]:
    """Return fabric.yaml as plain data."""
    return {key: _plain(config.get(key)) for key in ("mlflow", "hosts")}


def server_on(host: str, settings: Settings, client: Client, config: fabric.Config) -> Server:
    """Return a host's Server, not connected yet; a rehearsal host goes by settings of its own."""
    from tasks import deploy, stream
    from tasks.connection import Connection
    from tasks.rehearsed import rehearsed
    from tasks.server import Server

    def managed_files(settings: Settings) -> list[str]:
        return deploy.managed_files(settings) + stream.managed_files(settings)

    connection = Connection(client.target(host), without_ssh(config))
    own = rehearsed(connection.target.identity)
    if own is None:
        server = Server(connection, settings, client, managed_files)
    else:
        server = Server(connection, own.settings, client, managed_files, own.variables, True)
    connection._set(server=server)
    return server


def run_on(hosts: Sequence[str], tasks: Sequence[RemoteTask], config: fabric.Config) -> None:
    """Run remote tasks on rehearsal hosts from within a local one, whatever fabric.yaml says."""
    from tasks.settings import Settings

    Chain([Call(task) for task in tasks], hosts, Settings(), Client(), config).run()


class Chain:
    """The remote tasks that follow each other without a local one between them."""

    def __init__(
        self,
        calls: Sequence[Call],
        hosts: Sequence[str],
        settings: Settings,
        client: Client,
        config: fabric.Config,
        everywhere: Callable[[str], list[Settings]] | None = None,
    ) -> None:
        self._calls: Sequence[Any] = calls  # their tasks are all RemoteTasks
        self._hosts = list(dict.fromkeys(hosts))
        self._settings = settings
        self._client = client
        self._config = config
        self._everywhere = everywhere or (lambda host: [settings])
        self._failures: dict[str, str] = {}
        self._answers: list[dict[str, Any]] = [{} for _ in calls]
        self._results_lock = threading.Lock()

    def run(self) -> None:
        """Run all tasks on all hosts; raises Exit after a summary where one failed."""
        if not self._hosts:
            raise Exit(NO_HOST)
        servers = [self._server(host) for host in self._hosts]
        self._each(lambda task: task.check, servers)
        console.tagged = len(servers) > 1
        try:
            self._side_by_side(self._prepared(servers), self._run_tasks)
            self._report(servers)
        finally:
            for server in servers:
                server.connection.close()
        self._summarise()
        if then := self._calls[-1].task.then:
            console.say(f"Next: ./fab -H {','.join(self._hosts)} {then}")

    def _server(self, host: str) -> Server:
        server = server_on(host, self._settings, self._client, self._config)
        if not server.rehearsal:
            server.everywhere = [server.beside(one) for one in self._everywhere(host)]
        return server

    def _each(self, hook: Callable[[Any], Callable[..., None] | None], *args: Any) -> None:
        """Call the hook of each task once, however often the task stands in the chain."""
        for found in dict.fromkeys(hook(call.task) for call in self._calls):
            if found:
                found(*args)

    def _prepared(self, servers: list[Server]) -> list[Server]:
        """Ask what is missing for all hosts at once; hosts that cannot be looked at drop out."""
        hooks = [call.task.prepare for call in self._calls if call.task.prepare]
        if hooks:
            self._side_by_side(servers, lambda server: server.facts)
            servers = [server for server in servers if server.name not in self._failures]
            for hook in dict.fromkeys(hooks):
                hook(servers)
        return servers

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

    def _guarded(self, server: Any, work: Callable[[Any], Any]) -> None:
        try:
            work(server)
        except (Exit, UnexpectedExit) as error:
            reason = error.message if isinstance(error, Exit) else str(error)
            with self._results_lock:
                self._failures[server.name] = console.redacted(reason or "it failed")

    def _run_tasks(self, server: Any) -> None:
        for answers, call in zip(self._answers, self._calls, strict=True):
            value = self._result(server, call)
            with self._results_lock:
                answers[server.name] = value
            if len(self._hosts) == 1:
                self._show(call, answers)
            if call.task.verdict and (reason := call.task.verdict(value)):
                raise Exit(reason)

    def _result(self, server: Any, call: Any) -> Any:
        """Run one task; again where others changed the host between its look and its change."""
        from tasks.server import Outdated

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


def _plain(value: Any) -> Any:
    """Turn Invoke's configuration proxies into plain data."""
    if hasattr(value, "keys"):
        return {key: _plain(value[key]) for key in value.keys()}  # noqa: SIM118 (a proxy, no dict)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
