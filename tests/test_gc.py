"""What gc asks of the host, what must not be asked, and what the operator reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from invoke import Exit
from stand_ins import SETTINGS, Reply, Task, context, deployed, request

from tasks.changes.gc import age, on_orphans
from tasks.engine.settings import Settings
from tasks.gc import gc, refuse_nonsense, show

RUN = {
    "kind": "run", "id": "3f" * 16, "name": "a run", "experiment": "7",
    "deleted": "2026-10-01T00:00:00+00:00", "objects": 2, "bytes": 3_400_000,
}  # fmt: skip
LEFT = RUN | {"id": "4e" * 16, "why": "behind the registered model iris version 2"}
EXPERIMENT = RUN | {"kind": "experiment", "id": "7", "name": "old", "objects": 1, "bytes": 17}
FOUND = {"found": [RUN, EXPERIMENT], "left": [LEFT], "objects": 3, "bytes": 3_400_017, "models": 1}
NOTHING = {"found": [], "left": [], "objects": 0, "bytes": 0, "models": 0}
BACKUP = {"place": "s3://my-bucket/mlflow-backups/default/x/"}
SUM = {
    "objects": 2, "bytes": 900, "all": 9, "recent": 1,
    "report": "/home/ubuntu/mlflow-server/gc/x.jsonl",
    "places": [
        {"place": "7", "experiment": "old", "objects": 1, "bytes": 800, "newest": "2026-01-02T"},
        {"place": "x", "experiment": None, "objects": 1, "bytes": 100, "newest": "2026-01-03T"},
    ],
}  # fmt: skip
EMPTY = SUM | {"objects": 0, "bytes": 0, "recent": 0, "places": []}


def told(*answers: Any, settings: Settings = SETTINGS) -> Task:
    """A host that reports these values, each list of them for one exec."""
    c = context(deployed(), settings)
    for values in answers:
        lines = "".join(f"@report {json.dumps(value)}\n" for value in values)
        c.recorder.replies.append(Reply(f"{lines}@exit 0\n"))
    return c


def programs(c: Task) -> list[list[str]]:
    """For each exec, what its steps run, in order, and what with."""
    return [
        [line.split('"$here/')[1].replace('"', "").replace(" root=$root", "").replace("action=", "")
         for line in run.steps.splitlines() if ".py" in line and "$here/" in line]
        for run in c.recorder.runs
    ]  # fmt: skip


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 2_592_000), ("12h", 43_200), ("2w", 1_209_600), ("0h", 0)],
)
def test_an_age_is_a_number_and_a_unit(text, seconds):
    assert age(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "30 d", "1.5d", "-1d", "30m", "1d2h", "30D", "٣d"])
def test_what_is_no_age_is_refused_with_an_example(text):
    with pytest.raises(Exit, match=r"no age\. Give a number with h, d or w .*such as 30d"):
        refuse_nonsense(older_than=text)


def test_an_age_makes_no_sense_for_orphans():
    with pytest.raises(Exit, match="Orphans are older than a day"):
        refuse_nonsense(older_than="30d", orphans=True)
    refuse_nonsense(orphans=True, yes=True)


# -- what was deleted --------------------------------------------------------------------------


def test_a_dry_run_only_looks():
    c = told([FOUND])
    answer = gc(c)
    assert programs(c) == [["collect.py find"]]
    assert "look.sh" in c.recorder.runs[0].files
    assert answer == FOUND | {
        "older_than": "30d",
        "removed": False,
        "type": "./fab -H ec2 gc --older-than 30d --yes",
    }


def test_nothing_is_removed_before_it_is_seen_to_be_possible_and_backed_up():
    c = told([FOUND], [BACKUP, FOUND])
    answer = gc(c, older_than="2w", yes=True)
    assert programs(c) == [
        ["collect.py find"],
        ["collect.py check", "back_up.py", "collect.py remove"],
    ]
    assert "change.sh" in c.recorder.runs[1].files
    assert request(c.recorder.runs[1].files, "collect.py")["age"] == 1209600
    assert (answer["removed"], answer["backup"]) == (True, BACKUP["place"])


@pytest.mark.parametrize("orphans", [False, True])
def test_where_a_name_is_wanted_yes_alone_removes_nothing(orphans):
    c = told([FOUND], settings=Settings(environment="production", confirm="name"))
    with pytest.raises(Exit, match=r"ec2 \(production\).*use production TASK --yes"):
        gc(c, orphans=orphans, yes=True)
    assert c.recorder.runs == []


def test_with_nothing_to_remove_no_backup_is_made():
    c = told([NOTHING | {"left": [LEFT]}])
    gc(c, yes=True)
    assert programs(c) == [["collect.py find"]]


@pytest.mark.parametrize("words", [{}, {"orphans": True}])
def test_what_the_host_refuses_is_the_error(words):
    c = context(deployed())
    c.recorder.replies = [Reply("@fail s3:DeleteObject is denied\n@exit 1\n")]
    with pytest.raises(Exit, match="DeleteObject is denied"):
        gc(c, **words)


def test_a_host_without_a_server_says_what_to_type():
    c = told([NOTHING])
    gc(c)
    assert "There is no server on ec2 yet" in c.recorder.runs[0].steps


# -- orphans -----------------------------------------------------------------------------------


def test_a_report_of_orphans_only_looks():
    c = told([SUM])
    answer = gc(c, orphans=True)
    assert programs(c) == [["orphans.py find"]]
    assert "look.sh" in c.recorder.runs[0].files
    assert (answer["deleted"], answer["type"]) == (False, "./fab -H ec2 gc --orphans --yes")


def test_orphans_are_deleted_from_the_last_report_after_a_backup():
    c = told([SUM], [BACKUP, {"objects": 2, "bytes": 900, "left": 0}])
    answer = gc(c, orphans=True, yes=True)
    assert programs(c) == [
        ["orphans.py last"],
        ["orphans.py check", "back_up.py", "orphans.py delete"],
    ]
    assert (answer["deleted"], answer["objects"]) == (True, 2)
    assert (answer["report"], answer["backup"]) == (SUM["report"], BACKUP["place"])


def test_an_empty_report_costs_no_backup():
    c = told([EMPTY])
    gc(c, orphans=True, yes=True)
    assert programs(c) == [["orphans.py last"]]


def test_the_program_is_told_where_artifacts_and_backups_are():
    settings = Settings(bucket="b-1", prefix="p", region="r", endpoint_url="http://m:9000/?a&b",
                        backup_prefix="p/backups", environment="staging")  # fmt: skip
    step = on_orphans(told(settings=settings).server, "find", "look")
    assert step.script.splitlines()[-1] == (
        '"$root/venv/bin/python" "$here/orphans.py" root="$root" action=find'
    )
    assert request(step.files, "orphans.py")["place"] == {
        "bucket": "b-1", "prefix": "p", "backup_prefix": "p/backups",
        "environment": "staging", "region": "r", "endpoint": "http://m:9000/?a&b",
    }  # fmt: skip


# -- what is read ------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], c: Task, **words: Any) -> str:
    show({"ec2": gc(c, **words)})
    return capsys.readouterr().out


def test_what_would_be_removed_is_listed_with_what_is_left_and_why(capsys):
    assert shown(capsys, told([FOUND])).splitlines() == [
        f"  run {RUN['id']} (a run) of experiment 7, deleted 2026-10-01: 2 objects, 3.2 MB",
        "  experiment 7 (old), deleted 2026-10-01: 1 object, 17 bytes",
        "left as it is:",
        f"  run {LEFT['id']} (a run) of experiment 7: behind the registered model iris version 2",
        "logged models of these runs that stay until deleted in MLflow themselves: 1",
        "deleted more than 30d ago: 1 run, 1 experiment, 3 objects, 3.2 MB. Nothing was removed.",
        "to remove it: ./fab -H ec2 gc --older-than 30d --yes",
    ]


def test_what_was_removed_is_said_with_its_backup(capsys):
    out = shown(capsys, told([FOUND], [BACKUP, FOUND]), yes=True)
    assert f"backup before: {BACKUP['place']}\n" in out
    assert out.endswith("✓ removed for good: 1 run, 1 experiment, 3 objects, 3.2 MB\n")
    assert "Nothing was removed" not in out


@pytest.mark.parametrize("yes", [False, True])
def test_nothing_to_remove_is_one_line(capsys, yes):
    out = shown(capsys, told([NOTHING]), yes=yes)
    assert out == "gc: nothing to remove that was deleted more than 30d ago\n"


def test_a_long_list_is_cut(capsys):
    many = FOUND | {"found": [RUN] * 25, "left": []}
    out = shown(capsys, told([many]))
    assert out.count(RUN["id"]) == 20
    assert "  and 5 more (--json tells all)\n" in out


def test_a_report_of_orphans_is_summed_up(capsys):
    assert shown(capsys, told([SUM]), orphans=True).splitlines() == [
        "  7 (experiment old): 1 object, 800 bytes, the newest of 2026-01-02",
        "  x (of no experiment): 1 object, 100 bytes, the newest of 2026-01-03",
        "1 unknown object of the last 24 hours may be an upload at work: left out",
        "unknown to MLflow: 2 objects, 900 bytes, of 9 objects. Nothing was deleted.",
        f"each one stands in {SUM['report']} on the host",
        "read it; to delete what stands there: ./fab -H ec2 gc --orphans --yes",
    ]


@pytest.mark.parametrize(("all_", "warned"), [(4, False), (3, True)])
def test_a_bucket_full_of_unknown_files_makes_one_think(capsys, all_, warned):
    show({"ec2": gc(told([SUM | {"all": all_}]), orphans=True)})
    assert ("if runs are missing" in capsys.readouterr().err) is warned


@pytest.mark.parametrize(
    ("c", "words", "last"),
    [
        (told([EMPTY]), {}, "gc --orphans: nothing to delete"),
        (told([EMPTY]), {"yes": True}, "gc --orphans: nothing to delete, the last report is empty"),
        (
            told([SUM], [BACKUP, {"objects": 2, "bytes": 900, "left": 0}]),
            {"yes": True},
            "✓ deleted 2 objects, 900 bytes that nothing in MLflow knew",
        ),
        (
            told([SUM], [BACKUP, {"objects": 1, "bytes": 100, "left": 1}]),
            {"yes": True},
            "  known, changed or gone since the report: 1 object",
        ),
    ],
)
def test_the_last_line_says_what_came_of_it(capsys, c, words, last):
    assert shown(capsys, c, orphans=True, **words).splitlines()[-1] == last
