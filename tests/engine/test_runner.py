"""The fast runner: bytes in, whole characters out, and an end that is an end."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fabric import Config
from invoke import Result
from invoke.exceptions import CommandTimedOut
from paramiko import Transport
from stand_ins import Answer, Network, Session

from tasks.engine.connection import Connection, Runner
from tasks.engine.streams import Alive

Connect = Callable[[Answer], Connection]


@pytest.fixture
def connect(network: Network) -> Iterator[Connect]:
    opened: list[Connection] = []

    def to(answer: Answer) -> Connection:
        network.add("ec2", answer)
        connection = Connection(network.target("ec2"), Config())
        connection.open()
        opened.append(connection)
        return connection

    yield to
    for connection in opened:
        connection.close()


def run(connection: Connection, stdin: bytes = b"", **options: Any) -> Result:
    given: dict[str, Any] = {"hide": True, "warn": True, "in_stream": io.BytesIO(stdin)}
    return connection.run("command", **(given | options))


@pytest.mark.parametrize("code", [0, 1, 76, 255])
def test_the_exit_code_arrives(connect, code):
    assert run(connect(lambda session: code)).exited == code


def test_the_command_arrives_as_it_is(connect, network):
    connection = connect(lambda session: 0)
    command = "bash -c 'echo \"$1\"; echo é' x 'a b'"
    connection.run(command, hide=True, in_stream=io.BytesIO(b""))
    assert network.hosts["ec2"].commands == [command]


def test_the_two_outputs_stay_apart(connect):
    def both(session: Session) -> int:
        session.say("out")
        session.channel.sendall_stderr(b"err")
        return 0

    result = run(connect(both))
    assert (result.stdout, result.stderr) == ("out", "err")


def test_bytes_reach_standard_input_as_they_are_and_end_it(connect):
    got = []

    def receive(session: Session) -> int:
        got.append(session.stdin())
        return 0

    sent = bytes(range(256)) * 4096  # 1 MB that is no text in any encoding
    assert run(connect(receive), stdin=sent).exited == 0
    assert got == [sent]


def test_no_input_is_an_end_at_once(connect):
    assert run(connect(lambda session: len(session.stdin()))).exited == 0


def test_a_command_that_does_not_read_its_input_still_says_why(connect):
    def refuse(session: Session) -> int:
        session.channel.sendall_stderr(b"no room\n")
        return 3

    result = run(connect(refuse), stdin=b"x" * 10_000_000)
    assert (result.exited, result.stderr) == (3, "no room\n")


def test_a_character_may_lie_across_two_packets(connect):
    def halves(session: Session) -> int:
        for byte in "aé€😀z".encode():
            session.say(bytes([byte]))
        return 0

    assert run(connect(halves)).stdout == "aé€😀z"


def test_bytes_that_are_no_text_are_marked_not_fatal(connect):
    def broken(session: Session) -> int:
        session.say(b"a\xff\xe2\x82")  # ends in the middle of a character
        return 0

    assert run(connect(broken)).stdout == "a\ufffd\ufffd"


def test_large_output_arrives_whole_and_in_time_that_grows_with_it(connect):
    line = "x" * 99 + "\n"

    def much(session: Session) -> int:
        for _ in range(80):
            session.say(line * 1000)
        return 0

    assert run(connect(much)).stdout == line * 80_000  # 8 MB; the stock runner takes 5 s


def test_output_is_not_joined_again_for_every_packet_where_nobody_watches_it():
    runner = object.__new__(Runner)
    runner.watchers = []

    class Untouched(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("16 MB took 20 s that way")

    runner.respond(Untouched(["a packet"]))


def test_a_command_costs_no_polling(connect, monkeypatch):
    connection = connect(lambda session: 0)
    slept: list[str] = []
    # It is everybody's sleep: what other tests left running may use it too.
    monkeypatch.setattr(
        "invoke.runners.time.sleep",
        lambda seconds: slept.append(sys._getframe(1).f_globals["__name__"]),
    )
    run(connection, stdin=b"x" * 100_000)
    assert not [
        name for name in slept if name.startswith(("invoke", "fabric", "tasks.engine.connection"))
    ]


def test_many_commands_use_one_login(connect, network):
    connection = connect(lambda session: 0)
    for _ in range(5):
        run(connection)
    assert network.hosts["ec2"].logins == 1
    assert len(network.hosts["ec2"].commands) == 5


def test_a_lost_connection_ends_the_command(connect, network):
    def lose(session: Session) -> None:
        session.say("begun")
        network.hosts["ec2"].hang_up()

    result = run(connect(lose))
    assert result.exited == -1
    assert result.stdout == "begun"


def test_a_command_that_takes_too_long_is_no_lost_connection(connect, monkeypatch):
    def hang(session: Session) -> None:
        session.stdin()
        while not session.channel.closed:
            session.channel.recv(1)

    connection = connect(hang)
    send, sent = Transport._send_user_message, []

    def slow(self: Any, message: Any) -> None:
        time.sleep(0.3)
        send(self, message)
        sent.append(message)

    def run_out() -> None:
        monkeypatch.setattr(Transport, "_send_user_message", slow)

    threading.Timer(0.2, run_out).start()
    with pytest.raises(CommandTimedOut):
        run(connection, in_stream=Alive(b""), timeout=2)
    assert sent, "the host was told before anything went on"


def interrupted_once(monkeypatch: pytest.MonkeyPatch, when: threading.Event) -> None:
    """Play Ctrl-C in the first wait that begins after the event."""
    wait = Runner.wait
    done = []

    def interrupt(self: Runner) -> None:
        if not done:
            done.append(True)
            assert when.wait(5)
            raise KeyboardInterrupt
        wait(self)

    monkeypatch.setattr(Runner, "wait", interrupt)


def test_ctrl_c_without_a_terminal_closes_the_channel_at_once(connect, network, monkeypatch):
    begun, closed = threading.Event(), threading.Event()

    def hang(session: Session) -> None:
        begun.set()
        session.stdin()
        while not session.channel.closed:
            session.channel.recv(1)
        closed.set()

    connection = connect(hang)
    interrupted_once(monkeypatch, begun)
    with pytest.raises(KeyboardInterrupt):
        run(connection)
    assert closed.wait(5)
    assert connection.is_connected, "the login itself stays good"


def test_ctrl_c_on_a_terminal_reaches_the_far_side(connect, network, monkeypatch):
    begun = threading.Event()
    got = []

    def follow(session: Session) -> int:
        begun.set()
        got.append(session.channel.recv(1))
        return 130

    connection = connect(follow)
    interrupted_once(monkeypatch, begun)
    # A terminal's input stays open: what is typed may come at any time.
    result = run(connection, pty=True, in_stream=False)
    assert got == [b"\x03"]
    assert result.exited == 130
    assert network.hosts["ec2"].sessions[0].pty


def test_output_is_handed_on_as_it_comes(connect):
    said, seen = [], threading.Event()

    class Stream:
        def write(self, text: str) -> None:
            said.append(text)
            seen.set()

        def flush(self) -> None: ...

    def slow(session: Session) -> int:
        session.say("first\n")
        assert seen.wait(5), "the first line waits for nobody"
        session.say("second\n")
        return 0

    assert run(connect(slow), hide="stderr", out_stream=Stream()).exited == 0
    assert "".join(said) == "first\nsecond\n"


def test_input_that_stays_open_shows_signs_of_life_until_the_command_ends(connect, monkeypatch):
    monkeypatch.setattr("tasks.engine.connection.BEAT", 0.01)
    read: list[bytes] = []

    def follow(session: Session) -> int:
        while b"".join(read).count(b"\n") < 3:
            read.append(session.channel.recv(100))
        return 0

    assert run(connect(follow), in_stream=Alive(b"program")).exited == 0
    assert b"".join(read).startswith(b"program\n\n")
