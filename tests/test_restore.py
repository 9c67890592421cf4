"""Restore: what is asked, what is sent, and what is said; and a backup that is only tried."""

from __future__ import annotations

import json
from typing import Any

import pytest
from invoke import Exit
from stand_ins import RUNNER, SETTINGS, Reply, Task, blank, configured, context, deployed

from tasks.backup import verify, verifying
from tasks.restore import HINT, LOOK_TIMEOUT, replaced, restore, restoring
from tasks.settings import Settings

ID = "20261122T214724Z-926c1729"
SET = {
    "id": ID, "made": "2026-11-22T21:47:24+00:00", "host": "old-host", "version": "3.16.0",
    "runs": 12, "users": 3, "newest_run": 1_700_000_000_000, "bytes": 3_200_000,
}  # fmt: skip
PRESENT = {"runs": 2, "newest_run": 1_600_000_000_000}


def asked(present: Any = PRESENT, settings: Settings = SETTINGS, **values: Any) -> Task:
    c = context(deployed(settings, **values), settings)
    found = json.dumps({"set": SET, "present": present})
    c.recorder.replies = [Reply(f"@report {found}\n@exit 0\n")]
    return c


def test_a_restore_is_one_look_and_one_change(capsys):
    c = asked()
    restore(c, yes=True)
    look, change = c.recorder.runs
    assert set(look.files) == {
        "look.sh", "words.sh", "steps.sh", "choose_set.py", "sets.py", "databases.py",
    }  # fmt: skip
    assert look.options["timeout"] == LOOK_TIMEOUT
    assert set(change.files) == RUNNER | {
        "ready_start", "ready_auth", "fetch_set.py", "sets.py", "databases.py", "migrate.py",
        "try_server.py",
    }  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == (f"✓ restored {ID}: 12 runs, the newest of 2023-11-14 22:13:20 UTC, 3 users")
    assert said[-1] == HINT


def test_it_is_checked_and_served_on_the_side_before_the_server_stops():
    c = asked()
    restore(c, yes=True)
    steps = c.recorder.runs[1].steps
    order = [
        'place "$here/ready_start" "$root/start_mlflow_server.sh"',
        'rm -rf "$root/next.part"\n',
        '"$here/fetch_set.py" "$root" my-bucket mlflow-backups default \'\' ' + ID,
        '"$here/migrate.py" "$root/next.part"',
        '"$here/try_server.py" "$root/next.part" my-bucket mlflow-artifacts',
        "\nstop_server\n",
        "\nswitch restore ",
    ]
    places = [steps.index(step) for step in order]
    assert places == sorted(places)


def test_an_id_and_an_environment_s_own_place_are_handed_on():
    settings = Settings(
        bucket="bucket", environment="staging", backup_prefix="kept", endpoint_url="http://m:9000"
    )
    c = asked(settings=settings)
    restore(c, id="x y", yes=True)
    look = c.recorder.runs[0].steps
    assert "\"$root\" bucket kept staging http://m:9000 'x y'" in look
    assert "unit=mlflow-server-staging\n" in c.recorder.runs[1].steps


def test_somebody_is_asked_and_told_what_would_be_replaced(terminal, capsys):
    terminal.append("yes")
    c = asked()
    restore(c)
    assert len(c.recorder.runs) == 2
    out = capsys.readouterr().out
    assert f"The backup {ID} (host old-host, MLflow 3.16.0):" in out
    assert "It replaces 2 runs, the newest of 2020-09-13 12:26:40 UTC." in out


def test_whoever_says_no_changes_nothing(terminal):
    terminal.append("")
    c = asked()
    with pytest.raises(Exit, match="Nothing was restored"):
        restore(c)
    assert len(c.recorder.runs) == 1


def test_without_a_terminal_yes_must_be_said():
    c = asked()
    with pytest.raises(Exit, match="Add --yes"):
        restore(c)
    assert len(c.recorder.runs) == 1


@pytest.mark.parametrize(
    ("present", "said"),
    [
        (None, "It replaces databases that cannot be read."),
        ({"runs": 0, "newest_run": None}, "It replaces 0 runs."),
        (PRESENT, "It replaces 2 runs, the newest of 2020-09-13 12:26:40 UTC."),
    ],
)
def test_what_would_be_replaced_is_counted(present, said):
    assert replaced(SET, present).splitlines()[-1] == said


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (blank(), "There is no server on ec2 yet"),
        (configured(), "There is no server on ec2 yet"),
        (deployed(sudo=False), "sudo asks ubuntu for a password"),
        (deployed(database="postgresql"), "The backend store is not SQLite"),
    ],
)
def test_a_host_that_cannot_be_restored_is_left_alone(facts, said):
    c = context(facts)
    with pytest.raises(Exit, match=said):
        restore(c, yes=True)
    assert c.recorder.runs == []


def test_a_server_without_databases_can_be_restored():
    c = asked(None, schema=None, users=None, database_bytes=None)
    restore(c, yes=True)
    assert len(c.recorder.runs) == 2


def test_what_the_host_refuses_is_the_one_line(capsys):
    c = asked()
    c.recorder.replies.append(Reply("@fail The backup is damaged\n@exit 1\n"))
    with pytest.raises(Exit, match="The backup is damaged"):
        restore(c, yes=True)
    assert "restored" not in capsys.readouterr().out


def test_what_is_sent_holds_no_secret():
    text = "".join(change.script for change in restoring(SETTINGS, deployed(), ID))
    assert "server.env" not in text.split("settle() {")[0]
    assert "aws_secret" not in text.lower()


# -- backup.verify -----------------------------------------------------------------------------

FETCHED = {"id": ID, "runs": 12, "users": 3, "made": "2026-11-22T21:47:24.5+00:00", "release": "r"}
TRIED = {"seconds": 8.5, "run": "abc"}
NOTED = {"at": "2026-11-24T00:00:00+00:00", "seconds": 12, "by": "host", "id": ID}


def test_a_verification_is_one_change_and_says_what_a_restore_takes(capsys):
    c = context(deployed())
    reports = (FETCHED, {"migrated": [], "seconds": 0.1}, TRIED, NOTED)
    text = "".join(f"@report {json.dumps(report)}\n" for report in reports)
    c.recorder.replies = [Reply(f"{text}@exit 0\n")]
    verify(c)
    (run,) = c.recorder.runs
    assert set(run.files) == RUNNER | {
        "fetch_set.py", "note_verified.py", "sets.py", "databases.py", "migrate.py",
        "try_server.py",
    }  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  12 runs, 3 users, made 2026-11-22T21:47:24 UTC",
        f"✓ {ID} was restored and served in 12 s",
    ]


def test_a_verification_never_stops_the_server():
    script = verifying(SETTINGS, ID).script
    assert "systemctl" not in script
    assert "next.part" not in script
    assert f"default '' {ID} \"$scratch\" aside" in script


def test_a_host_without_a_release_has_nothing_to_verify_with():
    with pytest.raises(Exit, match="There is no server on ec2 yet"):
        verify(context(blank()))
