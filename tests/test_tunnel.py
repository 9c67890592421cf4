"""A tunnel is OpenSSH's work, kept by a program of ours: what both are told, and what remains."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from invoke import Exit
from stand_ins import Task, blank, context, deployed, target
from waiting import soon

from tasks import tunnel as module
from tasks.engine.settings import Settings
from tasks.laptop import machine, tunnel_daemon, tunnels

# Plays ssh: notes its words, and does what the files in its folder say.
SSH = """#!@PYTHON@
import os, pathlib, select, socket, sys, time

here = pathlib.Path(__file__).parent
words = sys.argv[1:]
with (here / "words").open("a") as noted:
    noted.write(" ".join(words) + "\\n")
mode = (here / "mode").read_text()


def listen(port):
    return socket.create_server(("127.0.0.1", int(port)))


if "-O" in words:
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(words[words.index("-S") + 1])
        control.recv(8)
        control.sendall(words[words.index("-L") + 1].split(":")[1].encode())
        sys.exit(0 if control.recv(2) == b"ok" else 255)
if mode == "refuse":
    sys.exit("noise\\nPermission denied (publickey).")
if "-M" not in words:
    if "-L" not in words:
        sys.exit(0 if mode != "stranger" else 255)
    with listen(words[words.index("-L") + 1].split(":")[1]) as listening:
        while True:
            listening.accept()
if mode == "stranger":
    sys.exit("Host key verification failed.")
while mode == "slow":
    time.sleep(0.02)
    mode = (here / "mode").read_text()
path = words[words.index("-S") + 1]
control = socket.socket(socket.AF_UNIX)
control.bind(path + ".part")
control.listen()
os.rename(path + ".part", path)
watched = [control]
while True:
    for ready in select.select(watched, [], [])[0]:
        one = ready.accept()[0]
        if ready is not control:
            try:
                one.recv(65536)
                if (here / "mode").read_text() == "healthy":
                    one.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
            except OSError:  # whoever it was only looked whether somebody listens
                pass
            one.close()
            continue
        one.sendall(b"greeting")
        one.settimeout(5)
        if port := one.recv(100):
            try:
                watched.append(listen(port))
                one.sendall(b"ok")
            except OSError:
                one.sendall(b"no")
        one.close()
"""


class Ssh:
    """The stand-in for ssh; `mode` is what it does next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mode(self, mode: str) -> None:
        part = self.folder / "mode.part"
        part.write_text(mode)
        part.replace(self.folder / "mode")

    @property
    def words(self) -> list[str]:
        file = self.folder / "words"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def connections(self) -> int:
        return sum(" -M " in words for words in self.words)


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ssh]:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(SSH.replace("@PYTHON@", sys.executable))
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    ssh = Ssh(folder)
    ssh.mode("healthy")
    yield ssh
    ssh.mode("healthy")
    for lock in tunnels._folder().glob("*.lock"):
        tunnels.end_all(tunnel_daemon.Place(str(lock.with_suffix(""))))


@pytest.fixture
def port() -> int:
    return tunnels.free_port()


@pytest.fixture
def c(port: int) -> Task:
    return context(deployed(), Settings(bucket="my-bucket", local_port=port))


def another(local_port: int, alias: str = "beta", **values: Any) -> Task:
    settings = Settings(bucket="my-bucket", local_port=local_port, **values)
    return context(blank(), settings, alias)


def there(c: Task) -> tunnels.Tunnel:
    found = tunnels.opened(c.server)
    assert found is not None
    return found


def connection(c: Task) -> int:
    """Return the one ssh that stays, once those of the start have ended."""
    soon(lambda: len(there(c).ssh) == 1, "one ssh")
    return there(c).ssh[0]


def there_is_none(c: Task) -> bool:
    return tunnels.opened(c.server) is None and left(c) == []


def left(c: Task) -> list[machine.Process]:
    return tunnels._running(tunnels.place_of(c.server))


@pytest.fixture
def healthy() -> Iterator[int]:
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


# -- what ssh is told --------------------------------------------------------------------------


def test_the_connection_is_unattended_and_does_nothing_else(c, ssh):
    module.tunnel(c, background=True)
    path = tunnels.place_of(c.server).socket
    assert ssh.words[0] == (
        f"-N -M -S {path} -o ClearAllForwardings=yes -o RemoteCommand=none "
        "-o PermitLocalCommand=no -o ControlPath=none -o ControlPersist=no -o BatchMode=yes "
        "-o ConnectTimeout=10 -o LogLevel=INFO -o ServerAliveInterval=4 -o ServerAliveCountMax=3 "
        "-- ec2"
    )


