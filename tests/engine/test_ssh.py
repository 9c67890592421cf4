"""What OpenSSH makes of an alias is what the tasks make of it."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from invoke import Exit
from stand_ins import target

from tasks.engine import paths
from tasks.engine.ssh import AT_ONCE, Client, key_files, understood

WORDS = ["ssh"]


def read(*lines: str, host: str = "ec2"):
    return understood(host, "\n".join(("hostname 10.0.0.1", *lines)), WORDS)


def write(place: Path, text: str) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


def test_the_defaults_of_openssh():
    found = read("user ubuntu", "port 22")
    assert (found.alias, found.hostname, found.user, found.port) == (
        "ec2",
        "10.0.0.1",
        "ubuntu",
        22,
    )
    assert found.checking == "ask"
    assert found.proxy_command is None
    assert found.connect_timeout is None
    assert not found.identities_only
    assert not found.hash_known_hosts


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("port 2222", "port", 2222),
        ("identitiesonly yes", "identities_only", True),
        ("identityagent none", "identity_agent", "none"),
        ("identityagent /run/agent", "identity_agent", "/run/agent"),
        ("hostkeyalias machine", "key_alias", "machine"),
        ("hostkeyalias none", "key_alias", None),
        ("stricthostkeychecking accept-new", "checking", "accept-new"),
        ("hashknownhosts yes", "hash_known_hosts", True),
        ("connecttimeout 7", "connect_timeout", 7),
        ("connecttimeout none", "connect_timeout", None),
        ("proxycommand none", "proxy_command", None),
        ("proxyjump none", "proxy_command", None),
        ("ciphers aes256-ctr,aes128-ctr", "ciphers", ("aes256-ctr", "aes128-ctr")),
    ],
)
def test_one_option_is_read(line, name, value):
    assert getattr(read(line), name) == value


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("nc %h %p", "nc 10.0.0.1 2222"),
        ("nc -u %r %n", "nc -u ubuntu ec2"),
        ("echo 100%% %h", "echo 100% 10.0.0.1"),
        ("plain", "plain"),
    ],
)
def test_a_proxy_command_s_tokens_are_filled_in(command, wanted):
    found = read("user ubuntu", "port 2222", f"proxycommand {command}")
    assert found.proxy_command == wanted


@pytest.mark.parametrize(
    ("jump", "wanted"),
    [
        ("bastion", "ssh -W '[10.0.0.1]:22' -- bastion"),
        ("me@bastion", "ssh -W '[10.0.0.1]:22' -- me@bastion"),
        ("me@bastion:2200", "ssh -W '[10.0.0.1]:22' -p 2200 -- me@bastion"),
        ("a,me@b:2200", "ssh -J a -W '[10.0.0.1]:22' -p 2200 -- me@b"),
        ("a,b,c", "ssh -J a,b -W '[10.0.0.1]:22' -- c"),
        ("ssh://me@b:2200", "ssh -W '[10.0.0.1]:22' -p 2200 -- me@b"),
    ],
)
def test_a_jump_host_is_reached_by_openssh_itself(jump, wanted):
    assert read("port 22", f"proxyjump {jump}").proxy_command == wanted


def test_a_jump_host_is_looked_up_in_the_same_configuration():
    words = ["ssh", "-F", "/a folder/config"]
    found = understood("ec2", "hostname h\nport 22\nproxyjump b", words)
    assert shlex.split(found.proxy_command or "") == [*words, "-W", "[h]:22", "--", "b"]


def test_only_identities_that_exist_are_offered(home: Path):
    write(home / ".ssh/id_ed25519", "")
    found = read("identityfile ~/.ssh/id_rsa", "identityfile ~/.ssh/id_ed25519")
    assert found.identities == (str(home / ".ssh/id_ed25519"),)


def test_paths_with_spaces_are_kept_whole_though_openssh_prints_them_unquoted(tmp_path: Path):
    first = write(tmp_path / "a folder/known hosts", "")
    second = write(tmp_path / "known_hosts2", "")
    found = read(f"userknownhostsfile {first} {second} /nowhere/x /nowhere/y")
    assert found.known_hosts == (first, second, Path("/nowhere/x"), Path("/nowhere/y"))


def test_the_longest_path_that_exists_is_meant(tmp_path: Path):
    write(tmp_path / "known", "")
    longer = write(tmp_path / "known hosts", "")
    assert read(f"userknownhostsfile {tmp_path}/known hosts").known_hosts == (longer,)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "192.0.2.1"),
        ({"port": 2222}, "[192.0.2.1]:2222"),
        ({"key_alias": "machine"}, "machine"),
        ({"key_alias": "machine", "port": 2222}, "machine"),
    ],
)
def test_known_hosts_spells_a_host_by_alias_or_by_port(values, name):
    assert target(**values).key_name == name


def test_an_alias_that_may_mean_another_machine_elsewhere_is_named_by_its_key():
    assert target("sandbox", key_alias="sandbox-1a2b-1").identity == "sandbox-1a2b-1"
    assert target("ec2").identity == "ec2"


# -- with OpenSSH itself -----------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    other = write(tmp_path / "more hosts/config", "Host included\n  HostName 10.0.0.9\n")
    return write(
        tmp_path / "my config",
        f'Include "{other}"\n'
        "Host ec2 a.example\n  HostName 10.0.0.1\n  User ubuntu\n  Port 2222\n"
        f'  UserKnownHostsFile "{tmp_path}/known hosts"\n  ProxyJump bastion\n'
        "Host bastion\n  HostName 10.0.0.2\n"
        "Match host 10.0.0.1\n  HostKeyAlias matched\n",
    )


def test_s_names_the_configuration_that_holds_for_everything(config: Path):
    found = Client(str(config)).target("ec2")
    assert (found.hostname, found.user, found.port) == ("10.0.0.1", "ubuntu", 2222)
    assert shlex.split(found.proxy_command or "")[:3] == ["ssh", "-F", str(config)]


def test_s_may_start_with_a_tilde(home: Path):
    write(home / "ssh config", "Host ec2\n  HostName 10.0.0.7\n")
    assert Client("~/ssh config").target("ec2").hostname == "10.0.0.7"


def test_s_that_does_not_exist_is_one_line():
    with pytest.raises(Exit, match=r"No ssh configuration at /nowhere/config\. Give -S"):
        Client("/nowhere/config")


def test_include_and_match_are_understood(config: Path):
    client = Client(str(config))
    assert client.target("included").hostname == "10.0.0.9"
    assert client.target("ec2").key_alias == "matched"


@pytest.mark.parametrize(
    ("host", "user", "hostname", "port"),
    [
        ("me@192.0.2.7", "me", "192.0.2.7", 22),
        ("me@192.0.2.7:2200", "me", "192.0.2.7", 2200),
        ("192.0.2.7:2200", None, "192.0.2.7", 2200),
        ("root@ec2", "root", "10.0.0.1", 2222),
        ("root@ec2:22", "root", "10.0.0.1", 22),
        ("ec2", "ubuntu", "10.0.0.1", 2222),
    ],
)
def test_a_host_is_an_alias_or_user_at_host_with_a_port(config, host, user, hostname, port):
    found = Client(str(config)).target(host)
    assert found.alias == host
    assert (found.hostname, found.port) == (hostname, port)
    assert user is None or found.user == user


@pytest.mark.parametrize("host", ["-oProxyCommand=reboot", "", ":22"])
def test_a_host_never_becomes_an_option(config, host):
    with pytest.raises(Exit, match="is not a host"):
        Client(str(config)).target(host)


def test_a_broken_configuration_is_one_line_of_openssh_s_own(tmp_path: Path):
    config = write(tmp_path / "config", "Host ec2\n  NoSuchOption yes\n")
    with pytest.raises(Exit, match="OpenSSH does not understand host 'ec2'") as caught:
        Client(str(config)).target("ec2")
    assert "\n" not in str(caught.value.message)


def test_without_openssh_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Exit, match=r"apt-get install openssh-client"):
        Client().words()


def test_without_anything_special_it_is_plain_ssh():
    assert Client().words() == ["ssh"]


@pytest.mark.parametrize(
    ("named", "files"),
    [
        (None, ()),
        ("", ()),
        ("/a/key", ("/a/key",)),
        (["/a key", "", "/b"], ("/a key", "/b")),
    ],
)
def test_one_key_or_several_may_be_named(named, files):
    assert key_files(named) == files


def test_a_key_is_one_of_the_home_or_of_this_folder():
    assert key_files(["~/.ssh/id", "id"]) == (f"{Path.home()}/.ssh/id", f"{Path.cwd()}/id")


def test_identities_given_by_hand_go_along(config: Path):
    words = Client(str(config), ("/a key", "/b")).words()
    assert words == ["ssh", "-F", str(config), "-i", "/a key", "-i", "/b"]


@pytest.fixture
def own() -> Path:
    """The clone's own hosts, in a folder with a space."""
    text = "Host sandbox\n  HostName 10.1.1.1\n  User root\n"
    return write(paths.state() / "rehearsal" / "ssh_config", text)


