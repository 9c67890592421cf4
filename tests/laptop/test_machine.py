"""What this machine is asked: who listens on a port, what of ours runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.laptop import machine


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    program = "import time; print(flush=True); time.sleep(60)"
    words = [sys.executable, "-I", "-S", "-c", program, "a word", "another"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def named(pid: int) -> machine.Process | None:
    return next((process for process in machine.processes() if process.pid == pid), None)


def test_the_owner_of_a_port_is_named_with_its_process_id(listening):
    found = machine.owner(listening.getsockname()[1])
    if not machine.PROC.is_dir() and found is None:
        pytest.skip("no lsof here")
    assert found is not None
    assert found[1] == os.getpid()


def test_a_file_that_is_closed_meanwhile_does_not_hide_the_owner(listening):
    """Reading /proc/self/fd itself opens one, the lowest free, which is closed when it is read."""
    if not machine.PROC.is_dir():
        pytest.skip("no /proc here")
    port = listening.getsockname()[1]
    high = os.dup2(listening.fileno(), 999)
    listening.close()
    try:
        assert machine.owner(port) == (Path("/proc/self/comm").read_text().strip(), os.getpid())
    finally:
        os.close(high)


def test_nobody_owns_a_free_port(listening):
    port = listening.getsockname()[1]
    listening.close()
    assert machine.owner(port) is None
    assert not machine.is_taken(port)


def test_another_user_s_program_is_named_by_its_user(tmp_path, monkeypatch):
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
        "   0: 0100007F:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0"
        "        0 34113 1 0000000000000000 100 0 0 10 0\n"
        "   1: 0100007F:1389 0100007F:9999 01 00000000:00000000 00:00000000 00000000    99"
        "        0 34114 1 0000000000000000 100 0 0 10 0\n"
    )
    monkeypatch.setattr(machine, "PROC", tmp_path)
    assert machine.owner(5001) == ("a program of root's", None)
    assert machine.owner(5002) is None


def test_without_proc_lsof_tells(tmp_path, monkeypatch):
    (tmp_path / "lsof").write_text("#!/bin/sh\necho p4711\necho cControlCenter\necho f9\n")
    (tmp_path / "lsof").chmod(0o755)
    monkeypatch.setattr(machine, "PROC", tmp_path / "none")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.owner(5001) == ("ControlCenter", 4711)
    (tmp_path / "lsof").write_text("#!/bin/sh\nexit 1\n")
    assert machine.owner(5001) is None
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert machine.owner(5001) is None


def test_the_next_free_port_is_this_one_or_the_first_behind_it(listening):
    port = listening.getsockname()[1]
    found = machine.next_free(port)
    assert found is not None
    assert found > port
    assert machine.next_free(found) == found
    assert machine.next_free(machine.HIGHEST + 1) is None


def test_a_process_is_listed_with_its_words_its_group_and_whether_it_is_stopped(sleeper):
    process = named(sleeper.pid)
    assert process is not None
    assert process.command.endswith(" a word another")
    assert process.group == sleeper.pid
    assert not process.stopped
    sleeper.send_signal(signal.SIGSTOP)
    os.waitpid(sleeper.pid, os.WUNTRACED)
    stopped = named(sleeper.pid)
    assert stopped is not None
    assert stopped.stopped


def test_one_that_ended_is_not_listed_and_can_be_signalled_in_vain(sleeper):
    process = named(sleeper.pid)
    assert process is not None
    process.send(signal.SIGKILL)
    assert sleeper.wait(5) == -signal.SIGKILL
    assert named(sleeper.pid) is None
    process.send(signal.SIGKILL)


def test_one_that_nobody_waited_for_is_not_listed(sleeper):
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert named(sleeper.pid) is None


def test_without_proc_ps_lists_the_same(tmp_path: Path, monkeypatch):
    (tmp_path / "ps").write_text(
        "#!/bin/sh\n"
        "echo '    1   2 Ss   /sbin/launchd'\n"
        "echo '  501 500 T    ssh -N -M -S /tmp/a b/c.ssh -- ec2'\n"
        "echo '  502 500 Z    (ssh)'\n"
        "echo '  503 500 S+  '\n"
    )
    (tmp_path / "ps").chmod(0o755)
    monkeypatch.setattr(machine, "PROC", tmp_path / "none")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine.processes() == [
        machine.Process(1, 2, False, "/sbin/launchd"),
        machine.Process(501, 500, True, "ssh -N -M -S /tmp/a b/c.ssh -- ec2"),
    ]