def test_the_forward_is_for_loopback_alone_and_no_configuration_adds_to_it(ssh, port):
    c = another(port, "ec2", port=6000)
    module.tunnel(c, background=True)
    path = tunnels.place_of(c.server).socket
    assert ssh.words[1] == (
        f"-F /dev/null -S {path} -O forward -L 127.0.0.1:{port}:127.0.0.1:6000 -- ec2"
    )


def test_a_command_that_does_nothing_has_the_host_send_without_delay(c, ssh):
    module.tunnel(c, background=True)
    path = tunnels.place_of(c.server).socket
    soon(lambda: len(ssh.words) == 3, "a command")
    assert ssh.words[2] == f"-F /dev/null -S {path} -o ProxyCommand=false -- ec2 true"


def test_the_forward_of_a_single_task_is_spelt_for_loopback_alone():
    c = context(blank(), Settings(bucket="my-bucket", port=6000))
    assert tunnels.forward(c.server, 5001) == [
        "-N", "-o", "ExitOnForwardFailure=yes",
        "-o", "ServerAliveInterval=4", "-o", "ServerAliveCountMax=3",
        "-L", "127.0.0.1:5001:127.0.0.1:6000",
    ]  # fmt: skip


CHACHA, AES128, AES256 = "chacha20-poly1305@openssh.com", *tunnels.AES


@pytest.mark.parametrize(
    ("offered", "told"),
    [
        ((CHACHA, "aes128-ctr", AES128, AES256), (AES128, AES256, CHACHA, "aes128-ctr")),
        ((CHACHA, AES256), (AES256, CHACHA)),
        ((CHACHA, "aes128-ctr"), None),
        ((AES256, CHACHA, AES128), None),
        ((AES256,), None),
        (("",), None),
    ],
)
def test_aes_is_offered_first_of_what_openssh_offers_by_itself(monkeypatch, offered, told):
    monkeypatch.setattr(machine, "has_aes", lambda: True)
    spelt = tunnels.ciphers(target(ciphers=offered))
    assert spelt == (["-o", "Ciphers=" + ",".join(told)] if told else [])


def test_a_processor_without_aes_keeps_the_order_of_openssh(monkeypatch):
    monkeypatch.setattr(machine, "has_aes", lambda: False)
    assert tunnels.ciphers(target(ciphers=(CHACHA, AES128))) == []


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("flags\t\t: fpu sse aes avx\n", True),
        ("Features\t: fp asimd aes pmull\n", True),
        ("flags\t\t: fpu vaes\n", False),
        (None, True),
    ],
)
def test_what_a_processor_can(monkeypatch, tmp_path, text, truth):
    monkeypatch.setattr(machine, "PROC", tmp_path)
    if text:
        (tmp_path / "cpuinfo").write_text(text)
    assert machine.has_aes() is truth


def test_both_kinds_of_tunnel_offer_it(monkeypatch, c, ssh):
    monkeypatch.setattr(tunnels, "ciphers", lambda target: ["-o", f"Ciphers=for-{target.alias}"])
    module.tunnel(c, background=True)
    assert "-o Ciphers=for-ec2 " in ssh.words[0]
    assert "Ciphers=for-ec2" in tunnels.forward(c.server, 5001)


def test_a_host_with_a_port_is_spelt_as_openssh_knows_it(ssh, port):
    module.tunnel(another(port, "me@192.0.2.7:2200"), background=True)
    assert ssh.words[0].endswith(" -p 2200 -- me@192.0.2.7")


def test_the_host_itself_is_never_logged_in_to_by_paramiko(c, ssh):
    module.tunnel(c, background=True)
    module.status(c)
    module.close(c)
    assert c.recorder.opened == 0


# -- opening -----------------------------------------------------------------------------------


def test_it_says_the_url_and_how_to_close_it(c, ssh, port, capsys):
    module.tunnel(c, background=True)
    out = capsys.readouterr().out
    assert f"✓ MLflow is at http://localhost:{port}\n" in out
    assert "close it with: ./fab -H ec2 tunnel.close" in out


def test_a_server_that_is_down_does_not_hinder_the_tunnel(c, ssh, capsys):
    ssh.mode("silent")
    module.tunnel(c, background=True)
    assert "the server does not answer. Type: ./fab -H ec2 status" in capsys.readouterr().err
    assert there(c).condition == "open"


