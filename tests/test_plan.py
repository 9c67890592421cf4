"""`plan` says what the chain would do, and does nothing."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from invoke import Exit
from stand_ins import SETTINGS, Reply, blank, configured, context, deployed, installed

from tasks.changes import bucket, files
from tasks.changes import configure as configure_changes
from tasks.changes import deploy as deploy_changes
from tasks.changes import install as install_changes
from tasks.engine.facts import Listener, Managed
from tasks.engine.login import KEY, KEY_ID, PASSWORD, Login
from tasks.engine.settings import Settings
from tasks.plan import difference, plan, show, steps, verdict


def counts(facts, **variables) -> dict[str, int]:
    return {task: len(what) for task, what in steps(context(facts, **variables).server)}


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (blank(), {"install": 4, "configure": 3, "deploy": 11}),
        (installed(), {"install": 0, "configure": 3, "deploy": 11}),
        (configured(), {"install": 0, "configure": 1, "deploy": 14}),
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
    assert found["install"] == [
        sentence
        for change in install_changes.changes(SETTINGS, facts)
        for sentence in change.sentences
    ]
    assert found["configure"] == [
        change.what
        for half in (bucket.aws_changes, configure_changes.auth_changes)
        for change in half(SETTINGS, facts, None, login)
    ]
    after = deploy_changes.changes(SETTINGS, configured(), login)
    shipped = {line for change in after for line in change.sentences if line.startswith("put")}
    assert {line for line in found["deploy"] if line.startswith("put")} == {
        *shipped, "put the backup key",
    }  # fmt: skip


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


def test_each_host_s_changes_are_shown_and_counted(capsys):
    change = {"task": "deploy", "what": "put x", "diff": ["-a", "+b"]}
    show(
        {
            "alpha": {"changes": [], "restart": False},
            "beta": {"changes": [change], "restart": True},
        }
    )
    assert capsys.readouterr().out.splitlines() == [
        "nothing to change",
        "deploy: put x",
        "    -a",
        "    +b",
        "1 change: 1 by deploy. A server that runs is restarted: requests wait, none is lost.",
    ]


START = "/home/ubuntu/mlflow-server/start_mlflow_server.sh"


def test_what_differs_in_a_file_is_shown_in_one_more_look():
    facts = deployed()
    wanted = next(file for file in files.files(SETTINGS, facts) if file.path == START)
    former = wanted.text.replace("--workers 1", "--workers 4")
    there = {**facts.files, START: Managed("other", "700")}
    c = context(replace(facts, files=there))
    body = base64.b64encode(former.encode()).decode()
    c.recorder.replies = [Reply(f"@report {START}\t{body}\n@exit 0\n")]
    row = plan(c)
    (change,) = (each for each in row["changes"] if each["what"] == f"put {START}")
    assert change["diff"] == ["-  --workers 4 \\", "+  --workers 1 \\"]
    assert row["restart"] is True
    assert len(c.recorder.runs) == 1


def test_a_plan_that_finds_nothing_is_no_more_than_the_facts():
    c = context(deployed())
    assert plan(c) == {"changes": [], "restart": False}
    assert c.recorder.runs == []


@pytest.mark.parametrize(
    "line",
    ["admin_password = hunter2", "MLFLOW_FLASK_SERVER_SECRET_KEY=hunter2", "  token=hunter2"],
)
def test_no_secret_stands_in_a_difference(line):
    assert "hunter2" not in str(difference(line, "other"))
    assert "hunter2" not in str(difference("other", line))


def test_another_release_is_told_although_the_chain_does_not_move_to_it():
    settings = Settings(bucket="my-bucket", version="3.18.0")
    changes = plan(context(deployed(), settings))["changes"]
    assert [(each["task"], each["what"]) for each in changes][-1] == (
        "upgrade",
        "move from MLflow 3.17.2 to 3.18.0 (what that would do: ./fab -H ec2 upgrade --check)",
    )


def test_the_exit_code_tells_of_changes_where_that_is_asked_for():
    nothing = plan(context(deployed()), detailed_exitcode=True)
    assert (nothing["exit_code"], verdict(nothing)) == (0, None)
    something = plan(context(blank()), detailed_exitcode=True)
    assert verdict(something).code == 2
    assert verdict(plan(context(blank()))) is None


def test_files_that_would_be_left_are_told_beforehand():
    c = context(deployed(), settings=Settings(bucket="my-bucket", prefix="art-52"))
    left = {"place": "s3://my-bucket/mlflow-artifacts at AWS", "files": 8, "bytes": 9, "runs": 4}
    c.recorder.replies = [Reply("@exit 0\n"), Reply(f"@report {json.dumps(left)}\n@exit 0\n")]
    change = plan(c)["changes"][-1]
    assert change["task"] == "deploy --move-artifacts"
    assert "4 runs have 8 files" in change["what"]
