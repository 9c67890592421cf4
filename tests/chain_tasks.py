"""Tasks for tests of a chain, which note what they did and on which host."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fabric.main import Fab
from invoke import Collection, Exit
from stand_ins import Session

from tasks.engine import questions
from tasks.engine.program import adopt
from tasks.engine.task import local, remote
from tasks.environments import use

Noted = list[tuple[str, ...]]
# What the tasks below did, and on which host; emptied for every test.
noted: Noted = []


def looked(servers: Any) -> None:
    noted.append(("check", *(server.name for server in servers)))


def asked(servers: Any) -> dict[str, str]:
    noted.append(("prepare", *(server.name for server in servers)))
    return {server.name: f"what {server.name} said" for server in servers}


def shown(answers: Any) -> None:
    noted.append(("report", *answers))


@remote(check=looked, prepare=[asked])
def first(c):
    c.server.run("first")


@remote(check=looked, prepare=[asked])
def second(c):
    c.server.run("second")
    c.server.say("second\nis done")


def refuse(loud=False):
    if loud:
        raise Exit("not so loud")


@remote(everywhere=True, options=refuse)
def everywhere(c, loud=False):
    c.server.look_at(c.turn.everywhere)
    for server in c.turn.everywhere:
        noted.append((server.name, server.settings.label))


@remote
def third(c):
    c.server.run("third")


@remote
def repair(c):
    c.tasks["third"](c)


@remote
def talk(c, lines=20):
    for _ in range(lines):
        c.server.say(c.server.name * 10)


@remote(report=shown)
def answer(c, json=False, rows=1):
    c.server.run("answer")
    c.server.say("on the way")
    row = {"port": c.server.settings.port}
    return row if rows == 1 else [row] * rows


@remote
def show(c):
    noted.append(("show", c.server.name, str(c.server.settings.bucket)))


@local
def here(c):
    noted.append(("here",))


@local
def there(c):
    settings, hosts = c.place()
    noted.append((settings.label, *hosts))


@remote
def leak(c):
    from tasks.engine.console import console

    console.protect("hunter2hunter2")
    raise Exit("it said hunter2hunter2")


@remote(in_turn=True)
def roll(c):
    noted.append(("begins", c.server.name))
    c.server.run("roll")
    noted.append(("ends", c.server.name))


@remote(in_turn=True)
def follow(c):
    lead = c.turn.lead.name if c.turn.lead else "nobody"
    noted.append((c.server.name, "follows", lead, "of several" if c.turn.several else "alone"))


@remote(in_turn=lambda server: server.facts.now > 0)
def roll_if(c):
    c.server.run("roll-if")


@remote(once=True, report=shown)
def once(c):
    c.server.run("once")
    return {}


@remote
def broken(c):
    raise KeyError("a bug of ours")


@local
def count(c, number=1):
    noted.append(("count", str(number)))


@remote
def wait_for_ctrl_c(c):
    assert c.server.interrupted.wait(10)


@remote(then="third")
def where(c):
    noted.append((c.server.name, c.server.settings.label))
    c.server.run(c.server.settings.label)


@remote(prepare=[asked])
def change(c):
    noted.append((c.server.settings.label, str(c.server.facts.now)))
    c.server.changed = True
    c.server.forget()


ready = threading.Event()


@remote(meanwhile=ready.set)
def need(c):
    assert ready.wait(10)
    c.server.run("need")


@remote(prepare=[asked])
def hear(c):
    noted.append((c.server.name, c.turn.answers[asked]))


@local
def look_up(c):
    noted.append((c.tasks["third"].name,))


@remote
def advise(c):
    raise Exit("It is stopped. Type: ./fab start")


@local
def question(c):
    noted.append(("answered", questions.ask("Word: ")))


@remote
def question_there(c):
    noted.append(("answered", str(c.server.confirm("Go on?", yes=False))))


TASKS = Collection(
    first, second, third, everywhere, talk, answer, show, here, there, leak, broken, count,
    roll, roll_if, once, wait_for_ctrl_c, use, where, change, advise, repair,
    follow, hear, look_up, need, question, question_there,
)  # fmt: skip


class Program(Fab):
    """Fabric's program with these tasks, and the fabric.yaml of the current directory."""

    def load_collection(self) -> None:
        adopt(self)
        self.collection = TASKS
        self.config.set_project_location(str(Path.cwd()))
        self.config.load_project()


Run = Callable[..., int]
FACTS = "home\t/home/ubuntu\nuser\tubuntu\nroot\t/home/ubuntu/mlflow-server\nend\tyes\n"


def facts(session: Session) -> int:
    if "facts" in session.command:
        session.say(FACTS * session.command.count("\nlook "))
    return 0


def serving(session: Session) -> int:
    session.say("now\t5\n")
    return facts(session)


def fail(session: Session) -> int:
    session.channel.sendall_stderr(b"noise\nno such thing\n")
    return 3


def yaml(text: str) -> None:
    Path("fabric.yaml").write_text(text)
