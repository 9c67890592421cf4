"""Doctor tells people and programs the same, fails for problems alone, repairs after asking."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from invoke import Exit
from seen import NGINX, SERVICE, SOCKET, unit
from stand_ins import SETTINGS, Reply, Task, blank, context, deployed

from tasks import doctor, tunnel
from tasks.engine import credentials
from tasks.engine.login import Login
from tasks.engine.task import RemoteTask
from tasks.findings import case
from tasks.findings.diagnosis import verdict

LOOKED = "".join(
    f"@report looked\t{part}\n"
    for part in (
        "system machine names service nginx requests databases admins webhooks environment bucket"
    ).split()
)
BASE = {"strangers": {}, "damage": None, "revision": None, "writers": {}}
DATABASES = "".join(
    f"@report database\t{json.dumps({'name': name, **BASE})}\n"
    for name in ("mlflow.db", "basic_auth.db")
)
FINE = (
    f"{LOOKED}{DATABASES}@report health\t200\n@report skew\t0\n@report schedule\tactive\n"
    '@report backup\t{"id": "i", "made": 1799999000, "damage": null}\n'
)
SEEN = f"{FINE}@exit 0\n"
LOOSE = f"{FINE}@report mode\t644 /x\n@exit 0\n"
CLIENT = {
    "MLFLOW_TRACKING_URI": "http://localhost:5001",
    "MLFLOW_TRACKING_USERNAME": "admin",
    "MLFLOW_TRACKING_PASSWORD": "a-long-password",
}


@pytest.fixture(autouse=True)
def _no_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "this_machine", lambda server, now, logins: case.Here(
        now=server.facts.now, uri=CLIENT["MLFLOW_TRACKING_URI"], tunnel_port=5001,
        sources=frozenset(logins), tunnel_answers=True,
    ))  # fmt: skip


@pytest.fixture
def c() -> Task:
    return context(deployed(), **CLIENT)


def test_a_healthy_server_is_one_line(c, capsys):
    c.recorder.replies = [Reply(SEEN)]
    assert doctor.doctor(c) == []
    out = capsys.readouterr().out
    assert out.startswith(
        "✓ well: host, environment, database, nginx, server, webhooks, users, bucket,"
    )
    assert out.endswith("(MLflow 3.17.2, 3 runs, 19.1 GB free)\n")


def test_the_look_is_one_exec_and_takes_the_logins_along_unseen(c):
    c.recorder.replies = [Reply(SEEN)]
    credentials.keep(c.server, Login("admin", "the-password-of-the-copy"))
    doctor.doctor(c)
    (run,) = c.recorder.runs
    assert "look.sh" in run.command
    assert "password" not in run.command.partition("remote-mlflow")[2]
    logins = json.loads(run.files["look_at_requests.json"])["logins"]
    sources = {login["source"]: login["password"] for login in logins}
    assert sources == {
        "variables": "a-long-password",
        "copy": "the-password-of-the-copy",
        "file": "the-password-of-the-copy",
    }


def test_a_rehearsal_host_never_sees_the_operator_s_file():
    c = context(deployed(), rehearsal=True)
    credentials.use(Login("me", "my-own-password"))
    assert doctor.known_logins(c.server) == {}


def test_a_finding_is_said_with_how_it_was_seen_and_what_to_type(c, capsys):
    c.recorder.replies = [Reply(LOOSE)]
    doctor.doctor(c)
    assert capsys.readouterr().out.splitlines()[:3] == [
        "✗ Other users of the host may read /x.",
        "    seen: stat: 644 /x",
        "    type: ssh ec2 'chmod go= /x'",
    ]


def test_json_is_the_rows_and_nothing_is_said(c, capsys):
    c.recorder.replies = [Reply(LOOSE)]
    (row,) = doctor.doctor(c, json=True)
    assert (row["key"], row["severity"]) == ("readable-secrets", "problem")
    assert row["type"] == ("ssh ec2 'chmod go= /x'",)
    json.dumps(row)
    assert capsys.readouterr().out == ""


def test_what_could_not_be_seen_is_said(c, capsys):
    blind = "@report blind\tnginx it did not answer within 4 s\n"
    c.recorder.replies = [Reply(SEEN.replace("@report looked\tnginx\n", blind))]
    doctor.doctor(c)
    out = capsys.readouterr().out
    assert (
        "? Not looked at: nginx (it did not answer within 4 s).\n"
        "    type: ./fab -H ec2 doctor --timeout 30\n"
    ) in out


def test_a_longer_look_is_waited_for(c):
    c.recorder.replies = [Reply(SEEN)]
    doctor.doctor(c, timeout=300)
    (run,) = c.recorder.runs
    assert "patience=300" in run.steps
    assert run.options["timeout"] > 300


@pytest.mark.parametrize("timeout", [0, -1, 601])
def test_what_is_no_time_to_wait_is_refused(timeout):
    with pytest.raises(Exit, match=r"--timeout is a number of seconds from 1 to 600"):
        doctor.options(timeout=timeout)


BLIND = {"severity": "blind", "area": "users", "what": "U.", "type": ["d"], "remedy": ""}


@pytest.mark.parametrize(
    ("rows", "reason", "code"),
    [
        ([{"severity": "problem", "what": "A.", "type": ["b"], "remedy": ""}],
         "1 problem: A. Type: b", 1),
        ([{"severity": "problem", "what": "A.", "type": [], "remedy": "Do b."},
          {"severity": "problem"}], "2 problems: A. Do b.", 1),
        ([BLIND | {"area": "host", "type": [], "remedy": "Do b."}, BLIND],
         "Not all was looked at: host, users. Type: d", 2),
        ([{"severity": "problem", "what": "A.", "type": ["b"], "remedy": ""}, BLIND],
         "1 problem: A. Type: b", 1),
    ],
)  # fmt: skip
def test_a_problem_fails_and_so_does_what_was_not_looked_at(rows, reason, code):
    said = verdict(rows)
    assert said is not None
    assert (said.message, said.code) == (reason, code)


def test_notes_do_not_fail():
    assert verdict([]) is None
    assert verdict([{"severity": "note"}]) is None


def test_a_host_without_a_server_says_what_to_type():
    with pytest.raises(Exit, match=r"no server on ec2 yet.*install configure deploy"):
        doctor.doctor(context(blank()))


def test_a_script_is_repaired_under_the_lock_and_looked_at_again(c, capsys):
    c.recorder.replies = [Reply(LOOSE), Reply("@exit 0\n"), Reply(SEEN)]
    assert doctor.doctor(c, fix=True, yes=True) == []
    change = c.recorder.changes[1]
    assert "change.sh" in change.files
    assert change.steps == "say 'chmod go= /x'\nchmod go= /x\n"
    out = capsys.readouterr().out
    assert "doctor --fix would do:\n  chmod go= /x\n" in out
    assert "looked again:\n✓ well:" in out


def test_nobody_to_ask_repairs_nothing(c):
    c.recorder.replies = [Reply(LOOSE)]
    with pytest.raises(Exit, match="needs a confirmation"):
        doctor.doctor(c, fix=True)
    assert len(c.recorder.runs) == 1


def test_a_no_repairs_nothing(c, terminal):
    terminal.append("n")
    c.recorder.replies = [Reply(LOOSE)]
    with pytest.raises(Exit, match="Nothing was changed"):
        doctor.doctor(c, fix=True)
    assert len(c.recorder.runs) == 1


def test_nothing_to_repair_asks_nothing(c):
    c.recorder.replies = [Reply(SEEN)]
    assert doctor.doctor(c, fix=True) == []


def test_tasks_are_run_once_each_in_the_order_of_the_chain_and_ask_first():
    done: list[str] = []

    def note(name: str, *prepare: Any) -> RemoteTask:
        return RemoteTask(lambda c: done.append(name), prepare=prepare)

    def ask(servers: Any) -> dict[str, str]:
        done.append("ask")
        return {}

    tasks = {name: note(name) for name in doctor.REPAIRS} | {"configure": note("configure", ask)}
    names = {SERVICE: unit("inactive"), SOCKET: unit("inactive"), NGINX: unit("active")}
    c = context(deployed(units=names, server_env=frozenset({"MLFLOW_BACKEND_STORE_URI"})))
    c._set(tasks=tasks)
    c.recorder.replies = [Reply(SEEN)]
    doctor.doctor(c, fix=True, yes=True)
    # A restart starts what is stopped.
    assert done == ["ask", "configure", "restart"]


def test_this_machine_is_asked_for_tunnel_and_variables(monkeypatch):
    monkeypatch.undo()
    c = context(deployed(), SETTINGS, MLFLOW_TRACKING_USERNAME="admin")
    monkeypatch.setattr(tunnel, "opened", lambda server: None)
    here = doctor.this_machine(c.server, 1.0, {})
    assert here == case.Here(now=1.0, half=True, zone=f"{datetime.now().astimezone():%z}")
