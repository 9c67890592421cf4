"""What an operator sees of a chain: lines by host, reports, JSON."""

from __future__ import annotations

import json
import threading

from chain_tasks import facts, fail, noted, yaml
from stand_ins import Session


def test_lines_of_several_hosts_are_whole_and_tagged(fab, network, capsys):
    network.add("alpha")
    network.add("beta")
    assert fab("-H", "alpha,beta", "talk") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == ["[alpha] " + "alpha" * 10] * 20 + ["[beta] " + "beta" * 10] * 20


def test_lines_of_one_host_are_not_tagged(fab, network, capsys):
    network.add("alpha")
    fab("-H", "alpha", "talk", "--lines", "1")
    assert capsys.readouterr().out == "alpha" * 10 + "\n"


def test_a_report_gets_every_host_in_the_order_they_were_named(fab, network):
    last = threading.Event()

    def late(session: Session) -> int:
        assert last.wait(5)
        return 0

    def early(session: Session) -> int:
        threading.Timer(0.05, last.set).start()
        return 0

    network.add("beta", late)
    network.add("alpha", early)
    assert fab("-H", "beta,alpha", "answer") == 0
    assert noted == [("report", "beta", "alpha")]


def test_json_is_one_array_over_all_hosts_and_alone_on_stdout(fab, network, capsys):
    network.add("alpha")
    network.add("beta")
    assert fab("-H", "alpha,beta", "talk", "answer", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == [
        {"host": "alpha", "environment": "default", "port": 5000},
        {"host": "beta", "environment": "default", "port": 5000},
    ]
    assert "[alpha] on the way" in err
    assert noted == [], "no table beside it"


def test_json_of_one_host_is_an_array_too(fab, network, capsys):
    network.add("alpha")
    fab("-H", "alpha", "answer", "--json")
    assert [row["host"] for row in json.loads(capsys.readouterr().out)] == ["alpha"]


def test_json_spreads_several_rows_of_a_host(fab, network, capsys):
    network.add("alpha")
    fab("-H", "alpha", "answer", "--json", "--rows", "3")
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_json_of_nothing_is_an_empty_array(fab, network, capsys):
    network.add("alpha")
    fab("-H", "alpha", "answer", "--json", "--rows", "0")
    assert json.loads(capsys.readouterr().out) == []


def test_json_names_the_environment(fab, network, capsys, monkeypatch):
    network.add("alpha")
    yaml("mlflow:\n  environments:\n    staging: {port: 6000}\n")
    monkeypatch.setenv("FABRIC_MLFLOW_ENVIRONMENT", "staging")
    fab("-H", "alpha", "answer", "--json")
    assert json.loads(capsys.readouterr().out) == [
        {"host": "alpha", "environment": "staging", "port": 6000}
    ]


def test_json_names_the_hosts_that_failed(fab, network, capsys):
    network.add("alpha", fail)
    network.add("beta")
    assert fab("-H", "alpha,beta", "answer", "--json") == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert good["host"] == "beta"
    assert bad == {
        "host": "alpha",
        "environment": "default",
        "error": "A command on alpha failed (3): no such thing",
    }


def test_json_names_a_host_that_could_not_even_be_looked_at(fab, network, capsys):
    network.add("alpha", facts)
    network.add("beta", known=False)
    assert fab("-H", "alpha,beta", "first", "answer", "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [(row["host"], "error" in row) for row in rows] == [("alpha", False), ("beta", True)]


def test_the_former_chain_s_json_does_not_silence_the_next(fab, network, capsys):
    network.add("alpha")
    fab("-H", "alpha", "answer", "--json")
    capsys.readouterr()
    fab("-H", "alpha", "talk")
    assert capsys.readouterr().out
