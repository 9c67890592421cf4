"""A chain on several hosts that have one database."""

from __future__ import annotations

import threading

from chain_tasks import facts, fail, noted, serving, yaml
from stand_ins import Network, Session

ONE_DATABASE = "mlflow: {backend_store_uri: 'postgresql://mlflow@db.example/mlflow'}"


def test_hosts_with_one_database_take_their_turns(fab, network):
    yaml(ONE_DATABASE)
    for name in ("alpha", "beta", "gamma"):
        network.add(name)
    assert fab("-H", "beta,alpha,gamma", "third", "roll", "answer") == 0
    turns = [note for note in noted if note[0] in ("begins", "ends")]
    assert turns == [(what, host) for host in ("beta", "alpha", "gamma")
                     for what in ("begins", "ends")]  # fmt: skip
    assert network.hosts["gamma"].commands == ["third", "roll", "answer"]


def test_the_first_failure_leaves_the_others_alone(fab, network, capsys):
    yaml(ONE_DATABASE)
    network.add("alpha")
    network.add("beta", fail)
    network.add("gamma")
    assert fab("-H", "alpha,beta,gamma", "roll") == 1
    assert network.hosts["gamma"].commands == []
    err = capsys.readouterr().err
    assert "[gamma] Not begun, and serving as before: beta has failed." in err
    assert "2 of 3 hosts failed: beta, gamma. Done on: alpha." in err


def test_those_who_take_turns_are_handed_the_first(fab, network):
    for name in ("beta", "alpha"):
        network.add(name)
    yaml(ONE_DATABASE)
    assert fab("-H", "beta,alpha", "follow") == 0
    assert fab("-H", "alpha", "follow") == 0
    assert noted == [
        ("beta", "follows", "nobody", "of several"), ("alpha", "follows", "beta", "of several"),
        ("alpha", "follows", "nobody", "alone"),
    ]  # fmt: skip


def add_two_that_wait_for_each_other(network: Network) -> None:
    together = threading.Barrier(2, timeout=10)

    def wait(session: Session) -> int:
        if "facts" in session.command:
            return facts(session)
        together.wait()
        return 0

    network.add("alpha", wait)
    network.add("beta", wait)


def test_hosts_with_databases_of_their_own_need_no_turns(fab, network):
    add_two_that_wait_for_each_other(network)
    assert fab("-H", "alpha,beta", "roll") == 0


def test_a_task_may_say_by_its_hosts_whether_they_take_turns(fab, network, capsys):
    yaml(ONE_DATABASE)
    network.add("alpha", serving)
    network.add("beta", lambda session: facts(session) or 3 * (session.command == "roll-if"))
    network.add("gamma", facts)
    assert fab("-H", "alpha,beta,gamma", "third", "roll-if") == 1
    assert "[gamma] Not begun, and serving as before: beta has failed." in capsys.readouterr().err
    # Looked at before the chain began.
    assert network.hosts["gamma"].commands[1:] == ["third"]


def test_hosts_of_which_none_minds_work_on_it_at_the_same_time(fab, network):
    yaml(ONE_DATABASE)
    add_two_that_wait_for_each_other(network)
    assert fab("-H", "alpha,beta", "roll-if") == 0


def test_what_concerns_the_database_is_done_once(fab, network, capsys):
    yaml(ONE_DATABASE)
    network.add("alpha").close()
    network.add("beta")
    network.add("gamma")
    assert fab("-H", "alpha,beta,gamma", "once") == 1
    assert [network.hosts[name].commands for name in ("beta", "gamma")] == [["once"], []]
    assert noted == [("report", "beta")]
    out, err = capsys.readouterr()
    assert "Done once, through beta: alpha, beta, gamma have one database." in out
    assert "alpha refuses connections" in err