def test_the_clone_s_own_hosts_are_known_beside_the_operator_s(own: Path, config: Path):
    client = Client(str(config))
    assert client.target("sandbox").hostname == "10.1.1.1"
    assert client.target("ec2").hostname == "10.0.0.1"
    assert client.target("included").hostname == "10.0.0.9"


def test_a_configuration_that_was_named_wins_over_the_clone_s_own_hosts(own: Path, config: Path):
    with config.open("a") as stream:
        stream.write("Host sandbox\n  HostName 10.6.6.6\n  Port 77\n")
    assert Client(str(config)).target("sandbox").hostname == "10.6.6.6"


def test_the_operator_s_own_configuration_still_counts(own: Path, home: Path):
    text = "Host mine\n  HostName 10.2.2.2\nHost sandbox\n  HostName 10.6.6.6\n"
    write(home / ".ssh/config", text)
    assert Client().target("mine").hostname == "10.2.2.2"
    assert Client().target("sandbox").hostname == "10.1.1.1"


def test_two_chains_with_other_configurations_do_not_rewrite_each_other_s(own, config, home):
    first, second = Client(str(config)).words(), Client().words()
    assert first != second
    assert Path(first[2]).read_text() == f'Include "{config}"\nInclude "{own}"\n'
    assert Client(str(config)).words() == first
    assert len(list(own.parent.iterdir())) == 3


