"""`plan` says what the chain would do, and does nothing."""

from __future__ import annotations

import pytest
from invoke import Exit
from stand_ins import SETTINGS, blank, configured, context, deployed, installed

from tasks.changes import bucket
from tasks.changes import configure as configure_changes
from tasks.changes import deploy as deploy_changes
from tasks.changes import install as install_changes
from tasks.engine.facts import Listener
from tasks.engine.login import KEY, KEY_ID, PASSWORD, Login
from tasks.engine.settings import Settings
from tasks.plan import plan, show, steps


def counts(facts, **variables) -> dict[str, int]:
    return {task: len(what) for task, what in steps(context(facts, **variables).server)}


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (blank(), {"install": 4, "configure": 3, "deploy": 10}),
        (installed(), {"install": 0, "configure": 3, "deploy": 10}),
        (configured(), {"install": 0, "configure": 1, "deploy": 13}),
        (deployed(), {"install": 0, "configure": 0, "deploy": 0}),
        (deployed(well=None), {"install": 0, "configure": 0, "deploy": 1}),
    ],
)
def test_each_task_s_part_is_counted(facts, wanted):
    assert counts(facts) == wanted


def test_the_plan_is_what_the_tasks_decide():
    facts = blank()
    login = Login("admin", "correct horse battery")
    found = dict(steps(context(facts, **{PASSWORD: login.password}).server))
    assert found["install"] == [change.what for change in install_changes.changes(SETTINGS, facts)]
    assert found["configure"] == [
        change.what
        for half in (bucket.aws_changes, configure_changes.auth_changes)
        for change in half(SETTINGS, facts, None, login)
    ]
    after = deploy_changes.changes(SETTINGS, configured(), login)
    shipped = {line for change in after for line in change.sentences if line.startswith("put")}
    assert {line for line in found["deploy"] if line.startswith("put")} == shipped


def test_keys_of_the_variables_stand_in_the_plan():
    found = dict(steps(context(deployed(), **{KEY_ID: "A", KEY: "B"}).server))
    assert found["configure"][0] == "write ~/.aws credentials (profile default)"


def test_planning_looks_and_changes_nothing(home):
    c = context(blank())
    result = plan(c)
    assert c.recorder.runs == []
    assert list(home.rglob("*")) == []
    assert result["changes"][0]["task"] == "install"
    assert {change["task"] for change in result["changes"]} == {"install", "configure", "deploy"}


def test_no_password_stands_in_a_plan():
    result = plan(context(blank(), **{PASSWORD: "correct horse battery"}))
    assert "correct horse" not in str(result)


@pytest.mark.parametrize(
    ("settings", "facts", "wanted"),
    [
        (Settings(), blank(), "No bucket is configured"),
        (SETTINGS, blank(sudo=False), "sudo asks"),
        (SETTINGS, blank(listeners=(Listener("*:5000", "x", 1),)), "Port 5000"),
    ],
)
def test_what_would_stop_the_chain_stops_the_plan(settings, facts, wanted):
    with pytest.raises(Exit, match=wanted):
        plan(context(facts, settings))


def test_a_host_that_needs_nothing_says_so(capsys):
    show({"alpha": {"changes": []}, "beta": {"changes": [{"task": "deploy", "what": "put x"}]}})
    assert capsys.readouterr().out == "nothing to change\ndeploy: put x\n"
