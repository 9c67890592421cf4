"""A tunnel is OpenSSH's work: what it is told, and what its failures mean."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from invoke import Exit
from stand_ins import Task, blank, context

from tasks import tunnel as module
from tasks.settings import Settings

# Plays ssh: notes its words, and does what the mode in its folder says.
SSH = """#!/bin/bash
here=$(dirname "$0")
printf '%s\\n' "$*" >> "$here/words"
mode=$(cat "$here/mode")
case "$*" in
  *"-O check"*) [ "$mode" = open ] ;;
  *"-O exit"*) rm -f "$2" ;;
  *"-f -M -S"*)
    if [ "$mode" = refuse ]; then echo noise >&2; echo "bind: Address in use" >&2; exit 255; fi
    touch "$4"; echo open > "$here/mode" ;;
  *)
    if [ "$mode" = refuse ]; then echo "Permission denied (publickey)." >&2; exit 255; fi
    words="$*"; port=${words##*-L 127.0.0.1:}; port=${port%%:*}
    exec @PYTHON@ -c "
import socket, sys
with socket.create_server(('127.0.0.1', int(sys.argv[1]))) as listening:
    while True: listening.accept()
" "$port" ;;
esac
"""


class Ssh:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mode(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    @property
    def words(self) -> list[str]:
        file = self.folder / "words"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(SSH.replace("@PYTHON@", sys.executable))
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    ssh = Ssh(folder)
    ssh.mode("closed")
    return ssh


@pytest.fixture
def port() -> int:
    return module.free_port()


@pytest.fixture
def c(port: int) -> Task:
    return context(blank(), Settings(bucket="my-bucket", local_port=port))


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def healthy() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_the_forward_is_spelt_for_loopback_alone():
    c = context(blank(), Settings(bucket="my-bucket", port=6000))
    assert module.forward(c.server, 5001) == [
        "-N", "-o", "ExitOnForwardFailure=yes",
        "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=2",
        "-L", "127.0.0.1:5001:127.0.0.1:6000",
    ]  # fmt: skip


def test_in_the_background_it_has_a_control_socket_of_its_own(c, ssh, port, capsys):
    module.tunnel(c, background=True)
    path = module._socket(c.server)
    assert ssh.words == [
        f"-f -M -S {path} -N -o ExitOnForwardFailure=yes -o ServerAliveInterval=15 "
        f"-o ServerAliveCountMax=2 -L 127.0.0.1:{port}:127.0.0.1:5000 -- ec2"
    ]
    assert "close it with: ./fab -H ec2 tunnel.close" in capsys.readouterr().out


def test_the_control_socket_is_short_and_in_a_folder_of_ours_alone(c):
    path = module._socket(c.server)
    assert len(path.name) == 16
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_every_server_has_a_control_socket_of_its_own():
    sockets = {
        module._socket(context(blank(), Settings(**values), alias).server)
        for alias in ("alpha", "beta")
        for values in ({}, {"port": 6000}, {"environment": "staging"})
    }
    assert len(sockets) == 6


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_folder_that_others_may_enter_is_refused(c, mode):
    folder = Path(os.environ["XDG_RUNTIME_DIR"], f"remote-mlflow-{os.getuid()}")
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with pytest.raises(Exit, match="belongs to somebody else"):
        module._socket(c.server)


def test_a_tunnel_that_is_open_is_not_opened_again(c, ssh, port, capsys):
    module.tunnel(c, background=True)
    capsys.readouterr()
    module.tunnel(c, background=True)
    assert capsys.readouterr().out == f"tunnel: already open at http://localhost:{port}\n"
    assert sum("-M" in words for words in ssh.words) == 1


def test_a_socket_that_nobody_listens_on_is_no_tunnel(c, ssh, port):
    module._socket(c.server).touch()
    assert not module.is_open(c.server)
    module.tunnel(c, background=True)
    assert any("-M" in words for words in ssh.words)


def test_close_closes_it(c, ssh, capsys):
    module.tunnel(c, background=True)
    module.close(c)
    assert ssh.words[-1] == f"-S {module._socket(c.server)} -O exit -- ec2"
    assert "tunnel closed" in capsys.readouterr().out
    assert not module.is_open(c.server)


def test_closing_what_is_not_open_is_no_error(c, ssh, capsys):
    module.close(c)
    assert capsys.readouterr().out == "tunnel.close: there is no tunnel open\n"


def test_a_refusal_in_the_background_is_openssh_s_last_line(c, ssh):
    ssh.mode("refuse")
    with pytest.raises(Exit) as caught:
        module.tunnel(c, background=True)
    assert caught.value.message == (
        "ssh cannot open the tunnel to ec2: bind: Address in use. Try: ssh ec2 true"
    )


def test_a_refusal_in_the_foreground_is_openssh_s_last_line(c, ssh):
    ssh.mode("refuse")
    with pytest.raises(Exit, match=r"Permission denied \(publickey\)"):
        module.tunnel(c)


def test_a_port_that_is_taken_is_named_before_ssh_is_asked(c, ssh, port):
    with socket.create_server(("127.0.0.1", port)):
        for background in (True, False):
            with pytest.raises(Exit, match=f"Port {port} of this machine is taken.*local_port"):
                module.tunnel(c, background=background)
    assert ssh.words == []


def test_a_port_given_by_hand_wins(c, ssh):
    other = module.free_port()
    module.tunnel(c, background=True, local_port=other)
    assert f"-L 127.0.0.1:{other}:" in ssh.words[0]


def test_in_the_foreground_ctrl_c_closes_it(c, ssh, monkeypatch, capsys):
    processes = []
    wait = subprocess.Popen.wait

    def interrupted(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if not processes:
            processes.append(process)
            raise KeyboardInterrupt
        return wait(process, timeout)

    def answers(port: int) -> bool:
        monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
        return True

    monkeypatch.setattr(module, "answers", answers)
    module.tunnel(c)
    out = capsys.readouterr().out
    assert "Ctrl-C closes it" in out
    assert "tunnel closed" in out
    assert processes[0].returncode == -signal.SIGTERM


def test_a_tunnel_that_breaks_says_how_to_open_it_again(c, ssh, monkeypatch):
    def breaks(port: int) -> bool:
        opened[0].kill()
        return True

    opened: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def note(*given: object, **options: object) -> subprocess.Popen[bytes]:
        opened.append(popen(*given, **options))  # type: ignore[call-overload]
        return opened[-1]

    monkeypatch.setattr(module.subprocess, "Popen", note)
    monkeypatch.setattr(module, "answers", breaks)
    with pytest.raises(Exit, match=r"The tunnel to ec2 broke\. Open it again"):
        module.tunnel(c)


def test_the_process_ends_with_the_block_whatever_happens_in_it(c, ssh, port):
    with pytest.raises(ValueError, match="inside"), module.forwarded(c.server, port) as process:
        raise ValueError("inside")
    assert process.poll() is not None


def test_health_is_asked_past_any_proxy(healthy, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert module.answers(healthy)


def test_nobody_who_listens_is_no_answer(port):
    assert not module.answers(port)


def test_status_tells_of_all_three_cases(c, ssh, healthy, capsys):
    module.status(c)
    assert "open one: ./fab -H ec2 tunnel --background" in capsys.readouterr().out
    module.tunnel(c, background=True)
    capsys.readouterr()
    module.status(c)
    assert "but the server does not answer" in capsys.readouterr().err
    module._port_file(c.server).write_text(str(healthy))
    module.status(c)
    assert "and the server answers" in capsys.readouterr().out


def test_the_host_itself_is_never_logged_in_to_by_paramiko(c, ssh):
    module.tunnel(c, background=True)
    module.status(c)
    module.close(c)
    assert c.recorder.opened == 0


def test_a_host_with_a_port_is_spelt_as_openssh_knows_it(ssh, port):
    c = context(blank(), Settings(bucket="my-bucket", local_port=port), "me@192.0.2.7:2200")
    module.tunnel(c, background=True)
    assert ssh.words[0].endswith(" -p 2200 -- me@192.0.2.7")


def test_a_free_port_can_be_bound():
    with socket.create_server(("127.0.0.1", module.free_port())):
        pass