def test_asking_again_leaves_the_composed_file_alone(own: Path):
    file = Path(Client().words()[2])
    os.utime(file, (1, 1))
    Client().words()
    assert file.stat().st_mtime == 1


def test_ssh_is_asked_without_the_terminal(config: Path, monkeypatch):
    asked = []
    popen = subprocess.Popen

    def spy(words, **options):
        asked.append((words, options))
        return popen(words, **options)

    monkeypatch.setattr(subprocess, "Popen", spy)
    Client(str(config)).target("ec2")
    (words, options), *more = asked
    assert more == []
    assert words == ["ssh", "-F", str(config), "-G", "--", "ec2"]
    assert options["stdin"] is subprocess.DEVNULL


# It notes when it begins and ends; `slow` takes longer than any test, and `wrong` is refused.
SSH = """#!/bin/bash
echo "+$$" >> "$HOME/asked"
case ${!#} in
  slow) exec sleep 1000 ;;
  wrong) echo "it is wrong" >&2; exit 255 ;;
esac
sleep 0.1
echo "hostname at-${!#}"
echo "-$$" >> "$HOME/asked"
"""


@pytest.fixture
def ssh(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have this ssh in the place of OpenSSH's; returns where it notes what it does."""
    write(tmp_path / "bin/ssh", SSH).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return home / "asked"


def test_several_hosts_are_asked_about_at_once_and_come_in_their_order(ssh):
    hosts = [f"h{n}" for n in range(3 * AT_ONCE)]
    assert [found.hostname for found in Client().targets(hosts)] == [f"at-{host}" for host in hosts]
    now, most = 0, 0
    for line in ssh.read_text().split():
        now += 1 if line[0] == "+" else -1
        most = max(most, now)
    assert (now, 1 < most <= AT_ONCE) == (0, True)


def still_running(ssh: Path) -> list[int]:
    begun = [int(line[1:]) for line in ssh.read_text().split() if line[0] == "+"]
    return [pid for pid in begun if Path(f"/proc/{pid}").exists()]


def test_once_one_host_is_refused_no_ssh_is_waited_for(ssh):
    with pytest.raises(Exit, match="does not understand host 'wrong': it is wrong"):
        list(Client().targets(["good", "wrong", "slow", "good"]))
    assert still_running(ssh) == []


def test_once_nobody_waits_no_ssh_goes_on(ssh, monkeypatch):
    read = Client._answer

    def interrupted(client: Client, host: str, process: subprocess.Popen[str]) -> object:
        if host == "slow":
            raise KeyboardInterrupt
        return read(client, host, process)

    monkeypatch.setattr(Client, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(Client().targets(["good", "slow", "slow"]))
    assert still_running(ssh) == []


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("ec2", ["--", "ec2"]),
        ("me@192.0.2.7", ["--", "me@192.0.2.7"]),
        ("me@192.0.2.7:2200", ["-p", "2200", "--", "me@192.0.2.7"]),
    ],
)
def test_openssh_gets_a_port_as_an_option_since_it_knows_no_other_spelling(config, host, words):
    client = Client(str(config))
    assert client.to(host) == ["ssh", "-F", str(config), *words]
