"""Hosts of an ssh configuration: aliases, with what is included, and no patterns."""

from __future__ import annotations

import pytest

from tasks.engine import paths
from tasks.engine.aliases import known_hosts_of


@pytest.fixture
def ssh(home):
    folder = home / ".ssh"
    folder.mkdir()
    return folder


def test_aliases_are_found_and_patterns_are_not(ssh):
    (ssh / "config").write_text(
        'Host ec2 ec2-b *.internal !not web?\n  HostName 1.2.3.4\nhost = "other" # a remark\n'
        "Match host x\nHost *\n  User me\nHostName nothing\nHost 'open\n"
    )
    assert known_hosts_of() == ["ec2", "ec2-b", "other"]


def test_what_is_included_is_followed(ssh, home):
    (ssh / "config").write_text(
        "Include conf.d/*.conf ~/elsewhere\nInclude nowhere\nInclude config\nHost own\n"
    )
    (ssh / "conf.d").mkdir()
    (ssh / "conf.d/b.conf").write_text("Host b\n")
    (ssh / "conf.d/a.conf").write_text("Host=a\nInclude deeper\n")
    (ssh / "deeper").write_text("Host deeper\n")
    (home / "elsewhere").write_text("Host elsewhere\n")
    assert known_hosts_of() == ["a", "deeper", "b", "elsewhere", "own"]


def test_without_a_configuration_there_are_none():
    assert known_hosts_of() == []


def test_another_configuration_takes_the_place_of_one_s_own(ssh, tmp_path):
    (ssh / "config").write_text("Host own\n")
    (tmp_path / "theirs").write_text("Host theirs\n")
    assert known_hosts_of(str(tmp_path / "theirs")) == ["theirs"]


def test_this_clone_s_own_hosts_are_there_too(ssh):
    paths.rehearsal().mkdir(parents=True)
    (paths.rehearsal() / "ssh_config").write_text("Host sandbox\n")
    assert known_hosts_of() == ["sandbox"]
