"""Upgrade and rollback: what is decided, what is sent, and what is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from invoke import Exit
from stand_ins import RUNNER, SETTINGS, Reply, Task, blank, configured, context, deployed

from tasks.changes import releases
from tasks.changes.files import deploy_digest
from tasks.changes.install import NEEDED_KB
from tasks.changes.releases import release_of
from tasks.changes.upgrade import rolling_back, upgrading
from tasks.engine.facts import Facts
from tasks.engine.settings import Settings
from tasks.upgrade import lost, rollback, upgrade

RELEASE = release_of(SETTINGS)
OLD = "3.16.0-00000000"
RENEWED = "3.17.2-00000000"


def running(release: str = OLD, *more: str, **values: Any) -> Facts:
    """A deployed host that runs this release and has more."""
    return deployed(release=release, complete=frozenset({release, *more}), **values)


def sentences(facts: Facts, release: str = RELEASE, lock: str | None = "lock") -> list[str]:
    return [change.what for change in upgrading(SETTINGS, facts, release, lock)]


READY = "put start_mlflow_server.sh and .mlflow_auth_config"
REHEARSE = "rehearse the upgrade on a copy of the databases"
BACKUP = "back up both databases and the configuration"
INSTALL = "install MLflow 3.17.2 in an environment of its own"
SWITCH = f"switch from {OLD} to {RELEASE}"


def test_a_release_is_installed_rehearsed_and_backed_up_before_anything_stops():
    assert sentences(running()) == [INSTALL, READY, REHEARSE, BACKUP, SWITCH]
    assert sentences(running(), lock=None) == [READY, REHEARSE, BACKUP, SWITCH]
    stops = [
        "stop_server\n" in change.script.split("stop_server() {")[0]
        for change in upgrading(SETTINGS, running(), RELEASE, None)
    ]
    assert stops == [False, False, False, True]


def test_an_upgrade_is_one_change(capsys):
    c = context(running())
    upgrade(c)
    (run,) = c.recorder.runs
    assert run.files.keys() >= {"migrate.py", "one_process.py", "try_server.py", "back_up.py"}
    assert f"with release {OLD}." in run.files["ready_start"], "the former one, until the switch"
    assert f"with release {RELEASE}." in run.files["start"]
    assert run.files["release.txt"] == releases.shipped("3.17.2")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "✓ MLflow 3.17.2 serves. To undo: ./fab -H ec2 rollback"
    )


def test_the_new_release_tries_its_own_databases():
    steps = upgrading(SETTINGS, running(), RELEASE, None)[1].script
    assert f'python="$root/releases/{RELEASE}/bin/python"\n' in steps
    assert '"$python" "$here/rehearse.py" ' in steps
    assert f"release={RELEASE} current={OLD}\n" in steps


def test_after_an_upgrade_nothing_is_left_for_deploy():
    """What is written down as well is what deploy would write down on the new release."""
    from tasks.changes.files import auth_file, files

    facts = running()
    after = running(RELEASE)
    stamp = deploy_digest([*files(SETTINGS, after), auth_file(SETTINGS, after)], after)
    assert f"well={stamp} " in upgrading(SETTINGS, facts, RELEASE, None)[1].script


@pytest.mark.parametrize(
    ("facts", "to", "said"),
    [
        (running(RELEASE), "", "upgrade: nothing to change, the server runs MLflow 3.17.2"),
        (running(RELEASE), "3.17.2", "upgrade: nothing to change, the server runs MLflow 3.17.2"),
    ],
)
def test_a_server_that_runs_it_already_costs_no_exec(facts, to, said, capsys):
    c = context(facts)
    upgrade(c, to=to)
    assert c.recorder.runs == []
    assert capsys.readouterr().out == f"{said}\n"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (blank(), "There is no server on ec2 yet"),
        (configured(), "There is no server on ec2 yet"),
        (running(sudo=False), "sudo asks ubuntu for a password"),
        (running(database="mysql"), "This server is on mysql, and only SQLite and PostgreSQL"),
        (running(schema=None), "no database that can be read. See why: ./fab doctor"),
        (running(free_kb=NEEDED_KB - 1), "2.0 GB free; a release needs 2. Free some"),
    ],
)
def test_a_server_that_cannot_be_upgraded_is_left_alone(facts, said):
    c = context(facts)
    with pytest.raises(Exit, match=said) as caught:
        upgrade(c)
    assert "\n" not in str(caught.value.message)
    assert c.recorder.runs == []


def test_room_is_asked_for_only_where_something_is_installed():
    upgrade(context(running(OLD, RELEASE, free_kb=0)))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (running(), "from MLflow 3.16.0 to 3.17.2; the release would be installed beside it"),
        (running(OLD, RELEASE), "from MLflow 3.16.0 to 3.17.2; the release is installed already"),
        (running(RENEWED), "MLflow 3.17.2 stays, its locked packages change; the release would"),
    ],
)
def test_a_check_only_tells(facts, said, capsys):
    c = context(facts)
    upgrade(c, check=True)
    assert c.recorder.runs == []
    out = capsys.readouterr().out
    assert out.startswith(f"upgrade: {said}")
    assert "database 4.8 MB with 3 runs, disk 19.1 GB free" in out


def test_another_version_than_the_settings_say_is_to_be_set(capsys):
    upgrade(context(running()), to="3.17.2")
    assert "Set `version:" not in capsys.readouterr().out
    c = context(running(), Settings(bucket="my-bucket", version="3.16.0"))
    upgrade(c, to="3.17.2")
    assert capsys.readouterr().out.endswith(
        "Set `version: 3.17.2` under `mlflow:` in fabric.yaml.\n"
    )


def test_a_failed_upgrade_never_says_that_it_serves(capsys):
    c = context(running())
    c.recorder.replies = [Reply("@fail The migration lost rows\n@exit 1\n")]
    with pytest.raises(Exit, match="The migration lost rows"):
        upgrade(c)
    assert "serves" not in capsys.readouterr().out


# -- rollback ----------------------------------------------------------------------------------

FORMER = {
    "name": f"20261124T100000Z-{OLD}", "task": "upgrade", "release": OLD, "databases": True,
    "replaced": 1_700_000_000, "runs": 3, "lost": 2,
}  # fmt: skip


def asked(**values: Any) -> Task:
    c = context(running(RELEASE, OLD))
    c.recorder.replies = [Reply(f"@report {json.dumps(FORMER | values)}\n@exit 0\n")]
    return c


def test_a_rollback_is_one_look_and_one_change(capsys):
    c = asked()
    rollback(c, yes=True)
    look, change = c.recorder.runs
    assert set(look.files) >= {"look.sh", "look_at_former.py", "look_at_former.json"}
    assert set(change.files) == RUNNER | {
        *("ready", "ready_start", "ready_auth", "start", "wall.tar")
    }
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "✓ MLflow 3.16.0 serves, as before the upgrade",
        "Set `version: 3.16.0` under `mlflow:` in fabric.yaml.",
    ]


def test_the_host_is_told_which_state_of_which_task_and_release():
    (_, change) = rolling_back(SETTINGS, running(RELEASE, OLD), FORMER | {"name": "a b"})
    assert change.script.startswith(
        f"unit=mlflow-server current={RELEASE}\nformer='a b' was=upgrade release={OLD}\nwell="
    )


def test_a_rollback_asks_first(terminal, capsys):
    terminal.append("n")
    c = asked()
    with pytest.raises(Exit, match="Nothing was rolled back"):
        rollback(c)
    assert len(c.recorder.runs) == 1
    assert "Put aside: 2 runs made since" in capsys.readouterr().out
    terminal.append("")
    with pytest.raises(Exit, match="Nothing was rolled back"):
        rollback(asked())


def test_a_rollback_without_a_terminal_wants_yes():
    with pytest.raises(Exit, match="Add --yes"):
        rollback(asked())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "3 runs. Put aside: 2 runs made since."),
        ({"lost": None}, "3 runs. What is there now cannot be read; it is put aside."),
        ({"databases": False}, "only the release changes, no run is lost."),
    ],
)
def test_what_is_lost_is_said(values, said):
    before = "The state before the upgrade of 2023-11-14 22:13 UTC: "
    assert lost(FORMER | values) == before + said


def test_a_host_without_a_server_has_nothing_to_go_back_to():
    with pytest.raises(Exit, match="There is no server on ec2 yet"):
        rollback(context(blank()), yes=True)
