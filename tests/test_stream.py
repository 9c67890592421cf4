"""The stream as a task: what is decided, sent and said; how facts and findings see it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from invoke import Exit
from stand_ins import ROOT, SETTINGS, Reply, Task, blank, context, deployed, request, sha256

from tasks.changes import deploy as deploy_changes
from tasks.changes.proofs import CHECK
from tasks.changes.stream import changes, files, lag, moment, place, restoring, state, trouble
from tasks.engine import probe
from tasks.engine.change import digest
from tasks.engine.facts import READY, Facts, Managed, Unit
from tasks.engine.settings import Settings
from tasks.engine.templates import read
from tasks.findings.case import Case
from tasks.findings.stream import stream as findings
from tasks.findings.symptoms import Symptoms
from tasks.stream import options, stream

UNIT = "mlflow-server-stream.service"
RUNS = Unit("loaded", "active", "running", "enabled", since=1_799_999_000)
PROOF = {
    "stream": "aaaaaaaa/20261124T120000Z", "at": "2026-11-24T15:29:58Z", "runs": 12, "users": 3,
    "newest_run": None, "databases": {}, "seconds": 1.5,
}  # fmt: skip


def streaming(every: int = 1, settings: Settings = SETTINGS, **values: Any) -> Facts:
    """A deployed host that streams."""
    before = deployed(settings)
    placed = {
        file.path: Managed(sha256(file.text), file.mode) for file in files(settings, before, every)
    }
    given: dict[str, Any] = {
        "stream": digest(read("stream.txt")), "stream_every": every, "stream_lag": 1.2,
        "backup": 1_799_999_000, "units": before.units | {UNIT: RUNS},
        "files": dict(before.files) | placed,
    }  # fmt: skip
    return replace(before, **(given | values))


def unit(**values: Any) -> dict[str, Any]:
    return {"units": {UNIT: replace(RUNS, **values)}}


def proving(facts: Facts) -> Task:
    c = context(facts)
    c.recorder.replies = [Reply(f"@report {json.dumps(PROOF)}\n@report {{}}\n@exit 0\n")]
    return c


# -- on and off --------------------------------------------------------------------------------

INSTALL = "install Litestream"
BACKUP = "back up both databases and the configuration"
TRY = "restore it on the side and check what comes"


def sentences(facts: Facts, every: int = 1) -> list[str]:
    return [change.what for change in changes(SETTINGS, facts, every) if change.announce]


def test_on_installs_backs_up_streams_and_proves_it():
    first = sentences(deployed())
    assert first == [INSTALL, BACKUP, "stream both databases, with a look every 1 s", TRY]


def test_what_runs_as_it_should_is_left_alone(capsys):
    assert sentences(streaming()) == []
    c = context(streaming())
    stream(c, "on")
    assert c.recorder.runs == []
    assert "nothing to change, it looks every 1 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    "values",
    [
        unit(active="failed"),
        unit(file="disabled"),
        {"files": {}},
        {"stream": "another"},
    ],
)
def test_whatever_differs_begins_it_anew(values):
    found = sentences(streaming(**values))
    assert found[-2:] == ["stream both databases, with a look every 1 s", TRY]
    assert (INSTALL in found) is ("stream" in values)
    assert BACKUP not in found


def test_another_pace_is_a_change_and_none_keeps_the_present_one():
    assert sentences(streaming(10)) != []
    c = context(streaming(10))
    stream(c, "on")
    assert c.recorder.runs == []


def test_on_is_one_change_and_says_what_it_proved(capsys):
    c = proving(streaming(**unit(active="failed")))
    stream(c, "on")
    (run,) = c.recorder.runs
    assert run.files.keys() >= {"stream.yml", "restore_stream.py", "prune_streams.py"}
    out = capsys.readouterr().out
    assert "  restored from it on the side: 12 runs, 3 users, the last change of 2026-" in out
    assert "up to 24 $ a month" in out
    assert out.splitlines()[-1] == (
        "✓ every change goes to s3://my-bucket/mlflow-backups/default/stream/"
    )


def test_no_secret_stands_in_what_is_laid_down():
    text = "".join(file.text for file in files(SETTINGS, deployed(), 1))
    assert "aws_secret" not in text.lower()
    assert "SECRET_KEY" not in text


def test_another_store_is_asked_at_its_own_place():
    settings = Settings(bucket="bucket", endpoint_url="http://m:9000", environment="staging")
    start, configuration, _ = (file.text for file in files(settings, deployed(settings), 5))
    assert "endpoint: http://m:9000\nforce-path-style: true\n" in configuration
    assert "sync-interval: 5s\n" in configuration
    assert "path: mlflow-backups/staging/stream/$STREAM/mlflow.db\n" in configuration
    assert "REGION=us-east-1\n" in start
    assert place(settings) == "mlflow-backups/staging/stream"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (blank(), "There is no server on ec2 yet"),
        (deployed(database="postgresql"), "A stream is for SQLite"),
        (deployed(sudo=False), "sudo asks ubuntu for a password"),
    ],
)
def test_a_host_that_cannot_stream_is_left_alone(facts, said):
    c = context(facts)
    with pytest.raises(Exit, match=said):
        stream(c, "on")
    assert c.recorder.runs == []


def test_off_takes_away_all_but_what_lies_in_the_bucket(capsys):
    c = context(streaming())
    stream(c, "off")
    (run,) = c.recorder.runs
    assert run.steps.rstrip().endswith("stream_off")
    assert "what lies in s3://my-bucket/mlflow-backups/default/stream/ stays" in (
        capsys.readouterr().out
    )
    c = context(deployed())
    stream(c, "off")
    assert c.recorder.runs == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"what": "onn"}, "Give one of: on, off, status, verify"),
        ({"what": "off", "every": 5}, "--every goes with backup.stream on"),
        ({"what": "on", "every": -1}, "from 1 to 3600"),
        ({"what": "on", "every": 3601}, "from 1 to 3600"),
        ({"what": "on", "at": "latest"}, "./fab restore --at"),
        ({"what": "verify", "at": "noon"}, "'noon' does not say when"),
        ({"what": "on", "json": True}, "--json goes with backup.stream status"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_connection(words, said):
    with pytest.raises(Exit, match=said):
        options(**words)


# -- verify and status -------------------------------------------------------------------------


def test_a_verification_never_stops_the_server_and_leaves_nothing(capsys):
    c = proving(streaming())
    stream(c, "verify")
    (run,) = c.recorder.runs
    assert "stop_server" not in run.steps
    assert "next.part" not in run.steps
    assert 'restore_stream.py" root="$root" folder="$root/backups/stream"\n' in run.steps
    asks = request(run.files, "restore_stream.py")
    assert (asks["at"], asks["stream"]) == ("latest", "present")
    assert run.steps.count('rm -rf "$root/backups/stream"') == 2, "at its end, and where it fails"
    assert "✓ restored and served on the side in " in capsys.readouterr().out


def test_a_host_that_streams_nothing_verifies_what_another_has_streamed():
    c = proving(deployed())
    stream(c, "verify")
    assert request(c.recorder.runs[0].files, "restore_stream.py")["stream"] == ""


def test_a_trial_takes_no_key_and_no_id_over():
    for own in (False, True):
        change = restoring(SETTINGS, "latest", "$root/x", own=own)
        assert request(change.files, "restore_stream.py")["own"] is own


STANDS = {
    "stream": "aaaaaaaa/20261124T120000Z", "objects": 7, "bytes": 3_400_000,
    "reaches": [["2026-11-24T12:00:01Z", "2026-11-24T15:29:59Z"]],
}  # fmt: skip


def looked(facts: Facts, *errors: str) -> Task:
    c = context(facts)
    lines = "".join(f"@report {error}\n" for error in errors)
    c.recorder.replies = [Reply(f"@report {json.dumps(STANDS)}\n{lines}@exit 0\n")]
    return c


def test_status_says_how_late_it_is_and_how_far_back_it_leads(capsys):
    row = stream(looked(streaming()), "status")
    assert (row["running"], row["lag_seconds"], row["trouble"]) == (True, 1, None)
    assert capsys.readouterr().out.splitlines() == [
        "streamed every 1 s, last 1 s ago; 3.2 MB in 7 objects as aaaaaaaa/20261124T120000Z",
        "  brings back any moment from 2026-11-24T12:00:01Z to 2026-11-24T15:29:59Z",
    ]
    assert stream.verdict(row) is None


def test_a_stream_that_is_off_still_says_what_it_left(capsys):
    row = stream(looked(deployed(), "an old error"), "status")
    assert (row["on"], row["every_seconds"], row["errors"]) == (False, None, [])
    assert "nothing is streamed (./fab -H ec2 backup.stream on)" in capsys.readouterr().out


def test_one_that_does_not_run_fails_the_status():
    row = stream(looked(streaming(**unit(active="failed", restarts=3))), "status", json=True)
    assert stream.verdict(row) == (
        "The stream is on and does not run (failed, after 3 starts). Type: ./fab -H ec2 doctor"
    )


# -- facts and findings ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "now", "late", "wrong"),
    [
        (deployed(), None, None, None),
        (streaming(), "active", 1, None),
        (streaming(stream_lag=None), "active", 1000, "The databases were last streamed 1000 s"),
        (streaming(stream_lag=62.0), "active", 62, None),
        (streaming(stream_lag=62.6), "active", 63, "The databases were last streamed 63 s ago."),
        (streaming(60, stream_lag=170.0), "active", 170, None),
        (streaming(**unit(active="inactive")), "inactive", None, "does not run (inactive)."),
    ],
)
def test_a_stream_is_on_off_late_or_stopped(facts, now, late, wrong):
    assert state(SETTINGS, facts) == now
    assert lag(SETTINGS, facts) == late
    found = trouble(SETTINGS, facts)
    assert found is None if wrong is None else wrong in str(found)


@pytest.mark.parametrize(
    ("moments", "late"),
    [
        (["1970-01-01T00:01:30.123456789Z", "1970-01-01T00:01:35Z"], 10),
        (["1970-01-01T00:01:30Z", None], None),
        ([], None),
    ],
)
def test_the_database_that_was_sent_longer_ago_counts(moments, late):
    told = [{"last_sync_at": moment} if moment else {} for moment in moments]
    assert probe._lag(json.dumps({"databases": told}), 100) == late
    assert probe._lag("curl: (7) refused", 100) is None


def keys(facts: Facts, **symptoms: Any) -> list[str]:
    case = Case("ec2", SETTINGS, facts, Symptoms(**symptoms), None)  # type: ignore[arg-type]
    return [finding.key for finding in findings(case)]


@pytest.mark.parametrize(
    ("facts", "symptoms", "found"),
    [
        (deployed(), {"stream_error": "x"}, []),
        (streaming(), {}, []),
        (streaming(**unit(active="failed")), {}, ["stream-stopped"]),
        (streaming(stream_lag=100.0), {"stream_error": "x"}, ["stream-late"]),
        (streaming(), {"stream_astray": True}, ["stream-astray"]),
        (streaming(), {"stream_loose": True}, ["stream-loose"]),
        (streaming(), {"stream_error": "x"}, ["stream-errors"]),
        (streaming(files={f"{ROOT}/stream.yml": Managed("other", "600")}), {}, ["stream-due"]),
    ],
)
def test_each_fault_of_the_stream_is_found(facts, symptoms, found):
    assert keys(facts, **symptoms) == found


# -- deploy ------------------------------------------------------------------------------------


def test_deploy_brings_a_stream_along_before_the_server(capsys):
    path = f"{ROOT}/stream.yml"
    facts = streaming(every=5)
    facts = replace(facts, files={**facts.files, path: Managed("other", "600")})
    (change,) = deploy_changes.changes(SETTINGS, facts, None)
    assert change.sentences == [f"put {path}", CHECK]
    assert "restart=no\n" in change.script
    assert "first=no stream=yes\n" in change.script
    assert "sync-interval: 5s" in str(change.files["file0"])


def test_deploy_leaves_a_stream_that_is_as_it_should_be():
    assert deploy_changes.changes(SETTINGS, streaming(), None) == []
    assert deploy_changes.changes(SETTINGS, deployed(), None) == []


def test_a_server_of_an_older_version_is_deployed_before_it_streams():
    facts = deployed()
    facts = replace(facts, files={p: f for p, f in facts.files.items() if not p.endswith(READY)})
    with pytest.raises(Exit, match=r"Type: \./fab deploy"):
        stream(context(facts), "on")


@pytest.mark.parametrize(
    ("text", "seconds"), [("2 hours ago", 7200), ("1 day ago", 86400), (" 30 Minutes ago", 1800)]
)
def test_a_moment_may_be_said_by_how_long_ago_it_was(text, seconds):
    when = datetime.fromisoformat(moment(text).replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - when).total_seconds() - seconds) < 5


@pytest.mark.parametrize("text", ["yesterday", "two hours ago", "-2 hours ago", "2 years ago", ""])
def test_what_does_not_say_when_is_answered_with_what_does(text):
    with pytest.raises(
        Exit, match=r"does not say when\. Give it as 2026.*`2 hours ago`, or latest"
    ):
        moment(text)
