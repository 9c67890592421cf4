"""A chain of tasks on its hosts, over real SSH on loopback: one login a host, one line an error."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import fabric
import pytest
from fabric.main import Fab
from fabric.main import program as plain
from invoke import Collection, Exit
from stand_ins import Network, Session

from tasks.engine import paths, questions, rehearsed
from tasks.engine.chain import NO_HOST, run_on
from tasks.engine.executor import Executor
from tasks.engine.program import adopt
from tasks.engine.task import local, remote
from tasks.environments import use

Noted = list[tuple[str, ...]]
# What the tasks below did, and on which host; emptied for every test.
noted: Noted = []


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    noted.clear()


def looked(servers: Any) -> None:
    noted.append(("check", *(server.name for server in servers)))


def asked(servers: Any) -> dict[str, str]:
    noted.append(("prepare", *(server.name for server in servers)))
    return {server.name: f"what {server.name} said" for server in servers}


def shown(answers: Any) -> None:
    noted.append(("report", *answers))


@remote(check=looked, prepare=[asked])
def first(c):
    c.server.run("first")


@remote(check=looked, prepare=[asked])
def second(c):
    c.server.run("second")
    c.server.say("second\nis done")


def refuse(loud=False):
    if loud:
        raise Exit("not so loud")


@remote(everywhere=True, options=refuse)
def everywhere(c, loud=False):
    c.server.look_at(c.turn.everywhere)
    for server in c.turn.everywhere:
        noted.append((server.name, server.settings.label))


@remote
def third(c):
    c.server.run("third")


@remote
def repair(c):
    c.tasks["third"](c)


@remote
def talk(c, lines=20):
    for _ in range(lines):
        c.server.say(c.server.name * 10)


@remote(report=shown)
def answer(c, json=False, rows=1):
    c.server.run("answer")
    c.server.say("on the way")
    row = {"port": c.server.settings.port}
    return row if rows == 1 else [row] * rows


@remote
def show(c):
    noted.append(("show", c.server.name, str(c.server.settings.bucket)))


@local
def here(c):
    noted.append(("here",))


@local
def there(c):
    settings, hosts = c.place()
    noted.append((settings.label, *hosts))


@remote
def leak(c):
    from tasks.engine.console import console

    console.protect("hunter2hunter2")
    raise Exit("it said hunter2hunter2")


@remote(in_turn=True)
def roll(c):
    noted.append(("begins", c.server.name))
    c.server.run("roll")
    noted.append(("ends", c.server.name))


@remote(in_turn=True)
def follow(c):
    lead = c.turn.lead.name if c.turn.lead else "nobody"
    noted.append((c.server.name, "follows", lead, "of several" if c.turn.several else "alone"))


@remote(in_turn=lambda server: server.facts.now > 0)
def roll_if(c):
    c.server.run("roll-if")


@remote(once=True, report=shown)
def once(c):
    c.server.run("once")
    return {}


@remote
def broken(c):
    raise KeyError("a bug of ours")


@local
def count(c, number=1):
    noted.append(("count", str(number)))


@remote
def wait_for_ctrl_c(c):
    assert c.server.interrupted.wait(10)


@remote(then="third")
def where(c):
    noted.append((c.server.name, c.server.settings.label))
    c.server.run(c.server.settings.label)


@remote(prepare=[asked])
def change(c):
    noted.append((c.server.settings.label, str(c.server.facts.now)))
    c.server.changed = True
    c.server.forget()


ready = threading.Event()


@remote(meanwhile=ready.set)
def need(c):
    assert ready.wait(10)
    c.server.run("need")


@remote(prepare=[asked])
def hear(c):
    noted.append((c.server.name, c.turn.answers[asked]))


@local
def look_up(c):
    noted.append((c.tasks["third"].name,))


@remote
def advise(c):
    raise Exit("It is stopped. Type: ./fab start")


@local
def question(c):
    noted.append(("answered", questions.ask("Word: ")))


@remote
def question_there(c):
    noted.append(("answered", str(c.server.confirm("Go on?", yes=False))))


TASKS = Collection(
    first, second, third, everywhere, talk, answer, show, here, there, leak, broken, count,
    roll, roll_if, once, wait_for_ctrl_c, use, where, change, advise, repair,
    follow, hear, look_up, need, question, question_there,
)  # fmt: skip


class Program(Fab):
    """Fabric's program with these tasks, and the fabric.yaml of the current directory."""

    def load_collection(self) -> None:
        adopt(self)
        self.collection = TASKS
        self.config.set_project_location(str(Path.cwd()))
        self.config.load_project()


