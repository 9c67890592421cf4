"""Invoke's executor, made ours: what was typed becomes chains of tasks on hosts."""

from __future__ import annotations

import functools
import itertools
import os
import shlex
from typing import TYPE_CHECKING

import invoke
from invoke import Exit

from tasks.engine.chain import Chain, run_in_turn
from tasks.engine.configuration import configured
from tasks.engine.console import console
from tasks.engine.hosts import Hosts
from tasks.engine.records import dataclass
from tasks.engine.ssh import Client, key_files
from tasks.engine.task import ChoosingTask, RemoteTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from tasks.engine.settings import Settings

Place = tuple["Settings", list[str]]  # an environment, and the hosts that it names


@dataclass(frozen=True)
class Leg:
    """Calls of one kind that follow each other, and the environment that `use` named for them."""

    name: str | None
    calls: Sequence[Any]

    @property
    def remote(self) -> bool:
        """Tell whether they are at hosts."""
        return any(isinstance(call.task, RemoteTask) for call in self.calls)


@dataclass(frozen=True)
class Stage(Leg):
    """A leg, with what its environment settles to; no settings where it needs none."""

    settings: Settings | None
    hosts: list[str]


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


class Executor(invoke.Executor):
    """Invoke's executor, with hosts from the settings and remote tasks only ever on hosts."""

    core: Any
    collection: Any

    def execute(self, *tasks: Any) -> dict[Any, Any]:
        """Run the tasks in order; raises Exit(1) after a summary where a host failed."""
        calls = self.normalize(tasks)
        self._refuse_what_is_not_ours()
        console.ssh_options = self._ssh_options()
        console.quiet_stdout = any(call.kwargs.get("json") for call in calls)
        stages = self._settled(list(legs(calls)))
        try:
            self._run(stages)
        except KeyboardInterrupt as stop:
            # Invoke would exit 1, as after a failure; 130 is what shells make of Ctrl-C.
            raise Exit(str(stop) or None, 130) from None
        return {}

    def _run(self, stages: Sequence[Stage]) -> None:
        for kind, group in itertools.groupby(stages, lambda stage: stage.remote):
            if kind:
                self._run_remote(list(group))
            else:
                for stage in group:
                    for call in stage.calls:
                        call.task(self._context(call, stage), **call.kwargs)

    def _context(self, call: Any, stage: Stage) -> Any:
        """Return what a local task gets as `c`; settings are read only where it asks for them."""
        context = call.make_context(self.config.clone())
        place = functools.partial(self.settings, stage.name)
        context._set(tasks=self.collection, place=place, client=self.client)
        return context

    def _settled(self, found: Sequence[Leg]) -> list[Stage]:
        """Find out where each part of the chain works; raises Exit before any of it has begun."""
        from tasks.engine.environments import has_default, refuse_shared

        file = configured(self.config)
        stages = []
        for leg in found:
            # A task of this machine alone needs no settings; mistakes in them are not its matter.
            if not (leg.remote or leg.name):
                stages.append(Stage(leg.name, leg.calls, None, []))
                continue
            settings, hosts = self.settings(leg.name)
            if not leg.calls:
                raise Exit(
                    f"Nothing follows `use {leg.name}`. Say what to do there, such as: "
                    f"./fab use {leg.name} status"
                )
            stages.append(Stage(leg.name, leg.calls, settings, hosts))
        if chosen := [(stage.settings, stage.hosts) for stage in stages if stage.settings]:
            refuse_shared(file, os.environ, chosen)
            by_variable = os.environ.get("FABRIC_MLFLOW_ENVIRONMENT")
            named = any(stage.name for stage in stages)
            console.chosen = named or bool(by_variable) or has_default(file)
        return stages

    def _run_remote(self, stages: Sequence[Stage]) -> None:
        named = {stage.settings.label for stage in stages if stage.settings and stage.name}
        hosts = Hosts(self.client(), self.config, self.collection, named)
        chains = [self._chain(stage, hosts) for stage in stages]
        for chain in chains:
            chain.refuse_options()
        run_in_turn(chains, hosts)

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
        return Chain(stage.calls, hosts, settings, where, everywhere)

    def _refuse_what_is_not_ours(self) -> None:
        if self.core.remainder:
            raise Exit("Commands after -- are not for these tasks. Type: ssh HOST COMMAND")
        if self.config.run.dry:
            raise Exit("--dry would still connect and change things. Type: ./fab plan")

    def settings(self, use: str | None = None) -> tuple[Settings, list[str]]:
        """Return the settings of an environment and its hosts, or those of -H.

        Raises Exit that names the first mistake in what was configured.
        """
        from tasks.engine.configuration import host_names
        from tasks.engine.settings import settle

        settings, hosts = settle(configured(self.config), os.environ, use)
        given = self.core[0].args.hosts.value
        return settings, host_names(given) if given else hosts

    def _ssh_options(self) -> str:
        """Spell -S and -i as they were typed."""
        arguments = self.core[0].args
        given = [("-S", arguments["ssh-config"].value)]
        given += [("-i", file) for file in arguments.identity.value or ()]
        return "".join(f"{flag} {shlex.quote(file)} " for flag, file in given if file)

    def client(self) -> Client:
        """Return OpenSSH with what -S and -i name, or fabric.yaml does in their place.

        Raises Exit where there is no such configuration.
        """
        arguments = self.core[0].args
        configured = self.config.get("ssh_config_path")
        keys = arguments.identity.value or self.config["connect_kwargs"].get("key_filename")
        return Client(arguments["ssh-config"].value or configured, key_files(keys))


def settings_of(places: Sequence[Place], host: str) -> list[Settings]:
    """Choose the environments that a host is for: those that name it, or may be on any host."""
    named = [settings for settings, hosts in places if host in hosts]
    free = [settings for settings, hosts in places if not hosts]
    return named or free or [settings for settings, _ in places]