def test_a_tunnel_to_a_host_without_a_server_is_not_left_open(ssh, port):
    ssh.mode("silent")
    c = context(blank(), Settings(bucket="my-bucket", local_port=port))
    with pytest.raises(Exit, match="There is no server on ec2 yet"):
        module.tunnel(c, background=True)
    assert there_is_none(c)


def test_what_keeps_it_has_a_session_of_its_own_and_no_folder(c, ssh):
    module.tunnel(c, background=True)
    pid = there(c).keeper
    assert pid is not None
    assert os.getsid(pid) == pid
    if Path("/proc").is_dir():
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        for descriptor in (0, 1):
            assert os.readlink(f"/proc/{pid}/fd/{descriptor}") == "/dev/null"


def test_a_tunnel_that_is_open_is_not_opened_again(c, ssh, port, capsys):
    module.tunnel(c, background=True)
    capsys.readouterr()
    module.tunnel(c, background=True)
    assert capsys.readouterr().out == f"tunnel: already open at http://localhost:{port}\n"
    assert ssh.connections == 1


def test_two_that_open_it_at_once_open_one(c, ssh, capsys):
    ssh.mode("slow")
    threads = [
        threading.Thread(target=module.tunnel, args=(c,), kwargs={"background": True})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    ssh.mode("healthy")
    for thread in threads:
        thread.join()
    assert "already open at" in capsys.readouterr().out
    assert ssh.connections == 1


def test_one_that_is_open_on_another_port_is_not_called_the_same(c, ssh):
    module.tunnel(c, background=True)
    with pytest.raises(Exit, match=r"is open already, from port .* tunnel\.close"):
        module.tunnel(c, background=True, local_port=tunnels.free_port())


def test_a_refusal_is_openssh_s_last_line_and_leaves_nothing(c, ssh):
    ssh.mode("refuse")
    for background in (True, False):
        with pytest.raises(Exit) as caught:
            module.tunnel(c, background=background)
        assert caught.value.message == (
            "ssh cannot open the tunnel to ec2: Permission denied (publickey). "
            "If its key has a passphrase, type: ssh-add. Try: ssh ec2 true"
        )
    assert tunnels.opened(c.server) is None
    assert left(c) == []


def test_with_a_terminal_ssh_may_ask_once_before_nobody_is_there(c, ssh, monkeypatch):
    ssh.mode("stranger")
    asked = []

    def acquaint(server: object) -> bool:
        asked.append(server)
        ssh.mode("healthy")
        return True

    monkeypatch.setattr(tunnels, "interactive", lambda: True)
    monkeypatch.setattr(tunnels, "_acquaint", acquaint)
    module.tunnel(c, background=True)
    assert asked == [c.server]
    assert there(c).condition == "open"


def test_a_key_that_always_asks_cannot_keep_a_tunnel(c, ssh, monkeypatch):
    ssh.mode("refuse")
    monkeypatch.setattr(tunnels, "interactive", lambda: True)
    monkeypatch.setattr(tunnels, "_acquaint", lambda server: True)
    with pytest.raises(Exit, match="Type ssh-add first, or leave --background away"):
        module.tunnel(c, background=True)


def test_ssh_asks_without_anything_that_the_configuration_adds(c, ssh):
    assert tunnels._acquaint(c.server)
    assert ssh.words == [f"-T {' '.join(tunnels.ALONE)} -- ec2 true"]
    ssh.mode("stranger")
    with pytest.raises(Exit, match="ssh cannot log in to ec2"):
        tunnels._acquaint(c.server)


@pytest.mark.parametrize("number", [80, 65536, -1])
def test_a_port_that_cannot_be_is_refused(c, ssh, number):
    with pytest.raises(Exit, match=f"--local-port is {number}. Give one from 1024 to 65535"):
        module.tunnel(c, local_port=number)


def test_a_port_given_by_hand_wins(c, ssh):
    other = tunnels.free_port()
    module.tunnel(c, background=True, local_port=other)
    assert there(c).local_port == other


# -- ports -------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_refused_with_its_owner(c, ssh, port):
    with socket.create_server(("127.0.0.1", port)):
        for background in (True, False):
            with pytest.raises(Exit) as caught:
                module.tunnel(c, background=background)
    assert f"Port {port} of this machine is taken by " in caught.value.message
    assert f"(process {os.getpid()}). End that: kill {os.getpid()}" in caught.value.message
    assert "--any-port" in caught.value.message
    assert ssh.words == []


def test_a_listener_on_the_other_localhost_is_in_the_way_too(port):
    try:
        listening = socket.create_server(("::1", port), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with listening, pytest.raises(Exit, match=f"Port {port} of this machine is taken"):
        tunnels.refuse_taken(port)


def test_a_port_that_is_taken_by_a_tunnel_of_ours_says_how_to_close_that(c, ssh, port):
    module.tunnel(another(port, "alpha", environment="staging"), background=True)
    with pytest.raises(Exit) as caught:
        module.tunnel(c, background=True)
    assert caught.value.message.startswith(
        f"Port {port} of this machine is taken by the tunnel to alpha (staging). Close that: "
        "./fab -H alpha use staging tunnel.close. Or take another port: "
    )


def test_any_port_takes_the_next_free_one_and_both_live_side_by_side(c, ssh, port):
    beta = another(port)
    module.tunnel(c, background=True)
    module.tunnel(beta, background=True, any_port=True)
    assert there(beta).local_port > port
    assert [there(task).condition for task in (c, beta)] == ["open", "open"]
    module.close(c)
    assert there(beta).condition == "open"


def test_a_port_that_somebody_takes_while_ssh_connects_is_passed_over(c, ssh, port, monkeypatch):
    with socket.create_server(("127.0.0.1", port)):
        free = machine.next_free
        offered = [port]
        monkeypatch.setattr(
            module.machine, "next_free", lambda port: offered.pop() if offered else free(port)
        )
        module.tunnel(c, background=True, any_port=True)
    assert there(c).local_port > port


def test_no_free_port_is_said(c, monkeypatch):
    monkeypatch.setattr(module.machine, "next_free", lambda port: None)
    with pytest.raises(Exit, match="No port of this machine is free from"):
        tunnels._free(5001, any_port=True)


def test_a_free_port_can_be_bound():
    with socket.create_server(("127.0.0.1", tunnels.free_port())):
        pass


# -- keeping -----------------------------------------------------------------------------------


def test_a_lost_connection_comes_back_by_itself(c, ssh, port):
    module.tunnel(c, background=True)
    former = connection(c)
    os.kill(former, signal.SIGKILL)
    soon(lambda: there(c).losses == 1 and there(c).condition == "open", "connected again")
    assert former not in there(c).ssh
    assert tunnels.answers(port)


def test_while_it_does_not_come_back_the_reason_is_known(c, ssh):
    module.tunnel(c, background=True)
    ssh.mode("refuse")
    os.kill(connection(c), signal.SIGKILL)
    soon(lambda: "Permission denied" in (there(c).problem or ""), "a reason")
    assert there(c).condition == "reconnecting"
    with pytest.raises(Exit, match="comes back by itself; last: Permission denied"):
        module.tunnel(c, background=True)
    ssh.mode("healthy")
    soon(lambda: there(c).condition == "open", "connected again")


def test_close_ends_it_between_two_connections(c, ssh, capsys):
    module.tunnel(c, background=True)
    ssh.mode("refuse")
    os.kill(connection(c), signal.SIGKILL)
    soon(lambda: there(c).condition == "reconnecting", "the loss is seen")
    module.close(c)
    assert "tunnel closed" in capsys.readouterr().out
    ssh.mode("healthy")
    assert left(c) == []


def test_an_ssh_that_hangs_is_dead_and_close_ends_it(c, ssh):
    module.tunnel(c, background=True)
    os.kill(connection(c), signal.SIGSTOP)
    assert there(c).condition == "dead"
    module.close(c)
    assert left(c) == []


def test_a_keeper_that_is_stopped_is_dead_and_close_ends_it(c, ssh):
    module.tunnel(c, background=True)
    keeping = there(c).keeper
    assert keeping is not None
    os.kill(keeping, signal.SIGSTOP)
    soon(lambda: there(c).condition == "dead", "dead")
    module.close(c)
    assert left(c) == []


def test_a_keeper_that_was_killed_leaves_no_ssh(c, ssh, capsys):
    module.tunnel(c, background=True)
    keeping = there(c).keeper
    assert keeping is not None
    os.kill(keeping, signal.SIGKILL)
    if sys.platform == "linux":
        soon(lambda: not left(c), "ssh ended with it")
    soon(lambda: there(c).condition == "stale", "stale")
    module.close(c)
    assert left(c) == []
    assert "tunnel closed" in capsys.readouterr().out


def test_what_a_killed_keeper_left_is_ended_before_it_is_opened_anew(c, ssh):
    module.tunnel(c, background=True)
    orphan = connection(c)
    keeping = there(c).keeper
    assert keeping is not None
    os.kill(keeping, signal.SIGKILL)
    soon(lambda: there(c).keeper is None, "the keeper ended")
    module.tunnel(c, background=True)
    assert there(c).condition == "open"
    assert orphan not in there(c).ssh


def test_files_that_are_taken_away_end_it(c, ssh):
    module.tunnel(c, background=True)
    tunnels.place_of(c.server).state.unlink()
    soon(lambda: not left(c), "it ended by itself")


# -- closing -----------------------------------------------------------------------------------


def test_close_closes_it_and_leaves_nothing(c, ssh, port, capsys):
    module.tunnel(c, background=True)
    module.close(c)
    assert "tunnel closed" in capsys.readouterr().out
    assert tunnels.opened(c.server) is None
    assert left(c) == []
    assert not machine.is_taken(port)
    assert [file.suffix for file in tunnels._folder().iterdir()] == [".lock"]


def test_closing_what_is_not_open_is_no_error(c, ssh, capsys):
    module.close(c)
    assert capsys.readouterr().out == "tunnel.close: there is no tunnel open\n"


def test_a_process_is_ours_only_by_its_command_line(c):
    place = tunnels.place_of(c.server)
    assert place.is_mark_of(f"ssh -N -M -S {place.socket} -- ec2")
    # One that was opened before the program had its name is ours as well.
    for program in ("tunnel_daemon.py", "keeper.py"):
        assert place.is_mark_of(f"python -I -S /x/{program} {place.base} 3 background")
    assert not place.is_mark_of(f"tail -f {place.log}")
    assert not place.is_mark_of(f"ssh -N -M -S {place.socket}x -- ec2")
    assert not place.is_mark_of(f"less {place.socket}")


def test_a_host_that_goes_away_takes_its_tunnel_along(c, ssh):
    module.tunnel(c, background=True)
    tunnels.close_all_to("somebody else")
    assert there(c).condition == "open"
    tunnels.close_all_to(c.server.identity)
    assert left(c) == []


# -- in the foreground -------------------------------------------------------------------------


def in_the_foreground(c: Task, then: Callable[[], None]) -> None:
    """Hold it open until `then` is done, and press Ctrl-C."""

    def later() -> None:
        try:
            soon(lambda: tunnels.opened(c.server) and there(c).condition == "open", "open")
            then()
        finally:
            c.server.interrupted.set()

    thread = threading.Thread(target=later)
    thread.start()
    module.tunnel(c)
    thread.join()


def test_in_the_foreground_ctrl_c_closes_it(c, ssh, capsys):
    in_the_foreground(c, lambda: None)
    out = capsys.readouterr().out
    assert "Ctrl-C closes it" in out
    assert out.endswith("tunnel closed\n")
    assert left(c) == []
    assert tunnels.opened(c.server) is None


def test_in_the_foreground_a_loss_is_said_and_mended(c, ssh, monkeypatch, capsys):
    said: list[str] = []
    monkeypatch.setattr(c.server, "say", lambda text, style=None: said.append(text))

    def lose() -> None:
        os.kill(connection(c), signal.SIGKILL)
        soon(lambda: "✓ connected again" in str(said), "it is told")

    in_the_foreground(c, lose)
    assert "the connection was lost" in capsys.readouterr().err
    assert there_is_none(c)


def test_in_the_foreground_it_ends_when_it_is_closed_elsewhere(c, ssh, capsys):
    in_the_foreground(c, lambda: module.close(c))
    assert capsys.readouterr().out.endswith("tunnel closed\n")


def test_in_the_foreground_a_keeper_that_is_killed_is_an_error(c, ssh):
    def kill() -> None:
        keeping = there(c).keeper
        assert keeping is not None
        os.kill(keeping, signal.SIGKILL)
        time.sleep(1)

    with pytest.raises(Exit, match=r"was killed\. Open it again: ./fab tunnel"):
        in_the_foreground(c, kill)
    soon(lambda: not left(c), "nothing is left")


# -- looking -----------------------------------------------------------------------------------


def test_status_tells_of_a_tunnel_in_every_condition(c, ssh, port):
    assert module.status(c) == [{**module._closed(c.server)}]
    module.tunnel(c, background=True)
    stays = connection(c)
    (row,) = module.status(c)
    assert row["state"] == "open"
    assert row["answers"]
    assert row["url"] == f"http://localhost:{port}"
    assert row["keeper"]
    assert list(row["ssh"]) == [stays]
    json.dumps(row)
    ssh.mode("silent")
    assert not module.status(c)[0]["answers"]


def test_status_says_what_to_type(c, ssh, capsys):
    module.show({"ec2": module.status(c)})
    assert "open one: ./fab -H ec2 tunnel --background" in capsys.readouterr().out
    module.tunnel(c, background=True)
    ssh.mode("silent")
    capsys.readouterr()
    module.show({"ec2": module.status(c)})
    out, err = capsys.readouterr()
    assert " open " in out
    assert "the server behind it does not answer. Type: ./fab -H ec2 status" in err
    os.kill(connection(c), signal.SIGSTOP)
    module.show({"ec2": module.status(c)})
    out, err = capsys.readouterr()
    assert " dead " in out
    assert "Close it: ./fab -H ec2 tunnel.close" in err


def test_status_shows_the_tunnels_of_other_environments_and_hosts_too(c, ssh, port, capsys):
    module.tunnel(another(port, "ec2", environment="staging"), background=True)
    assert [row["state"] for row in module.status(c)] == ["closed", "open"]
    module.tunnel(another(tunnels.free_port(), "gamma"), background=True)
    capsys.readouterr()
    module.show({"ec2": module.status(c)})
    out = capsys.readouterr().out
    assert "staging" in out
    assert "gamma" in out


def test_a_state_that_nobody_keeps_is_stale(c, ssh):
    place = tunnels.place_of(c.server)
    tunnel_daemon.State("ec2", None, 5001, 5000, ["ssh"], connected=1.0).write(place)
    (row,) = module.status(c)
    assert row["state"] == "stale"
    assert module._advice(row) == (
        "ec2 (default) is stale: what kept it was killed. Clean up: ./fab -H ec2 tunnel.close"
    )


@pytest.mark.parametrize("text", ["", "{", '{"host": "ec2"}', "[]"])
def test_a_state_of_another_version_is_as_good_as_none(c, text):
    tunnels.place_of(c.server).state.write_text(text)
    assert tunnels.opened(c.server) is None


def test_health_is_asked_past_any_proxy(healthy, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert tunnels.answers(healthy)


def test_nobody_who_listens_is_no_answer(port):
    assert not tunnels.answers(port)


# -- places ------------------------------------------------------------------------------------


def test_its_files_are_in_a_folder_of_ours_alone(c):
    path = tunnels.place_of(c.server).socket
    assert len(path.stem) == 16
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_every_server_has_a_place_of_its_own():
    places = {
        tunnels.place_of(context(blank(), Settings(**values), alias).server)
        for alias in ("alpha", "beta")
        for values in ({}, {"environment": "staging"})
    }
    assert len(places) == 4


def test_a_port_that_changed_in_the_settings_does_not_hide_the_tunnel(c, ssh):
    module.tunnel(c, background=True)
    changed = another(there(c).local_port, "ec2", port=6000)
    assert there(changed).port == 5000
    with pytest.raises(Exit, match=r"to port 5000 there\. Close it first"):
        module.tunnel(changed, background=True)


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_folder_that_others_may_enter_is_refused(c, mode):
    folder = Path(os.environ["XDG_RUNTIME_DIR"], f"remote-mlflow-{os.getuid()}")
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with pytest.raises(Exit, match="belongs to somebody else"):
        tunnels.place_of(c.server)


def test_a_folder_with_too_long_a_name_is_refused_before_ssh_dies_of_it(c, ssh, monkeypatch, home):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / ("x" * 60)))
    with pytest.raises(Exit, match="Set XDG_RUNTIME_DIR to a shorter one"):
        module.tunnel(c)


# -- a tunnel for one task ---------------------------------------------------------------------


def test_the_process_ends_with_the_block_whatever_happens_in_it(c, ssh, port):
    with pytest.raises(ValueError, match="inside"), tunnels.forwarded(c.server, port) as process:
        raise ValueError("inside")
    assert process.poll() is not None


def test_a_refusal_there_is_openssh_s_last_line_too(c, ssh, port):
    ssh.mode("refuse")
    with (
        pytest.raises(Exit, match=r"Permission denied \(publickey\)"),
        tunnels.forwarded(c.server, port),
    ):
        pass
