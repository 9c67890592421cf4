"""A chain in which something fails, or is interrupted: one line an error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import fabric
import pytest
from chain_tasks import facts, fail, noted
from stand_ins import Session

from tasks.engine import questions


def test_one_failing_host_is_one_line(fab, network, capsys):
    network.add("alpha", fail)
    assert fab("-H", "alpha", "third") == 1
    assert capsys.readouterr().err == "A command on alpha failed (3): no such thing\n"


def test_a_failing_task_ends_the_chain_on_its_host_only(fab, network, capsys):
    network.add("alpha", fail)
    network.add("beta")
    assert fab("-H", "alpha,beta", "third", "answer") == 1
    assert network.hosts["alpha"].commands == ["third"]
    assert network.hosts["beta"].commands == ["third", "answer"]


def test_the_summary_names_the_hosts_and_what_to_type(fab, network, capsys):
    network.add("alpha", fail)
    network.add("beta")
    network.add("gamma", fail)
    assert fab("-H", "alpha,beta,gamma", "third") == 1
    *reasons, last = capsys.readouterr().err.splitlines()
    assert sorted(reasons) == [
        "[alpha] A command on alpha failed (3): no such thing",
        "[gamma] A command on gamma failed (3): no such thing",
    ]
    assert last.startswith("2 of 3 hosts failed: ")
    assert " Done on: beta. " in last
    assert last.endswith(("-H alpha,gamma", "-H gamma,alpha"))


def test_an_unreachable_host_does_not_hold_up_the_others(fab, network, capsys):
    network.add("alpha").close()
    network.add("beta")
    assert fab("-H", "alpha,beta", "third") == 1
    assert network.hosts["beta"].commands == ["third"]
    assert "[alpha] alpha refuses connections" in capsys.readouterr().err


def test_no_secret_stands_in_an_error(fab, network, capsys):
    network.add("alpha")
    assert fab("-H", "alpha", "leak") == 1
    assert capsys.readouterr().err == "it said ********\n"


def test_a_bug_of_ours_is_not_swallowed(fab, network):
    network.add("alpha")
    network.add("beta")
    with pytest.raises(KeyError, match="a bug of ours"):
        fab("-H", "alpha,beta", "broken")


def test_a_lost_connection_is_one_line(fab, network, capsys):
    network.add("alpha", lambda session: network.hosts["alpha"].hang_up())
    assert fab("-H", "alpha", "third") == 1
    err = capsys.readouterr().err
    assert err.startswith("The connection to alpha was lost")
    assert err.count("\n") == 1


def test_every_connection_is_closed_in_the_end(fab, network, monkeypatch):
    closed = []
    close = fabric.Connection.close

    def note(self: Any) -> None:
        closed.append(self.target.alias)
        close(self)

    monkeypatch.setattr(fabric.Connection, "close", note)
    network.add("alpha", facts)
    network.add("beta", fail)
    network.add("gamma", known=False)
    fab("-H", "alpha,beta,gamma", "first")
    assert sorted(set(closed)) == ["alpha", "beta", "gamma"]


def press_ctrl_c(monkeypatch: pytest.MonkeyPatch, when: Callable[[], object] = bool) -> None:
    """Have Ctrl-C end the wait for the hosts' tasks, once `when` has returned."""

    def interrupted(future: Any) -> None:
        when()
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)


def test_ctrl_c_ends_the_tasks_of_all_hosts(fab, network, monkeypatch):
    begun = threading.Barrier(3, timeout=10)

    def hang(session: Session) -> None:
        begun.wait()  # and never an end

    network.add("alpha", hang)
    network.add("beta", hang)
    press_ctrl_c(monkeypatch, begun.wait)
    assert fab("-H", "alpha,beta", "third") == 130


def test_ctrl_c_reaches_tasks_that_wait_for_something_else(fab, network, monkeypatch):
    network.add("alpha")
    network.add("beta")
    press_ctrl_c(monkeypatch)
    started = time.monotonic()
    assert fab("-H", "alpha,beta", "wait-for-ctrl-c") == 130
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("task", ["question", "question-there"])
def test_ctrl_c_at_a_question_is_one_line(fab, network, terminal, capsys, task):
    network.add("alpha")
    terminal.append("Ctrl-C")
    assert fab("-H", "alpha", task) == 130
    assert capsys.readouterr().err.strip() == questions.STOPPED
    assert noted == []


def test_ctrl_d_at_a_question_is_one_line(fab, terminal, capsys):
    terminal.append("Ctrl-D")
    assert fab("question") == 1
    assert capsys.readouterr().err.strip() == questions.UNANSWERED


def test_ctrl_d_at_a_yes_or_no_is_a_no(fab, network, terminal):
    network.add("alpha")
    terminal.append("Ctrl-D")
    assert fab("-H", "alpha", "question-there") == 0
    assert noted == [("answered", "False")]