Run = Callable[..., int]


@pytest.fixture
def fab(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Type `fab`, with the network's ssh configuration; return the exit code."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)

    def run(*words: str, ssh: bool = True) -> int:
        program = Program(version="0", config_class=fabric.Config)
        configuration = ["-S", str(network.config)] if ssh else []
        try:
            program.run(["fab", *configuration, *words], exit=True)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


FACTS = "home\t/home/ubuntu\nuser\tubuntu\nroot\t/home/ubuntu/mlflow-server\nend\tyes\n"


def facts(session: Session) -> int:
    if "facts" in session.command:
        session.say(FACTS * session.command.count("\nlook "))
    return 0


def serving(session: Session) -> int:
    session.say("now\t5\n")
    return facts(session)


def yaml(text: str) -> None:
    Path("fabric.yaml").write_text(text)


# -- which environments ------------------------------------------------------------------------

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


# -- use ---------------------------------------------------------------------------------------

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


# -- which hosts -------------------------------------------------------------------------------


def test_without_any_host_it_says_how_to_name_one(fab, capsys):
    assert fab("third") == 1
    assert capsys.readouterr().err == NO_HOST + "\n"


def test_hosts_come_from_the_command_line(fab, network):
    network.add("alpha")
    assert fab("-H", "alpha", "third") == 0
    assert network.hosts["alpha"].commands == ["third"]


def test_hosts_come_from_the_file(fab, network):
    network.add("alpha")
    yaml("hosts: [alpha]\n")
    assert fab("third") == 0
    assert network.hosts["alpha"].commands == ["third"]


def test_hosts_come_from_the_variable(fab, network, monkeypatch):
    network.add("alpha")
    network.add("beta")
    yaml("hosts: [nowhere]\n")
    monkeypatch.setenv("FABRIC_HOSTS", "alpha,beta")
    assert fab("third") == 0
    assert [host.commands for host in network.hosts.values()] == [["third"], ["third"]]


def test_hosts_come_from_the_environment(fab, network, monkeypatch):
    network.add("alpha")
    yaml("hosts: [nowhere]\nmlflow:\n  environments:\n    staging:\n      hosts: [alpha]\n")
    monkeypatch.setenv("FABRIC_MLFLOW_ENVIRONMENT", "staging")
    assert fab("third") == 0
    assert network.hosts["alpha"].commands == ["third"]


def test_the_command_line_wins_over_all_of_them(fab, network, monkeypatch):
    network.add("alpha")
    yaml("hosts: [nowhere]\n")
    monkeypatch.setenv("FABRIC_HOSTS", "nowhere")
    assert fab("-H", "alpha", "third") == 0
    assert network.hosts["alpha"].commands == ["third"]


def test_a_host_that_is_named_twice_is_one_host(fab, network):
    network.add("alpha")
    assert fab("-H", "alpha,alpha", "third") == 0
    assert network.hosts["alpha"].commands == ["third"]


def test_settings_come_from_the_file_and_the_variables(fab, network, monkeypatch):
    network.add("alpha")
    yaml("hosts: [alpha]\nmlflow:\n  bucket: file-bucket\n")
    fab("show")
    monkeypatch.setenv("FABRIC_MLFLOW_BUCKET", "variable-bucket")
    fab("show")
    assert noted == [("show", "alpha", "file-bucket"), ("show", "alpha", "variable-bucket")]


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("FABRIC_MLFLOW_PORT", "http", "`mlflow: port:` is 'http', not a whole number"),
        ("FABRIC_MLFLOW_PROT", "1", "Unknown variable FABRIC_MLFLOW_PROT"),
        ("FABRIC_HOST", "a", "did you mean 'FABRIC_HOSTS'?"),
    ],
)
def test_a_wrong_variable_is_one_line_and_no_traceback(
    fab, network, monkeypatch, capsys, variable, value, wanted
):
    network.add("alpha")
    monkeypatch.setenv(variable, value)
    assert fab("-H", "alpha", "third") == 1
    err = capsys.readouterr().err
    assert wanted in err
    assert err.count("\n") == 1
    assert network.hosts["alpha"].logins == 0


