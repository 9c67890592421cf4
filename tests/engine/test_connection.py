"""Host keys are treated as OpenSSH treats them, and every failed login is one line."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
import threading
from pathlib import Path

import paramiko
import pytest
from fabric import Config
from invoke import Exit
from stand_ins import Host, Network, target

from tasks.engine import connection as module
from tasks.engine.connection import Connection, explained, kind
from tasks.engine.server import Server
from tasks.engine.settings import Settings
from tasks.engine.ssh import Target


def connect(found: Target) -> Connection:
    connection = Connection(found, Config())
    connection.open()
    connection.close()
    return connection


def refusal(found: Target) -> str:
    with pytest.raises(Exit) as caught:
        connect(found)
    message = str(caught.value.message)
    assert "\n" not in message
    return message


@pytest.fixture
def known(network: Network) -> Host:
    return network.add("ec2")


@pytest.fixture
def unknown(network: Network) -> Host:
    return network.add("ec2", known=False)


def test_a_known_host_is_logged_in_to(network, known):
    connect(network.target("ec2"))
    assert known.logins == 1


def test_opening_twice_is_one_login(network, known):
    connection = Connection(network.target("ec2"), Config())
    connection.open()
    connection.open()
    connection.close()
    assert known.logins == 1


def test_the_connection_is_kept_alive_and_sends_small_packets_at_once(network, known, monkeypatch):
    kept = []
    monkeypatch.setattr(paramiko.Transport, "set_keepalive", lambda self, n: kept.append(n))
    connection = Connection(network.target("ec2"), Config())
    connection.open()
    assert kept == [module.KEEPALIVE]
    assert connection.transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("asynchronous", True),
        ("disown", True),
        ("watchers", 3),
        ("encoding", "nope"),
        ("pty", True),
        ("env", {"PATH": "/nowhere"}),
    ],
)
def test_what_invoke_s_section_says_changes_no_command(network, option, value):
    seen = []
    network.add("ec2", lambda session: seen.append(session.command) or session.say("done") or 0)
    config = Config(overrides={"run": {option: value}})
    connection = Connection(network.target("ec2"), config)
    assert Server(connection, Settings(), network.client()).read("true") == "done"
    assert seen == ["true"]
    connection.close()


# -- unknown keys ------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_where_nobody_can_answer(network, unknown):
    message = refusal(network.target("ec2"))
    assert message.startswith("Unknown host key: ec2 (127.0.0.1) shows ECDSA key SHA256:")
    assert unknown.key.fingerprint in message
    assert message.endswith("ssh ec2 true")
    assert network.known_hosts.read_text() == ""
    assert unknown.logins == 0, "nothing is offered to a stranger"


@pytest.mark.parametrize("answer", ["y", "yes", "Yes "])
def test_an_unknown_key_that_is_accepted_is_remembered(network, unknown, terminal, answer, capsys):
    terminal.append(answer)
    connect(network.target("ec2"))
    assert unknown.key.fingerprint in capsys.readouterr().err
    assert network.known_hosts.read_text() == unknown.line()
    connect(network.target("ec2"))
    assert unknown.logins == 2


def test_a_host_that_hung_up_while_its_key_was_compared_is_called_again(
    network, unknown, terminal, monkeypatch
):
    terminal.append("y")
    remember = module.HostKeyPolicy._remember

    def after_two_minutes(self: module.HostKeyPolicy, key: paramiko.PKey) -> None:
        remember(self, key)
        raise paramiko.SSHException("No existing session")  # what Paramiko says of it

    monkeypatch.setattr(module.HostKeyPolicy, "_remember", after_two_minutes)
    connect(network.target("ec2"))
    assert unknown.logins == 1


@pytest.mark.parametrize("answer", ["", "n", "what", "Ctrl-D"])
def test_an_unknown_key_is_refused_by_anything_but_yes(network, unknown, terminal, answer):
    terminal.append(answer)
    assert "Unknown host key" in refusal(network.target("ec2"))
    assert network.known_hosts.read_text() == ""


def test_strict_checking_does_not_even_ask(network, unknown, terminal):
    assert "Unknown host key" in refusal(network.target("ec2", checking="yes"))


@pytest.mark.parametrize("checking", ["accept-new", "no", "off"])
def test_accept_new_remembers_without_asking(network, unknown, checking, capsys):
    connect(network.target("ec2", checking=checking))
    assert network.known_hosts.read_text() == unknown.line()
    assert "was added to known_hosts" in capsys.readouterr().err


def test_accept_new_never_accepts_a_changed_key(network, unknown):
    network.known_hosts.write_text(unknown.line(key=paramiko.ECDSAKey.generate()))
    assert "CHANGED" in refusal(network.target("ec2", checking="accept-new"))


def test_known_hosts_is_made_private_where_there_is_none(network, unknown, tmp_path):
    file = tmp_path / "new" / "known_hosts"
    connect(network.target("ec2", checking="accept-new", known_hosts=(file,)))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_key_is_remembered_in_the_first_file(network, unknown, tmp_path):
    files = (tmp_path / "first", tmp_path / "second")
    connect(network.target("ec2", checking="accept-new", known_hosts=files))
    assert files[0].read_text() == unknown.line()
    assert not files[1].exists()


def test_a_key_is_appended_on_a_line_of_its_own(network, unknown):
    network.known_hosts.write_text("other ssh-ed25519 AAAA")  # without a newline
    connect(network.target("ec2", checking="accept-new"))
    assert network.known_hosts.read_text() == "other ssh-ed25519 AAAA\n" + unknown.line()


def test_names_are_hashed_where_openssh_would_hash_them(network, unknown):
    found = network.target("ec2", checking="accept-new", hash_known_hosts=True)
    connect(found)
    text = network.known_hosts.read_text()
    assert text.startswith("|1|")
    assert "127.0.0.1" not in text
    connect(network.target("ec2", checking="yes"))
    assert unknown.logins == 2, "and found again"


# -- known keys --------------------------------------------------------------------------------


def test_a_changed_key_is_refused_and_both_fingerprints_are_shown(network, unknown):
    former = paramiko.ECDSAKey.generate()
    network.known_hosts.write_text(unknown.line(key=former))
    message = refusal(network.target("ec2"))
    assert message.startswith("The host key of ec2 has CHANGED: it shows ECDSA SHA256:")
    assert unknown.key.fingerprint in message
    assert former.fingerprint in message
    assert f"ssh-keygen -R '[127.0.0.1]:{unknown.port}'" in message
    assert unknown.logins == 0


def test_a_key_of_port_22_is_not_that_of_another_port(network, unknown):
    network.known_hosts.write_text(unknown.line(name="127.0.0.1"))
    assert "Unknown host key" in refusal(network.target("ec2"))


def test_a_host_key_alias_is_looked_up_instead_of_the_name(network, unknown):
    network.known_hosts.write_text(unknown.line(name="machine"))
    connect(network.target("ec2", key_alias="machine"))
    assert unknown.logins == 1


def test_a_changed_key_under_an_alias_is_found(network, unknown):
    network.known_hosts.write_text(unknown.line("machine", paramiko.ECDSAKey.generate()))
    message = refusal(network.target("ec2", key_alias="machine"))
    assert "ssh-keygen -R 'machine'" in message


def test_a_new_key_is_remembered_under_its_alias(network, unknown):
    connect(network.target("ec2", key_alias="machine", checking="accept-new"))
    assert network.known_hosts.read_text() == unknown.line("machine")


def test_the_whole_machine_s_known_hosts_count_too(network, unknown, tmp_path):
    file = tmp_path / "global"
    file.write_text(unknown.line())
    connect(network.target("ec2", global_known_hosts=(tmp_path / "none", file)))
    assert unknown.logins == 1


@pytest.mark.parametrize(
    "line",
    [
        "# a comment",
        "",
        "too short",
        "host ssh-ed25519 not-base64!",
        "host ssh-ed25519 A",
        "@cert-authority *.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==",
        "host sk-ssh-ed25519@openssh.com AAAA",
        "h\udcff ssh-ed25519 AAAA",
    ],
)
def test_a_strange_line_in_known_hosts_is_passed_over(network, known, line):
    text = f"{line}\n{known.line()}"
    network.known_hosts.write_bytes(text.encode(errors="surrogateescape"))
    connect(network.target("ec2"))
    assert known.logins == 1


# -- logging in --------------------------------------------------------------------------------


# Written by `ssh-keygen -t KIND -m FORMAT`: Paramiko reports each of them in its own odd way.
FORMATS = ["rsa PEM", "rsa RFC4716", "ecdsa PEM", "ecdsa RFC4716", "ed25519 RFC4716"]


def identity(path: Path, form: str, passphrase: str = "") -> tuple[str, ...]:
    kind, layout = form.split()
    words = ["ssh-keygen", "-q", "-t", kind, "-m", layout, "-N", passphrase, "-f", str(path)]
    if kind == "rsa":
        words += ["-b", "1024"]  # made in no time, and never accepted anywhere
    subprocess.run(words, check=True)
    return (str(path),)


@pytest.mark.parametrize("form", FORMATS)
def test_a_wrong_key_says_who_was_refused(network, known, tmp_path, form):
    message = refusal(network.target("ec2", identities=identity(tmp_path / "id", form)))
    assert message.startswith("ec2 refuses the login of ubuntu: no key fits.")
    assert "-i KEY" in message


@pytest.mark.parametrize("form", FORMATS)
def test_a_key_with_a_passphrase_says_ssh_add(network, known, tmp_path, form):
    identities = identity(tmp_path / "id", form, "a passphrase")
    assert refusal(network.target("ec2", identities=identities)) == (
        "The SSH key for ec2 has a passphrase. Add it to the agent first: ssh-add"
    )


def test_no_key_at_all_says_who_was_refused(network, known):
    message = refusal(network.target("ec2", identities=()))
    assert message.startswith("ec2 refuses the login of ubuntu")


def test_a_key_that_is_not_there_is_named(network, known):
    message = refusal(network.target("ec2", identities=("/by/hand",)))
    assert "there is no /by/hand" in message


def test_a_closed_port_says_so(network, known):
    known.close()
    message = refusal(network.target("ec2"))
    assert message.startswith(f"ec2 refuses connections at 127.0.0.1 port {known.port}.")


def test_something_that_is_no_ssh_server_is_one_line(network):
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = target("ec2", hostname="127.0.0.1", port=other.getsockname()[1])

        def hang_up() -> None:
            accepted, _ = other.accept()
            accepted.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            accepted.close()

        threading.Thread(target=hang_up, daemon=True).start()
        assert refusal(found).startswith("Cannot log in to ec2: ")


def _no_route() -> OSError:
    return OSError(113, "No route to host")


KEY = paramiko.ECDSAKey.generate()


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (paramiko.AuthenticationException("x"), "refuses the login of ubuntu"),
        (paramiko.PasswordRequiredException("x"), "has a passphrase"),
        (paramiko.BadHostKeyException("ec2", KEY, KEY), "has CHANGED"),
        (socket.gaierror(-2, "Name or service not known"), "Unknown host ec2"),
        (ConnectionRefusedError(), "refuses connections at 192.0.2.1 port 22"),
        (
            paramiko.ssh_exception.NoValidConnectionsError(
                {("192.0.2.1", 22): ConnectionRefusedError()}
            ),
            "refuses connections",
        ),
        (
            paramiko.ssh_exception.NoValidConnectionsError({("192.0.2.1", 22): _no_route()}),
            "Cannot reach ec2 at 192.0.2.1 port 22: No route to host",
        ),
        (
            paramiko.ssh_exception.NoValidConnectionsError(
                {("192.0.2.1", 22): ConnectionRefusedError(), ("2001:db8::1", 22): _no_route()}
            ),
            "No route to host",
        ),
        (TimeoutError(), "does not answer at 192.0.2.1 port 22"),
        (paramiko.SSHException("Authentication timed out"), "does not answer"),
        (_no_route(), "Cannot reach ec2 at 192.0.2.1 port 22: No route to host"),
        (FileNotFoundError(2, "No such", "/k"), "ec2: there is no /k. Fix -i, ProxyCommand, or"),
        (IsADirectoryError(21, "Is a directory", "/k"), "ec2: /k: Is a directory. Fix -i"),
        (paramiko.SSHException("strange"), "Cannot log in to ec2: strange. Try it with"),
        (ValueError("odd"), "Cannot log in to ec2: odd"),
    ],
)
def test_every_failure_is_one_line_that_names_the_host_and_what_to_do(error, wanted):
    message = explained(error, target())
    assert wanted in message
    assert "ec2" in message
    assert "\n" not in message


def test_behind_a_jump_host_it_says_so():
    message = explained(paramiko.SSHException("x"), target(proxy_command="ssh -W"))
    assert message.startswith("Cannot log in to ec2 through its jump host: x.")


@pytest.mark.parametrize(
    ("key", "name"), [("ssh-rsa", "RSA"), ("ssh-ed25519", "ED25519"), ("ecdsa-sha2-x", "ECDSA")]
)
def test_algorithms_are_named_as_people_do(key, name):
    class Key:
        def get_name(self) -> str:
            return key

    assert kind(Key()) == name  # type: ignore[arg-type]


@pytest.mark.parametrize("named", [list, lambda files: files[0]])
def test_identities_are_those_of_openssh_and_of_the_command_line(network, known, tmp_path, named):
    by_hand = identity(tmp_path / "id", "ed25519 RFC4716")
    config = Config(overrides={"connect_kwargs": {"key_filename": named(by_hand)}})
    connection = Connection(network.target("ec2"), config)
    connection.open()
    kwargs = connection.connect_kwargs
    assert type(kwargs) is dict  # a part of the configuration is merged at each word
    assert kwargs["key_filename"] == [*by_hand, str(network.key)]
    assert kwargs["look_for_keys"] is False
    assert kwargs["allow_agent"] is False
    connection.close()


@pytest.mark.parametrize(
    ("only", "agent", "allowed"),
    [(False, None, True), (False, "none", False), (True, None, False), (True, "none", False)],
)
def test_the_agent_is_asked_unless_the_configuration_says_no(only, agent, allowed):
    found = target(identities_only=only, identity_agent=agent)
    assert module._authentication(found, {})["allow_agent"] is allowed


def test_what_fabric_yaml_says_of_a_login_holds():
    given = {"allow_agent": False, "auth_timeout": 7}
    chosen = module._authentication(target(), given)
    assert chosen["allow_agent"] is False
    assert (chosen["auth_timeout"], chosen["banner_timeout"]) == (7, 30)


def test_the_agent_s_own_key_is_used_where_only_its_public_half_is_named(tmp_path, monkeypatch):
    key, other = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
    identity = tmp_path / "id"
    Path(f"{identity}.pub").write_text(f"{key.get_name()} {key.get_base64()} me\n")

    class Agent:
        def get_keys(self):
            return (other, key)

    monkeypatch.setattr(paramiko, "Agent", Agent)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    found = target(identities=(str(identity),), identities_only=True, identity_agent=None)
    assert module._authentication(found, {})["pkey"] is key


@pytest.mark.parametrize(
    ("configured", "given", "wanted"), [(None, None, 10), (3, None, 3), (3, 7, 7), (None, 7, 7)]
)
def test_the_time_to_connect_is_the_command_line_s_or_openssh_s(configured, given, wanted):
    config = Config(overrides={"timeouts": {"connect": given}})
    assert Connection(target(connect_timeout=configured), config).connect_timeout == wanted


def test_the_option_for_the_time_to_connect_can_be_given(network, known):
    given = {"connect_kwargs": {"timeout": 7}, "timeouts": {"connect": 3}}  # -t comes as the first
    connection = Connection(network.target("ec2"), Config(overrides=given))
    assert connection.connect_timeout == 7
    connection.open()
    connection.close()


def test_a_jump_host_s_connection_is_openssh_s_own(network, tmp_path):
    """The proxy command runs, and what it connects to is checked like any other host."""
    far = network.add("far", lambda session: session.say("there") or 0)
    program = tmp_path / "a proxy.py"
    program.write_text(
        "import socket, sys, threading\n"
        "far = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "def up():\n"
        "    while data := sys.stdin.buffer.raw.read(65536): far.sendall(data)\n"
        "    far.shutdown(socket.SHUT_WR)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := far.recv(65536): sys.stdout.buffer.write(data); sys.stdout.flush()\n"
    )
    command = shlex.join([sys.executable, str(program), str(far.port)])
    found = network.target("far", hostname="127.0.0.1", proxy_command=command)
    connection = Connection(found, Config())
    connection.open()
    assert connection.run("x", hide=True, in_stream=False).stdout == "there"
    connection.close()
    far.key = paramiko.ECDSAKey.generate()
    assert "CHANGED" in refusal(found)
