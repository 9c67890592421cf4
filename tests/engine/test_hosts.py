"""The hosts of a chain: one connection each, closed whatever failed while they were made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fabric
import pytest
from invoke import Exit
from stand_ins import SETTINGS, Recorder

from tasks.engine import hosts as module
from tasks.engine.hosts import Hosts
from tasks.engine.settings import Settings
from tasks.engine.ssh import Client
from tasks.engine.task import Turn

STAGING = Settings(environment="staging", bucket="my-bucket")


class Context(Recorder):
    """A connection that takes what a task is handed."""

    def _set(self, **handed: Any) -> None:
        vars(self).update(handed)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> dict[str, Context]:
    """The connections that were made, by host; OpenSSH refuses `x;y`."""
    made: dict[str, Context] = {}

    def targets(client: Client, named: Sequence[str]) -> Iterator[str]:
        for host in named:
            if host == "x;y":
                raise Exit("OpenSSH does not understand it")
            yield host

    def connection_to(target: str, config: fabric.Config) -> Context:
        return made.setdefault(target, Context(target))

    monkeypatch.setattr(Client, "targets", targets)
    monkeypatch.setattr(module, "connection_to", connection_to)
    return made


def hosts(*named: str) -> Hosts:
    return Hosts(Client(), fabric.Config(), {}, named)


def test_hosts_of_which_none_could_be_made_are_closed_without_a_word(connections):
    there = hosts()
    with pytest.raises(Exit, match="does not understand it"):
        there.server("x;y", SETTINGS)
    there.close()


def test_what_was_made_before_a_failure_is_closed(connections, monkeypatch):
    there = hosts()
    there.server("alpha", SETTINGS)

    def broken(machine: str) -> None:
        raise OSError("no such disk")

    monkeypatch.setattr("tasks.engine.rehearsed.rehearsed", broken)
    with pytest.raises(OSError, match="no such disk"):
        there.server("beta", SETTINGS)
    there.close()
    assert {host: made.closed for host, made in connections.items()} == {"alpha": 1, "beta": 1}


def test_hosts_are_reached_each_once(connections):
    there = hosts()
    there.server("beta", SETTINGS)
    there.reach(["alpha", "beta", "gamma"])
    made = dict(connections)
    assert set(made) == {"alpha", "beta", "gamma"}
    there.reach(["gamma", "alpha"])
    assert there.server("alpha", SETTINGS).connection is made["alpha"]
    assert connections == made


@pytest.mark.parametrize("named", [["x;y", "alpha"], ["alpha", "beta", "x;y"]])
def test_one_host_that_openssh_does_not_take_ends_the_reaching(connections, named):
    there = hosts()
    with pytest.raises(Exit, match="does not understand it"):
        there.reach(named)
    there.close()
    assert all(made.closed for made in connections.values())


def test_the_environments_of_a_host_share_its_connection(connections):
    there = hosts()
    one, other = there.server("alpha", SETTINGS), there.server("alpha", STAGING)
    assert one is not other
    assert one.connection is other.connection
    assert there.server("alpha", STAGING) is other


def test_only_an_environment_that_the_command_line_names_is_named(connections):
    there = hosts("staging")
    cautious = STAGING.model_copy(update={"confirm": "name"})
    assert there.server("alpha", cautious).confirm("Go on?", yes=True)
    unnamed = SETTINGS.model_copy(update={"confirm": "name"})
    with pytest.raises(Exit, match="wants its name typed"):
        there.server("alpha", unnamed).confirm("Go on?", yes=True)


def test_a_task_is_handed_its_server_its_turn_and_all_tasks(connections):
    there = hosts()
    server, turn = there.server("alpha", SETTINGS), Turn(several=True)
    c: Any = there.turn_to(server, turn)
    assert (c.server, c.turn, c.tasks) == (server, turn, {})
