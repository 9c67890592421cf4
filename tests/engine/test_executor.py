"""A chain of tasks on its hosts, over real SSH on loopback: where they run, one login a host."""

from __future__ import annotations

import threading
from typing import Any

import fabric
import pytest
from chain_tasks import facts, noted, ready, second, show, third, yaml
from fabric.main import program as plain
from invoke import Exit
from stand_ins import Session

from tasks.engine import executor, paths, rehearsed
from tasks.engine.chain import NO_HOST, run_on
from tasks.engine.executor import Executor
from tasks.engine.ssh import Client

# -- which hosts --------------------------------------------------------------------------------


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


# -- where tasks run ----------------------------------------------------------------------------


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


def test_the_key_of_the_file_is_one_for_openssh_too(fab, network, monkeypatch):
    network.add("alpha")
    yaml(f"hosts: [alpha]\nconnect_kwargs: {{key_filename: {network.key}}}\n")
    made = []
    monkeypatch.setattr(executor, "Client", lambda *named: made.append(named) or Client(*named))
    assert fab("third") == 0
    assert network.hosts["alpha"].commands == ["third"]
    assert [keys for _, keys in made] == [(str(network.key),)]


def test_hosts_run_side_by_side(fab, network):
    together = threading.Barrier(3, timeout=10)

    def wait(session: Session) -> int:
        together.wait()  # breaks unless all three are here at once
        return 0

    for name in ("alpha", "beta", "gamma"):
        network.add(name, wait)
    assert fab("-H", "alpha,beta,gamma", "third") == 0


# -- hooks --------------------------------------------------------------------------------------


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


# -- rehearsal hosts ----------------------------------------------------------------------------


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


# -- the real thing -----------------------------------------------------------------------------


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
