"""A balancer: what HAProxy is told, what is left alone, and what the servers behind it say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from host_side import program
from invoke import Exit
from stand_ins import Reply, Task, blank, context

from tasks import balancer
from tasks.balancer import options
from tasks.changes.balancer import Found, block, digest, installing, refuse_unreachable, row
from tasks.engine.settings import Settings
from tasks.engine.templates import source
from tasks.laptop.tunnels import free_port

SETTINGS = Settings(bucket="my-bucket", bind="0.0.0.0", balancer="10.0.1.10")
NAMED = Settings(
    bucket="my-bucket", bind="0.0.0.0", balancer="10.0.1.10", public_name="m.example.org"
)
PLACES = ["10.0.1.11:5000", "10.0.1.12:5000"]
TYPED = "10.0.1.11,10.0.1.12"


def looked(text: str = "", **servers: int | None) -> Reply:
    """Say what files/host/balancer/look_at_balancer.py reports."""
    states: dict[str, Any] = dict(zip(PLACES, servers.values(), strict=False))
    report = {"block": text, "active": bool(text), "servers": states}
    return Reply(f"@report {json.dumps(report)}\n@exit 0\n")


def on_host(*replies: Reply, settings: Settings = SETTINGS) -> Task:
    c = context(blank(), settings, alias="lb")
    c.recorder.replies = list(replies)
    return c


# -- what it is told ---------------------------------------------------------------------------


def test_each_server_is_asked_every_second_and_one_that_is_drained_keeps_what_it_has():
    text = block(SETTINGS, PLACES, "")
    assert "http-check send meth GET uri /usable " in text
    assert "http-check disable-on-404" in text
    assert "default-server check inter 1s fall 2 rise 2\n" in text
    assert "  server 10.0.1.11_5000 10.0.1.11:5000 tcp-ut 10s\n" in text
    assert "  server 10.0.1.12_5000 10.0.1.12:5000 tcp-ut 10s\n" in text


def test_only_a_request_that_was_never_sent_is_sent_again():
    text = block(SETTINGS, PLACES, "")
    assert "retry-on conn-failure\n" in text
    assert "option redispatch 1\n" in text


def test_without_a_certificate_it_listens_on_the_port_alone():
    assert [
        line.strip() for line in block(SETTINGS, PLACES, "").splitlines() if "bind " in line
    ] == ["bind *:5000"]


def test_with_a_certificate_443_is_served_and_80_leads_there():
    text = block(NAMED, PLACES, "0123456789abcdef")
    assert "bind *:443 ssl crt /etc/haproxy/mlflow-server.pem" in text
    assert "redirect scheme https code 301 unless { ssl_fc }" in text
    assert "bind *:5000" not in text
    assert Found(text, True, {}).certificate == "0123456789abcdef"
    assert Found(block(NAMED, PLACES, ""), True, {}).certificate == ""


def test_environments_on_one_host_have_parts_of_their_own():
    staging = SETTINGS.model_copy(update={"environment": "staging", "port": 5001})
    assert block(staging, PLACES, "").startswith("# mlflow-server-staging: by balancer")
    assert block(staging, PLACES, "").endswith("# mlflow-server-staging: end\n")


def test_the_key_travels_as_a_file():
    change = installing(NAMED, block(NAMED, PLACES, "0" * 16), ("CHAIN\n", "SECRET\n"))
    assert change.files["pem"] == "CHAIN\nSECRET\n"
    assert "SECRET" not in change.script
    assert "port=443" in change.script


# -- the task ----------------------------------------------------------------------------------


def test_what_is_as_it_should_be_costs_one_exec(capsys):
    c = on_host(looked(block(SETTINGS, PLACES, ""), one=200, two=503))
    rows = balancer.balancer(c, servers=TYPED)
    assert len(c.recorder.runs) == 1
    assert "nothing to change" in capsys.readouterr().out
    assert [(each["server"], each["usable"]) for each in rows] == [
        ("10.0.1.11:5000", True), ("10.0.1.12:5000", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "former", ["", block(SETTINGS, PLACES[:1], ""), block(SETTINGS, PLACES[:1], "0" * 16)]
)
def test_what_differs_is_sent(former, capsys):
    c = on_host(looked(former, one=200, two=200), Reply("@exit 0\n"), looked("x", one=200, two=200))
    balancer.balancer(c, servers=TYPED)
    first, change, _ = c.recorder.runs
    assert "block" not in first.files
    # A certificate that is there stays, whether it was typed again or not.
    stamp = Found(former, True, {}).certificate
    assert change.files["block"] == block(SETTINGS, PLACES, stamp)
    assert "✓ HAProxy serves" in capsys.readouterr().out


def test_servers_are_those_that_hosts_names(monkeypatch):
    c = on_host(looked(block(SETTINGS, ["192.0.2.1:5000"], ""), one=200))
    c.config.hosts = ["web1"]
    monkeypatch.setattr(type(c.server.client), "target", lambda self, host: c.recorder.target)
    balancer.balancer(c)
    request = json.loads(c.recorder.runs[0].files["look_at_balancer.json"])
    assert request == {"unit": "mlflow-server", "servers": ["192.0.2.1:5000"]}


def test_without_servers_it_says_how_to_name_them():
    with pytest.raises(Exit, match=r"Which servers.*--servers 10\.0\.1\.11"):
        balancer.balancer(on_host())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(bucket="my-bucket", bind="0.0.0.0"), "in fabric.yaml to the address of lb"),
        (Settings(bucket="my-bucket", balancer="10.0.1.10"), "Set `bind: 0.0.0.0` in fabric.yaml"),
    ],
)
def test_servers_that_would_not_let_it_in_are_refused_before_anything(settings, said):
    c = on_host(settings=settings)
    with pytest.raises(Exit, match=said):
        refuse_unreachable(c.server)
    assert c.recorder.runs == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"servers": "10.0.1.11,a b"}, "'a b' is no address"),
        ({"servers": "10.0.1.11\n  bind *:1"}, "is no address"),
        ({"certificate": "x.pem"}, "belong together"),
    ],
)
def test_what_makes_no_sense_is_refused(typed, said):
    with pytest.raises(Exit, match=said):
        options(**typed)


def test_a_certificate_needs_a_name(tmp_path):
    with pytest.raises(Exit, match="Set `public_name:`"):
        balancer.balancer(on_host(), servers=TYPED, certificate="x", key="y")


@pytest.mark.parametrize(
    ("status", "usable", "state"),
    [
        (200, True, "usable"),
        (404, False, "drained: about to be restarted"),
        (503, False, "not usable (./fab -H SERVER doctor)"),
        (None, False, "cannot be reached"),
        (403, False, "answers 403"),
    ],
)
def test_every_answer_of_a_server_has_its_words(status, usable, state):
    assert row("web1:5000", status) == {"server": "web1:5000", "usable": usable, "state": state}


def test_a_balancer_without_a_usable_server_is_a_failure():
    assert balancer.verdict([row("web1:5000", 503), row("web2:5000", 200)]) is None
    assert "No server is usable" in (balancer.verdict([row("web1:5000", None)]) or "")


def test_another_certificate_is_another_digest():
    assert digest("one") != digest("two")


# -- the program on the host -------------------------------------------------------------------


class Answering(BaseHTTPRequestHandler):
    """A server that answers every request with its own status."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/usable" else 500)
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        pass


@contextmanager
def answering(status: int) -> Iterator[str]:
    kind = type("Answering", (Answering,), {"status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_the_host_looks_at_its_part_and_asks_every_server(tmp_path, capsys):
    file = tmp_path / "haproxy.cfg"
    ours = block(SETTINGS, PLACES, "")
    file.write_text(f"global\n  daemon\n{ours}frontend theirs\n")
    look = source("look_at_balancer.py").replace("/etc/haproxy/haproxy.cfg", str(file))
    (tmp_path / "look.py").write_text(look)
    (tmp_path / "talk.py").write_text(source("talk.py"))
    with answering(200) as good, answering(404) as drained:
        nobody = f"127.0.0.1:{free_port()}"
        code, out = program(
            capsys, "look.py", staged=tmp_path, unit="mlflow-server",
            servers=[good, drained, nobody],
        )  # fmt: skip
    assert code == 0
    found = Found(**json.loads(out.removeprefix("@report ")))
    assert found.block == ours
    assert list(found.servers.values()) == [200, 404, None]
