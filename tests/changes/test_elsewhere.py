"""Another place for artifacts: nobody's files are left behind without a word."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from invoke import Exit
from stand_ins import SETTINGS, Reply, context, deployed

from tasks.changes import elsewhere
from tasks.changes.files import readying
from tasks.deploy import deploy
from tasks.engine.settings import Settings

OTHER = Settings(bucket="my-bucket", prefix="art-52")
FORMER = "s3://my-bucket/mlflow-artifacts at AWS"
LEFT = {"place": FORMER, "files": 8, "bytes": 400, "runs": 4}


def answers(*found: dict[str, object]) -> Reply:
    return Reply("".join(f"@report {json.dumps(each)}\n" for each in found) + "@exit 0\n")


@pytest.mark.parametrize(
    ("settings", "noted", "wanted"),
    [
        (SETTINGS, None, []),
        (OTHER, None, [FORMER]),
        (Settings(bucket="another", prefix="mlflow-artifacts"), None, [FORMER]),
        (Settings(bucket="my-bucket", endpoint_url="http://s3.example"), None, [FORMER]),
        (Settings(bucket="my-bucket", region="eu-west-1"), None, []),
        (SETTINGS, "s3://old/art at AWS", ["s3://old/art at AWS"]),
        (SETTINGS, FORMER, []),
        (SETTINGS, "s3://old/a at AWS|s3://old/b at http://x", ["s3://old/a at AWS",
                                                                 "s3://old/b at http://x"]),
        (SETTINGS, "nonsense; rm -rf /", []),
        (OTHER, "s3://old/art at AWS", ["s3://old/art at AWS", FORMER]),
    ],
)  # fmt: skip
def test_former_places_are_those_that_the_server_used(settings, noted, wanted):
    assert elsewhere.former(settings, deployed(elsewhere=noted)) == wanted


def test_deploy_stops_where_files_would_be_found_no_more():
    c = context(deployed(), settings=OTHER)
    c.recorder.replies = [answers(LEFT)]
    with pytest.raises(Exit, match=r"4 runs have 8 files .* under s3://my-bucket/mlflow-artifacts"):
        deploy(c, yes=True)
    (look,) = c.recorder.runs
    assert look.files.keys() >= {"move_artifacts.py", "look.sh"}


def test_a_place_without_files_is_left_without_a_question():
    c = context(deployed(), settings=OTHER)
    c.recorder.replies = [answers(LEFT | {"files": 0}), Reply("@report null\n@exit 0\n")]
    deploy(c)
    change = c.recorder.runs[-1]
    assert "owner.py" in change.files
    assert "move_artifacts.py" not in change.files


def test_files_are_copied_before_and_after_the_server_uses_the_other_place():
    c = context(deployed(), settings=OTHER)
    c.recorder.replies = [answers(LEFT), Reply("@report null\n@exit 0\n"), answers(LEFT)]
    deploy(c, move_artifacts=True)
    _, _, first, change = c.recorder.runs
    assert json.loads(first.files["move_artifacts.json"])["action"] == "copy"
    assert json.loads(change.files["move_artifacts.json"])["action"] == "finish"
    steps = change.files["steps.sh"]
    order = [".elsewhere", "owner.py", "deep_check.py", "move_artifacts.py"]
    assert sorted(order, key=steps.index) == order


def test_files_are_left_where_that_is_said_and_the_host_remembers(capsys):
    c = context(deployed(), settings=OTHER)
    c.recorder.replies = [answers(LEFT), Reply("@report null\n@exit 0\n")]
    deploy(c, leave_artifacts=True)
    change = c.recorder.runs[-1]
    assert f"'{FORMER}' > \"$root/.elsewhere\"" in change.files["steps.sh"]
    assert "move_artifacts.py" not in change.files


def test_what_was_left_is_named_by_every_deploy(capsys):
    c = context(deployed(elsewhere="s3://old/art at AWS"))
    deploy(c)
    assert c.recorder.runs == []
    assert "Copy them: ./fab -H ec2 deploy --move-artifacts" in capsys.readouterr().err


def test_nothing_else_brings_a_server_to_another_place():
    """An upgrade, restore or move writes start_mlflow_server.sh too."""
    with pytest.raises(Exit, match=r"first type: \./fab deploy"):
        readying(OTHER, deployed())
    readying(OTHER, replace(deployed(), owned=None))
