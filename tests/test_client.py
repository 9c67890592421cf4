"""What a client needs: safe to eval, and the password only where it was asked for."""

from __future__ import annotations

import subprocess

import pytest
from invoke import Exit
from stand_ins import Task, blank, context, deployed

from tasks.client import client
from tasks.engine import credentials
from tasks.engine.login import Login
from tasks.engine.paths import PROJECT
from tasks.engine.settings import Settings
from tasks.laptop.tunnel_daemon import State
from tasks.laptop.tunnels import place_of

NASTY = 'it\'s $HOME `id` "x" \\ ; rm -rf / # é'


@pytest.fixture
def c() -> Task:
    c = context(blank())
    credentials.keep(c.server, Login("a b'c", NASTY))
    return c


def test_export_lines_are_safe_to_eval(c, capsys):
    client(c, export=True)
    exported = capsys.readouterr().out
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    show = "; ".join(f'printf "%s\\0" "${name}"' for name in names)
    done = subprocess.run(
        ["bash", "-euc", f'eval "$1"; {show}', "bash", exported],
        capture_output=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.decode().split("\0")[:3] == ["http://localhost:5001", "a b'c", NASTY]
    assert done.stderr == b""


def test_export_prints_nothing_but_export_lines(c, capsys):
    client(c, export=True)
    out, err = capsys.readouterr()
    assert all(line.startswith("export MLFLOW_TRACKING_") for line in out.splitlines())
    assert err == ""


def test_the_password_is_not_printed_without_export(c, capsys):
    client(c)
    out, err = capsys.readouterr()
    assert NASTY not in out + err
    assert "export MLFLOW_TRACKING_PASSWORD=...\n" in out
    assert "./fab -H ec2 tunnel --background" in out
    assert 'eval "$(./fab -H ec2 client --export)"' in out
    assert "ec2.json" in out
    assert f"pip install {PROJECT}/files/client\n" in out


def test_the_snippet_is_python(c, capsys):
    client(c)
    snippet = capsys.readouterr().out.partition("# 3. In Python:\n")[2]
    compile(snippet, "snippet", "exec")
    assert 'mlflow.set_tracking_uri("http://localhost:5001")' in snippet


def test_the_tunnel_s_own_port_is_meant(capsys):
    c = context(blank(), Settings(bucket="my-bucket", local_port=6001))
    credentials.keep(c.server, Login("admin", NASTY))
    client(c, export=True)
    assert "export MLFLOW_TRACKING_URI=http://localhost:6001\n" in capsys.readouterr().out


def test_a_public_name_needs_no_tunnel(capsys):
    c = context(blank(), Settings(bucket="my-bucket", public_name="MLflow.example.org"))
    credentials.keep(c.server, Login("admin", NASTY))
    client(c, export=True)
    assert "export MLFLOW_TRACKING_URI=https://mlflow.example.org\n" in capsys.readouterr().out
    client(c)
    out = capsys.readouterr().out
    assert "tunnel --background" not in out
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in out
    State("ec2", None, 5007, 5000, ["ssh"]).write(place_of(c.server))
    client(c, export=True)
    assert "MLFLOW_TRACKING_URI=http://localhost:5007\n" in capsys.readouterr().out


def test_a_tunnel_that_is_open_on_another_port_is_meant(c, capsys):
    State("ec2", None, 5007, 5000, ["ssh"]).write(place_of(c.server))
    client(c, export=True)
    assert "export MLFLOW_TRACKING_URI=http://localhost:5007\n" in capsys.readouterr().out


def test_use_switches_mlflow_s_own_file(c, capsys):
    credentials.use(Login("boss", "somebody else's"))
    client(c, use=True)
    assert credentials.mlflow_file() == Login("a b'c", NASTY)
    assert NASTY not in capsys.readouterr().out


def test_use_is_refused_for_a_rehearsal_host(home):
    c = context(blank(), alias="sandbox", rehearsal=True)
    credentials.keep(c.server, Login("admin", NASTY))
    with pytest.raises(Exit, match="client --export"):
        client(c, use=True)
    assert not (home / ".mlflow").exists()


def test_without_a_login_it_says_what_to_type():
    with pytest.raises(Exit, match="No login for ec2 is known here"):
        client(context(deployed()))


def test_without_a_server_it_says_that_there_is_none():
    with pytest.raises(Exit, match=r"There is no server on ec2 yet. Type: \./fab install"):
        client(context(blank()))


def test_nothing_is_asked_of_the_host(c):
    client(c)
    client(c, export=True)
    assert c.recorder.opened == 0


def test_behind_a_balancer_no_tunnel_is_needed(capsys):
    c = context(blank(), Settings(bucket="my-bucket", bind="0.0.0.0", balancer="10.0.1.10"))
    credentials.keep(c.server, Login("admin", NASTY))
    client(c)
    out = capsys.readouterr().out
    assert "export MLFLOW_TRACKING_URI=http://10.0.1.10:5000\n" in out
    assert "tunnel --background" not in out
