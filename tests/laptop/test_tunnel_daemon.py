"""What a keeper goes by; what it does as a program is tested with the tunnel."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.laptop import tunnel_daemon


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port that answers the first request with what the test says, None being silence."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def serve() -> None:
            with listening.accept()[0] as one:
                one.recv(1000)
                if request.param is None:
                    over.wait(5)
                else:
                    one.sendall(request.param)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        over.set()
        thread.join()


@pytest.mark.parametrize("answering", [b"HTTP/1.1 405 Not Allowed\r\n\r\n", b""], indirect=True)
def test_an_answer_of_any_kind_shows_that_the_connection_lives(answering):
    assert tunnel_daemon.reaches(answering)


@pytest.mark.parametrize("answering", [None], indirect=True)
def test_silence_does_not(answering):
    assert not tunnel_daemon.reaches(answering, patience=0.1)


def test_nor_does_a_port_that_nobody_listens_on():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert not tunnel_daemon.reaches(port)


def test_the_probe_is_one_that_nginx_answers_itself_and_never_for_health():
    source = Path(tunnel_daemon.__file__).read_text()
    assert '"TRACE / HTTP/1.1' in source
    assert "GET " not in source


def test_a_socket_that_nobody_listens_on_greets_nobody(sockets):
    path = sockets / "a socket"
    assert not tunnel_daemon.greets(path)
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(path))
    assert not tunnel_daemon.greets(path)


def test_attempts_begin_at_once_and_never_grow_rare():
    pauses = list(itertools.islice(tunnel_daemon.pauses(), 7))
    assert pauses == [0.3, 0.6, 1.2, 2.4, 4.8, 5.0, 5.0]


def test_the_clock_goes_on(monkeypatch):
    before = tunnel_daemon.now()
    assert tunnel_daemon.now() >= before
    # As on macOS, whose own monotonic clock counts sleep.
    monkeypatch.delattr(tunnel_daemon.time, "CLOCK_BOOTTIME", raising=False)
    assert tunnel_daemon.now() > 0


def test_a_state_is_read_as_it_was_written(tmp_path):
    place = tunnel_daemon.Place(str(tmp_path / "a place"))
    state = tunnel_daemon.State("ec2", "staging", 5001, 5000, ["ssh", "a b"], 1.5, 2, "why")
    state.write(place)
    assert tunnel_daemon.read(place) == state
    assert [file.name for file in tmp_path.iterdir()] == ["a place.json"]


def test_it_needs_nothing_but_python(tmp_path):
    """It is started with -I -S, where the environment's packages cannot be imported."""
    script = "import sys, runpy; runpy.run_path(sys.argv[1]); print(len(sys.modules))"
    words = [sys.executable, "-I", "-S", "-c", script, tunnel_daemon.__file__]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert int(done.stdout) < 150
