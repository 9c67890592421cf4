"""A chain in several environments: which are meant, and what follows `use`."""

from __future__ import annotations

import json
import threading

import pytest
from chain_tasks import facts, fail, noted, yaml
from stand_ins import Session

# -- which environments -------------------------------------------------------------------------

ENVIRONMENTS = """
hosts: [alpha]
mlflow:
  environments:
    staging:
      port: 6000
    eu:
      hosts: [beta, alpha]
      port: 6001
"""


def test_a_task_for_all_environments_looks_at_each_host_once(fab, network):
    alpha, beta = network.add("alpha", facts), network.add("beta", facts)
    yaml(ENVIRONMENTS)
    assert fab("everywhere") == 0
    assert sorted(noted) == [
        ("alpha", "default"), ("alpha", "eu"), ("alpha", "staging"), ("beta", "eu"),
    ]  # fmt: skip
    assert (alpha.logins, len(alpha.commands)) == (1, 1)
    assert (beta.logins, len(beta.commands)) == (1, 1)


@pytest.mark.parametrize(
    ("hosts", "wanted"),
    [
        (["-H", "beta"], [("beta", "eu")]),
        (["-H", "gamma"], [("gamma", "default"), ("gamma", "staging"), ("gamma", "eu")]),
    ],
)
def test_a_named_host_shows_the_environments_that_name_it_or_else_all(fab, network, hosts, wanted):
    for name in ("beta", "gamma"):
        network.add(name, facts)
    yaml(ENVIRONMENTS)
    assert fab(*hosts, "everywhere") == 0
    assert noted == wanted


def test_an_environment_that_was_chosen_is_the_only_one(fab, network, monkeypatch):
    network.add("alpha", facts)
    yaml(ENVIRONMENTS)
    monkeypatch.setenv("FABRIC_MLFLOW_ENVIRONMENT", "staging")
    assert fab("everywhere") == 0
    assert noted == [("alpha", "staging")]


def test_among_other_tasks_one_environment_is_meant(fab, network):
    network.add("alpha", facts)
    yaml(ENVIRONMENTS)
    assert fab("third", "everywhere") == 0
    assert noted == [("alpha", "default")]


def test_a_senseless_option_is_one_line_before_any_connection(fab, network, capsys):
    alpha = network.add("alpha", facts)
    network.add("beta", facts)
    assert fab("-H", "alpha,beta", "third", "everywhere", "--loud") == 1
    assert capsys.readouterr().err == "not so loud\n"
    assert alpha.logins == 0


# -- use ----------------------------------------------------------------------------------------

THREE = """
hosts: [alpha]
mlflow:
  environments:
    staging: {port: 6000}
    production: {port: 6001, hosts: [alpha, beta]}
"""


def test_use_holds_for_every_task_up_to_the_next(fab, network, capsys):
    alpha, beta = network.add("alpha"), network.add("beta")
    yaml(THREE)
    assert fab("where", "use", "staging", "where", "third", "use", "production", "where") == 0
    assert noted[:2] == [("alpha", "default"), ("alpha", "staging")]
    assert sorted(noted[2:]) == [("alpha", "production"), ("beta", "production")]
    assert alpha.commands == ["default", "staging", "third", "production"]
    assert (alpha.logins, beta.logins) == (1, 1), "one login a host for the whole chain"
    out, err = capsys.readouterr()
    assert err == "default on alpha:\nstaging on alpha:\nproduction on alpha, beta:\n"
    wanted = f"Next: ./fab -S '{network.config}' -H alpha,beta use production third\n"
    assert out == wanted, "what follows the last alone"


def test_use_wins_over_the_variable(fab, network, monkeypatch):
    network.add("alpha")
    yaml(THREE)
    monkeypatch.setenv("FABRIC_MLFLOW_ENVIRONMENT", "production")
    assert fab("-H", "alpha", "where", "use", "staging", "where", "use", "default", "where") == 0
    assert noted == [("alpha", "production"), ("alpha", "staging"), ("alpha", "default")]