def test_a_wrong_file_is_one_line(fab, capsys):
    yaml("mlflow:\n  buckett: x\n")
    assert fab("-H", "alpha", "third") == 1
    assert capsys.readouterr().err.startswith("Unknown setting `mlflow: buckett:` (did you mean")


# -- where tasks run ---------------------------------------------------------------------------


def test_a_remote_task_never_runs_on_this_machine(fab):
    fab("show")
    fab("-H", "", "show")
    assert noted == []


def test_a_local_task_runs_once_however_many_hosts_there_are(fab, network):
    assert fab("-H", "alpha,beta", "here") == 0
    assert noted == [("here",)]


def test_a_local_task_needs_no_host(fab):
    assert fab("here") == 0
    assert noted == [("here",)]


def test_a_local_task_may_ask_which_environment_and_hosts_are_meant(fab):
    yaml("hosts: [alpha]\nmlflow: {environments: {staging: {port: 6000, hosts: [beta]}}}\n")
    assert fab("there", "use", "staging", "there") == 0
    assert fab("-H", "gamma", "there") == 0
    assert noted == [("default", "alpha"), ("staging", "beta"), ("default", "gamma")]


def test_local_and_remote_tasks_keep_their_order(fab, network):
    network.add("alpha")
    fab("-H", "alpha", "show", "here", "show")
    assert [name for name, *_ in noted] == ["show", "here", "show"]


def test_tasks_of_a_chain_run_in_their_order_and_as_often_as_they_stand(fab, network):
    network.add("alpha", facts)
    assert fab("-H", "alpha", "third", "second", "third") == 0
    commands = [c for c in network.hosts["alpha"].commands if "facts" not in c]
    assert commands == ["third", "second", "third"]


def test_a_task_finds_the_others_by_their_names(fab, network):
    network.add("alpha", facts)
    assert fab("-H", "alpha", "repair") == 0
    assert network.hosts["alpha"].commands[-1] == "third"


def test_a_chain_is_one_login(fab, network):
    network.add("alpha", facts)
    assert fab("-H", "alpha", "first", "second", "third") == 0
    assert network.hosts["alpha"].logins == 1


def test_two_hosts_are_two_logins(fab, network):
    network.add("alpha", facts)
    network.add("beta", facts)
    assert fab("-H", "alpha,beta", "first", "second", "third") == 0
    assert [host.logins for host in network.hosts.values()] == [1, 1]


def test_what_a_task_needs_is_made_ready_while_its_hosts_are_waited_for(fab, network):
    network.add("alpha", facts)
    ready.clear()
    assert fab("-H", "alpha", "first", "need") == 0
    assert network.hosts["alpha"].commands[-1] == "need"


def test_a_chain_that_has_not_to_log_in_does_not(fab, network):
    network.add("alpha")
    assert fab("-H", "alpha", "show") == 0
    assert network.hosts["alpha"].logins == 0


def test_many_hosts_do_not_grow_one_list_of_keys(fab, network):
    names = [f"host{n}" for n in range(8)]
    for name in names:
        network.add(name)
    assert fab("-i", str(network.key), "-H", ",".join(names), "third") == 0
    assert all(host.logins == 1 for host in network.hosts.values())


def test_hosts_run_side_by_side(fab, network):
    together = threading.Barrier(3, timeout=10)

    def wait(session: Session) -> int:
        together.wait()  # breaks unless all three are here at once
        return 0

    for name in ("alpha", "beta", "gamma"):
        network.add(name, wait)
    assert fab("-H", "alpha,beta,gamma", "third") == 0


# -- hosts with one database -------------------------------------------------------------------

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


def test_hosts_with_databases_of_their_own_need_no_turns(fab, network):
    together = threading.Barrier(2, timeout=10)

    def wait(session: Session) -> int:
        together.wait()
        return 0

    network.add("alpha", wait)
    network.add("beta", wait)
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
    together = threading.Barrier(2, timeout=10)

    def wait(session: Session) -> int:
        if "facts" in session.command:
            return facts(session)
        together.wait()
        return 0

    network.add("alpha", wait)
    network.add("beta", wait)
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


# -- hooks -------------------------------------------------------------------------------------


