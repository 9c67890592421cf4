"""What a chain refuses before anything connects, and what is OpenSSH's to say."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_tasks import noted, yaml


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