def test_an_environment_begins_once_the_one_before_is_done_everywhere(fab, network):
    done = threading.Event()

    def late(session: Session) -> int:
        assert session.command == "third"
        done.wait(0.2)
        done.set()
        return 0

    def early(session: Session) -> int:
        assert done.is_set() or session.command == "third"
        return 0

    network.add("alpha", late)
    network.add("beta", early)
    yaml("mlflow: {environments: {a: {hosts: [alpha, beta]}, b: {port: 6000, hosts: [beta]}}}\n")
    assert fab("use", "a", "third", "use", "b", "where") == 0


def test_a_failure_keeps_what_follows_another_use_from_beginning(fab, network, capsys):
    network.add("alpha")
    beta = network.add("beta", fail)
    yaml("mlflow: {environments: {a: {hosts: [alpha, beta]}, b: {port: 6000, hosts: [alpha]}}}\n")
    assert fab("use", "a", "third", "use", "b", "where") == 1
    assert noted == []
    assert beta.commands == ["third"]
    assert capsys.readouterr().err.splitlines()[-1].endswith("Not begun: what follows in b.")


def test_questions_of_all_environments_come_before_the_first_task(fab, network):
    network.add("alpha", facts)
    yaml(THREE)
    assert fab("use", "staging", "first", "change", "use", "default", "change") == 0
    assert noted == [
        ("check", "alpha"), ("prepare", "alpha"), ("prepare", "alpha"), ("staging", "0"),
        ("default", "0"),
    ]  # fmt: skip


def test_what_one_environment_changed_on_a_host_is_looked_at_again_by_the_next(fab, network):
    alpha = network.add("alpha", facts)
    yaml(THREE)
    assert fab("use", "staging", "change", "use", "default", "change") == 0
    # Both before the questions, and the second once more.
    assert sum("facts" in command for command in alpha.commands) == 3


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["use"], "`use` wants the name of an environment"),
        (["use", "staging"], "Nothing follows `use staging`. Say what to do there, such as: "),
        (["use", "staging", "use", "production", "third"], "Nothing follows `use staging`."),
        (["third", "use", "production"], "Nothing follows `use production`."),
        (["use", "stagin", "third"], "Unknown environment 'stagin' (did you mean 'staging'?)."),
        (["use", "third"], "Unknown environment 'third'. There is: default, staging, production."),
        (["third", "use", "stagin", "third"], "Unknown environment 'stagin'"),
    ],
)  # fmt: skip
def test_a_use_that_makes_no_sense_is_one_line_before_any_connection(
    fab, network, capsys, words, wanted
):
    alpha = network.add("alpha")
    yaml(THREE)
    assert fab(*words) == 1
    err = capsys.readouterr().err
    assert err.startswith(wanted)
    assert err.count("\n") == 1
    assert alpha.logins == 0


def test_two_environments_with_one_port_are_one_line_before_any_connection(fab, network, capsys):
    alpha = network.add("alpha")
    yaml("hosts: [alpha]\nmlflow: {environments: {staging: {port: 5000}}}\n")
    assert fab("third") == 1
    assert capsys.readouterr().err.startswith(
        "The environments default and staging have the same port (5000) on alpha."
    )
    assert alpha.logins == 0


def test_what_a_task_says_to_type_names_the_environment(fab, network, capsys):
    network.add("alpha")
    yaml(THREE)
    assert fab("use", "staging", "advise") == 1
    typed = f"Type: ./fab -S '{network.config}' -H alpha"
    last = f"It is stopped. {typed} use staging start"
    assert capsys.readouterr().err.splitlines() == ["staging on alpha:", last]
    assert fab("advise") == 1
    assert capsys.readouterr().err == f"It is stopped. {typed} start\n"


def test_an_environment_in_the_file_s_place_of_the_unnamed_one_stands_in_what_to_type(
    fab, network, capsys
):
    network.add("alpha")
    yaml("hosts: [alpha]\nmlflow: {environment: dev, environments: {dev: {port: 6000}}}\n")
    fab("where", "use", "default", "where")
    assert noted == [("alpha", "dev"), ("alpha", "default")]
    wanted = f"Next: ./fab -S '{network.config}' -H alpha use default third\n"
    assert capsys.readouterr().out == wanted


def test_json_of_several_environments_names_each(fab, network, capsys):
    network.add("alpha")
    yaml(THREE)
    assert fab("use", "staging", "answer", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {"host": "alpha", "environment": "staging", "port": 6000}
    ]