def test_hooks_that_several_tasks_share_are_called_once_for_all_hosts(fab, network):
    network.add("alpha", facts)
    network.add("beta", facts)
    fab("-H", "alpha,beta", "first", "second", "first")
    assert noted == [("check", "alpha", "beta"), ("prepare", "alpha", "beta")]


def test_what_is_wrong_here_is_said_before_any_connection(fab, network, monkeypatch, capsys):
    def refuse(servers: Any) -> None:
        raise Exit("it is wrong. Fix it")

    monkeypatch.setattr(second, "check", refuse)
    network.add("alpha", facts)
    assert fab("-H", "alpha", "third", "second") == 1
    assert capsys.readouterr().err == "it is wrong. Fix it\n"
    assert network.hosts["alpha"].logins == 0


def test_facts_are_looked_at_once_before_questions_are_asked(fab, network):
    network.add("alpha", facts)
    fab("-H", "alpha", "first")
    assert [("facts" in command) for command in network.hosts["alpha"].commands] == [True, False]


def test_what_was_answered_for_a_host_is_handed_to_its_tasks(fab, network):
    for name in ("alpha", "beta"):
        network.add(name, facts)
    assert fab("-H", "alpha,beta", "hear") == 0
    assert sorted(noted[1:]) == [("alpha", "what alpha said"), ("beta", "what beta said")]


def test_a_host_that_cannot_be_looked_at_is_not_asked_about(fab, network, capsys):
    network.add("alpha", facts)
    network.add("beta", known=False)
    assert fab("-H", "alpha,beta", "first") == 1
    assert noted[-1] == ("prepare", "alpha")
    assert network.hosts["alpha"].commands[-1] == "first"
    assert "[beta] Unknown host key" in capsys.readouterr().err


def test_a_local_task_can_look_others_up_by_name(fab):
    assert fab("look-up") == 0
    assert noted == [("third",)]


# -- failures ----------------------------------------------------------------------------------


def fail(session: Session) -> int:
    session.channel.sendall_stderr(b"noise\nno such thing\n")
    return 3


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
    result: Any = Future.result

    def interrupted(future: Any, *timeout: float | None) -> Any:
        if timeout:  # the connections, which are made before
            return result(future, *timeout)
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


# -- what the operator sees --------------------------------------------------------------------


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


# -- what is refused ---------------------------------------------------------------------------


def test_dry_is_refused_before_anything_connects(fab, network, capsys):
    network.add("alpha")
    assert fab("--dry", "-H", "alpha", "third") == 1
    assert capsys.readouterr().err == (
        "--dry would still connect and change things. Type: ./fab plan\n"
    )
    assert network.hosts["alpha"].logins == 0


def test_a_word_where_a_number_belongs_is_one_line(fab, capsys):
    assert fab("count", "--number", "many") == 1
    assert capsys.readouterr().err == "'many' is not a whole number. Give the option one.\n"
    assert fab("count", "--number", "7") == 0
    assert noted == [("count", "7")]


def test_commands_after_two_dashes_are_refused(fab, network, capsys):
    network.add("alpha")
    assert fab("-H", "alpha", "third", "--", "reboot") == 1
    assert "ssh HOST COMMAND" in capsys.readouterr().err
    assert network.hosts["alpha"].commands == []


def test_s_that_names_no_file_is_one_line(fab, capsys):
    assert fab("-S", "/nowhere", "-H", "alpha", "third", ssh=False) == 1
    assert "/nowhere" in capsys.readouterr().err


def test_the_operator_s_own_configuration_is_for_openssh_alone(fab, network, home):
    network.add("alpha")
    (home / ".ssh").mkdir()
    (home / ".ssh/config").write_text("Match sessiontype shell\n  no such line\n")
    assert fab("-H", "alpha", "third") == 0


def test_s_may_stand_in_the_file(fab, network):
    network.add("alpha")
    yaml(f"ssh_config_path: '{network.config}'\n")
    assert fab("-H", "alpha", "third", ssh=False) == 0
    assert network.hosts["alpha"].commands == ["third"]


def test_s_wins_over_the_file(fab, network, tmp_path):
    network.add("alpha")
    (tmp_path / "other").write_text("Host alpha\n  HostName 127.0.0.1\n  Port 1\n")
    yaml(f"ssh_config_path: '{tmp_path / 'other'}'\n")
    assert fab("-H", "alpha", "third") == 0


