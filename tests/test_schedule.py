"""A schedule is decided from facts, laid down in one exec, and the same again is nothing."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from typing import Any

import pytest
from invoke import Exit
from stand_ins import SETTINGS, blank, context, deployed, sha256

from tasks.changes import deploy as deploy_changes
from tasks.changes import schedule as schedule_changes
from tasks.changes import stream as stream_changes
from tasks.changes.backup import backing_up, pruning
from tasks.changes.schedule import Plan, calendar, changes, stamp, units
from tasks.engine.change import bundle
from tasks.engine.facts import Facts, Managed, Unit
from tasks.engine.settings import Keep, Settings
from tasks.engine.shell import sh
from tasks.schedule import refuse_nonsense, schedule

PLAN = Plan()
TIMER = Unit("loaded", "active", "waiting", "enabled")


def scheduled(plan: Plan = PLAN, settings: Settings = SETTINGS, **values: Any) -> Facts:
    """A host with a schedule as it is laid down."""
    facts = deployed(settings)
    files = {
        file.path: Managed(sha256(file.text), "644")
        for file in units(settings, facts, plan).values()
    }
    names = ("backup",) if plan.verify == "off" else ("backup", "backup-verify")
    timers = {f"{settings.unit}-{name}.timer": TIMER for name in names}
    given: dict[str, Any] = {
        "files": {**facts.files, **files},
        "units": {**facts.units, **timers},
        "schedule": stamp(settings, facts, plan),
    }
    return replace(facts, **(given | values))


@pytest.mark.parametrize(
    ("every", "minutes", "spelt"),
    [
        ("5m", 5, "*-*-* *:00/05:00"),
        ("15m", 15, "*-*-* *:00/15:00"),
        ("30min", 30, "*-*-* *:00/30:00"),
        ("60m", 60, "*-*-* 00/01:00:00"),
        ("1h", 60, "*-*-* 00/01:00:00"),
        ("6h", 360, "*-*-* 00/06:00:00"),
        ("24h", 1440, "*-*-* 03:00:00"),
        ("1d", 1440, "*-*-* 03:00:00"),
        ("7d", 10080, "Sun *-*-* 03:00:00"),
        ("1w", 10080, "Sun *-*-* 03:00:00"),
    ],
)
def test_an_interval_is_a_calendar(every, minutes, spelt):
    assert calendar(every) == (minutes, spelt)


@pytest.mark.parametrize(
    "every",
    ["", "h", "0h", "1m", "7m", "45m", "90m", "5h", "2d", "1y", "-1h", "1 h", "1h;x", "weekly"],
)
def test_nonsense_is_one_line_that_names_what_is_accepted(every):
    with pytest.raises(Exit, match=r"--every is '.*'\. Give .* 15m, 1h or 6h"):
        calendar(every)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("1h", "", True), "--off takes the whole schedule away"),
        (("", "daily", True), "--off takes the whole schedule away"),
        (("", "hourly", False), "Give daily, weekly or off"),
        (("7m", "", False), "--every is '7m'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_connection(words, reason):
    assert schedule.options is refuse_nonsense
    with pytest.raises(Exit, match=reason):
        refuse_nonsense(*words)


def test_the_timers_run_exactly_what_the_tasks_would_send():
    (change,) = changes(SETTINGS, deployed(), Plan())
    prunings = [pruning(SETTINGS, "timer"), stream_changes.pruning(SETTINGS, timer=True)]
    assert change.files["backup.tar"] == bundle([backing_up(SETTINGS), *prunings])
    with tarfile.open(fileobj=io.BytesIO(change.files["verify.tar"])) as archive:  # type: ignore[arg-type]
        assert {"change.sh", "words.sh", "settle.sh", "steps.sh"} <= set(archive.getnames())
    assert "wanted='backup verify' unwanted=''" in change.script


def test_the_units_run_as_the_login_user_and_wait_for_an_operator():
    text = units(SETTINGS, deployed(), Plan())["verify.service"].text
    assert "User=ubuntu\nNice=10\n" in text
    assert "Environment=REMOTE_MLFLOW_PATIENCE=900\n" in text
    root = "/home/ubuntu/mlflow-server"
    assert (
        f"ExecStart=/bin/bash {root}/scheduled/verify/change.sh {root} timer backup.verify -\n"
        in text
    )


@pytest.mark.parametrize(
    ("plan", "name", "lines"),
    [
        (Plan("15m"), "backup.timer", ("OnCalendar=*-*-* *:00/15:00", "RandomizedDelaySec=90s")),
        (Plan("1d"), "backup.timer", ("OnCalendar=*-*-* 03:00:00", "RandomizedDelaySec=900s")),
        (Plan("1d", "daily"), "verify.timer", ("OnCalendar=*-*-* 04:30:00", "Persistent=true")),
        (Plan(), "verify.timer", ("OnCalendar=Sun *-*-* 04:30:00", "FixedRandomDelay=true")),
    ],
)
def test_the_timers_make_up_for_what_was_missed(plan, name, lines):
    text = units(SETTINGS, deployed(), plan)[name].text.splitlines()
    assert set(lines) <= set(text)


def test_the_same_schedule_again_is_nothing(capsys):
    c = context(scheduled(Plan("6h", "daily")))
    schedule(c)
    schedule(c, every="6h", verify="daily")
    assert c.recorder.runs == []
    assert "nothing to change (a backup every 6h, verified daily)" in capsys.readouterr().out


PATH = "/etc/systemd/system/mlflow-server-backup.timer"


@pytest.mark.parametrize(
    "facts",
    [
        deployed(),
        scheduled(schedule=None),
        scheduled(schedule="1h weekly 0123456789abcdef"),
        scheduled(files=deployed().files),
        scheduled(files={**scheduled().files, PATH: Managed("edited", "644")}),
        scheduled(units=deployed().units),
        scheduled(units={**scheduled().units, "mlflow-server-backup.timer": Unit("loaded")}),
        scheduled(Plan(verify="off")),
    ],
)
def test_what_is_not_as_it_should_be_is_laid_down_anew(facts):
    c = context(facts)
    schedule(c, verify="weekly")
    assert len(c.recorder.changes) == 1


@pytest.mark.parametrize(
    "settings",
    [
        Settings(bucket="another"),
        Settings(bucket="my-bucket", backup_prefix="elsewhere"),
        Settings(bucket="my-bucket", keep=Keep(daily=30)),
    ],
)
def test_changed_settings_reach_the_timers(settings):
    facts = scheduled()
    assert not schedule_changes.is_current(settings, facts, Plan())
    assert schedule_changes.is_current(SETTINGS, facts, Plan())


def test_what_is_not_given_stays_as_it_is():
    facts = scheduled(Plan("15m", "off"))
    assert schedule_changes.chosen(facts, "", "") == Plan("15m", "off")
    assert schedule_changes.chosen(facts, "1d", "") == Plan("1d", "off")
    assert schedule_changes.chosen(deployed(), "", "daily") == Plan("1h", "daily")


def test_without_verification_its_timer_goes():
    (change,) = changes(SETTINGS, scheduled(), Plan(verify="off"))
    assert "wanted=backup unwanted=verify" in change.script
    assert "verify.tar" not in change.files


def test_off_takes_the_timers_away_and_says_that_backups_stay(capsys):
    c = context(scheduled())
    schedule(c, off=True)
    (run,) = c.recorder.changes
    assert 'systemctl disable --quiet --now "$name.timer"' in run.steps
    assert "backups in the bucket stay" in capsys.readouterr().out


def test_off_where_nothing_is_costs_nothing(capsys):
    c = context(deployed())
    schedule(c, off=True)
    assert c.recorder.runs == []
    assert "nothing to change" in capsys.readouterr().out


def test_a_host_without_a_server_gets_no_schedule():
    with pytest.raises(Exit, match="There is no server on ec2 yet"):
        schedule(context(blank()))


def test_an_environment_has_timers_of_its_own():
    settings = Settings(bucket="my-bucket", environment="staging", port=5005)
    paths = {file.path for file in units(settings, deployed(settings), Plan()).values()}
    assert "/etc/systemd/system/mlflow-server-staging-backup-verify.timer" in paths


def test_deploy_brings_the_schedule_s_programs_along_and_keeps_its_plan():
    plan = Plan("6h", "daily")
    assert deploy_changes.changes(SETTINGS, scheduled(plan), None) == []
    older = scheduled(plan, schedule="6h daily 0123456789abcdef")
    (change,) = deploy_changes.changes(SETTINGS, older, None)
    assert change.what == "lay down what the timers run, and switch them on"
    assert f"stamp={sh(stamp(SETTINGS, older, plan))}" in change.script


def test_deploy_makes_no_schedule():
    facts = deployed(schedule="6h daily 0123456789abcdef")
    assert deploy_changes.changes(SETTINGS, facts, None) == []