# What is wrong with a host before there is any connection, and what is said of it.
REFUSED = [
    (["-H", "x;y"], "OpenSSH does not understand host 'x;y': hostname contains invalid characters"),
    (["-H", "alpha,x;y"], "OpenSSH does not understand host 'x;y'"),
    (["-H=-x"], "'-x' is not a host"),
    (["-S", "refused", "-H", "beta"], "bad configuration option"),
    (["-S", "nowhere", "-H", "beta"], "No ssh configuration at nowhere"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_a_host_that_openssh_refuses_is_one_line(fab, network, capsys, words, said):
    alpha = network.add("alpha")
    Path("refused").write_text("Host beta\n  NoSuchThing yes\n")
    assert fab(*words, "third", ssh="-S" not in words) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert alpha.logins == 0


def test_a_machine_without_openssh_is_one_line(fab, network, capsys, monkeypatch):
    network.add("alpha")
    monkeypatch.setattr("tasks.engine.ssh.shutil.which", lambda name: None)
    assert fab("-H", "alpha", "third") == 1
    assert capsys.readouterr().err.startswith("OpenSSH's client is missing. Install it")


# -- rehearsal hosts ---------------------------------------------------------------------------


def test_a_rehearsal_host_ignores_the_operator_s_settings(fab, network, monkeypatch):
    network.add("sandbox")
    rehearsed.remember({"sandbox": {"settings": {"bucket": "toy-bucket"}, "variables": {}}})
    monkeypatch.setenv("FABRIC_MLFLOW_BUCKET", "real-bucket")
    fab("-H", "sandbox", "show")
    assert noted == [("show", "sandbox", "toy-bucket")]


def test_a_rehearsal_host_takes_an_environment_that_is_named_and_no_bucket_of_it(
    fab, network, monkeypatch
):
    network.add("sandbox")
    rehearsed.remember({"sandbox": {"settings": {"bucket": "toy-bucket"}, "variables": {}}})
    yaml("mlflow: {bucket: real-bucket, environments: {staging: {port: 6000}}}\n")
    monkeypatch.setenv("FABRIC_MLFLOW_ENVIRONMENT", "staging")
    assert fab("-H", "sandbox", "where", "show") == 0
    assert fab("-H", "sandbox", "use", "staging", "where", "show") == 0
    assert noted == [
        ("sandbox", "default"), ("show", "sandbox", "toy-bucket"),
        ("sandbox", "staging"), ("show", "sandbox", "toy-bucket"),
    ]  # fmt: skip


def test_another_clone_s_rehearsal_host_is_none_of_ours(fab, network):
    host = network.add("sandbox", known=False)
    network.block("sandbox-2", host.port, "HostKeyAlias their-machine")
    rehearsed.remember({"sandbox-2": {"settings": {"bucket": "toy-bucket"}, "variables": {}}})
    fab("-H", "sandbox-2", "show")
    assert noted == [("show", "sandbox-2", "None")]


def test_tasks_run_on_rehearsal_hosts_from_within_a_local_one(network):
    network.add("sandbox")
    own = paths.rehearsal() / "ssh_config"
    own.parent.mkdir(parents=True)
    own.write_text(network.config.read_text())
    rehearsed.remember({"sandbox": {"settings": {"bucket": "toy-bucket"}, "variables": {}}})
    run_on(["sandbox"], [show, third], fabric.Config())
    assert noted == [("show", "sandbox", "toy-bucket")]
    assert network.hosts["sandbox"].commands == ["third"]


# -- the real thing ----------------------------------------------------------------------------


def test_plain_fab_finds_the_project_s_tasks_from_any_folder_below(monkeypatch, capsys):
    monkeypatch.chdir(paths.PROJECT / "tasks")
    plain.run(["fab", "--list", "--list-format", "nested"], exit=False)
    listed = capsys.readouterr().out
    for name in ("install", "configure", "deploy", "verify", "plan", "rehearse"):
        assert name in listed
    assert plain.executor_class is Executor


def test_plain_fab_without_a_host_says_so_too(monkeypatch, capsys):
    monkeypatch.chdir(paths.PROJECT)
    with pytest.raises(SystemExit) as end:
        plain.run(["fab", "status"], exit=True)
    assert end.value.code == 1
    assert capsys.readouterr().err == NO_HOST + "\n"
