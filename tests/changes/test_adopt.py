"""A server that the guide made is taken over whole, after asking, or left as it is."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from invoke import Exit
from stand_ins import ROOT, SETTINGS, Reply, blank, configured, context

from tasks import backup, deploy, doctor, plan, service, upgrade
from tasks.changes import adopt, bucket, owner
from tasks.changes import configure as configure_changes
from tasks.changes import install as install_changes
from tasks.changes import service as service_changes
from tasks.changes.releases import release_of
from tasks.engine import credentials, templates
from tasks.engine.facts import Facts, Guide, Listener
from tasks.engine.settings import Settings

GUIDE = Guide(
    version="2.22.1",
    unit="",
    active=True,
    enabled=False,
    pid=77,
    host="127.0.0.1",
    port=5000,
    store=f"{ROOT}/mlflow.db",
    destination="s3://my-bucket/mlflow-artifacts/",
    profile="default",
    auth=f"{ROOT}/basic_auth.db",
    permission="READ",
)
HOLDS = {"guide": GUIDE, "release": None, "users": 2, "runs": 3, "schema": "old"}


def ready(**values: object) -> Facts:
    """The guide's server after `install configure`."""
    return replace(configured(bootstrap=False), **(HOLDS | values))  # type: ignore[arg-type]


def guide(**values: object) -> Guide:
    return replace(GUIDE, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"guide": guide(destination="s3://other/mlflow-artifacts")}, "Set `bucket: other`"),
        ({"guide": guide(destination="s3://my-bucket/art")}, "Set `prefix: art`"),
        ({"guide": guide(profile="work", permission="EDIT")},
         "Set `profile: work` and `default_permission: EDIT`"),
        ({"guide": guide(destination="s3://my-bucket")}, "keeps artifacts in s3://my-bucket"),
        ({"guide": guide(destination="./mlruns")}, "keeps artifacts in ./mlruns"),
        ({"guide": guide(store="")}, "keeps its databases elsewhere"),
        ({"guide": guide(auth="/elsewhere/basic_auth.db")}, "keeps its databases elsewhere"),
        ({"guide": guide(version="3.18.0rc1")}, "Set `version: 3.18.0rc1`"),
        ({"guide": guide(version="4.0.0")}, "whose databases the older 3.17.2 cannot read"),
        ({"users": None}, "Start it once"),
        ({"schema": None, "schema_error": "file is not a database"}, "file is not a database"),
    ],
)  # fmt: skip
def test_one_that_would_lose_something_is_refused_before_anything_is_sent(values, wanted):
    for changes in (install_changes.changes, lambda s, f: adopt.changes(s, f, None)):
        with pytest.raises(Exit, match=re.escape(wanted)):
            changes(SETTINGS, ready(**values))


def test_install_puts_the_release_beside_it_and_leaves_its_venv_alone():
    facts = replace(blank(), **HOLDS)  # type: ignore[arg-type]
    whats = "\n".join(change.what for change in install_changes.changes(SETTINGS, facts))
    assert "install MLflow 3.17.2 in an environment of its own" in whats
    assert "current" not in whats
    assert install_changes.changes(SETTINGS, ready()) == []


def test_configure_proves_the_bucket_with_the_new_release_and_makes_server_env_alone():
    facts = ready(server_env=frozenset(), proved=None)
    (proof,) = bucket.aws_changes(SETTINGS, facts, None)
    release = release_of(SETTINGS)
    assert f'"$root/releases/{release}/bin/python" "$here/prove_bucket.py"' in proof.script
    whats = [change.what for change in configure_changes.auth_changes(SETTINGS, facts, None, None)]
    assert whats == ["make the keys of server.env"]


def test_its_own_aws_keys_stay_whatever_the_operator_has():
    c = context(
        ready(credential_keys=frozenset({"aws_access_key_id", "aws_secret_access_key"})),
        AWS_ACCESS_KEY_ID="another",
        AWS_SECRET_ACCESS_KEY="another-secret",
    )
    assert credentials.gather_keys([c.server]) == {}


def test_its_own_hold_of_the_port_is_no_obstacle_and_another_s_is():
    taken = (Listener("0.0.0.0:5000", "mlflow", 77),)
    assert adopt.changes(SETTINGS, ready(listeners=taken), None)
    with pytest.raises(Exit, match="Port 5000 of the host is taken by"):
        adopt.changes(SETTINGS, ready(listeners=taken, guide=guide(active=False)), None)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"complete": frozenset()}, "Type: ./fab install configure deploy"),
        ({"server_env": frozenset()}, "Type: ./fab configure deploy"),
    ],
)
def test_what_must_come_first_is_named(values, wanted):
    with pytest.raises(Exit, match=re.escape(wanted)):
        adopt.changes(SETTINGS, ready(**values), None)


def test_it_is_rehearsed_and_backed_up_before_it_is_stopped_and_served_last():
    whats = [change.what for change in adopt.changes(SETTINGS, ready(), None)]
    assert [what.split()[0] for what in whats] == [
        "rehearse",
        "back",
        "mark",
        "stop",
        "put",
        "put",
        "look",
    ]
    steps = "\n".join(change.script for change in adopt.changes(SETTINGS, ready(), None))
    assert steps.index("rehearse.py") < steps.index("back_up.py")
    assert steps.index("back_up.py") < steps.index("guide stop\n")
    assert steps.index("guide stop\n") < steps.index("guide retire\n") < steps.index("switch adopt")


def test_without_a_terminal_deploy_says_what_it_found_and_wants_yes(capsys):
    c = context(ready())
    with pytest.raises(Exit, match="--yes"):
        deploy.deploy(c)
    assert "MLflow 2.22.1, run by process 77, 3 runs, 2 users" in capsys.readouterr().out
    assert c.recorder.runs == []


def test_no_is_the_answer_that_changes_nothing(terminal):
    terminal.append("")
    c = context(ready(guide=guide(unit="mlflow-server")))
    with pytest.raises(Exit, match="runs on"):
        deploy.deploy(c)
    assert c.recorder.runs == []


def test_a_password_that_mlflow_refuses_from_now_on_is_named(capsys):
    c = context(ready(owned=owner.mark_text(SETTINGS, ready())))
    said = '@report {"migrated": []}\n@report {"well_known": ["admin"]}\n@exit 0\n'
    c.recorder.replies.append(Reply(said))
    deploy.deploy(c, yes=True)
    assert len(c.recorder.changes) == 1
    captured = capsys.readouterr()
    assert "MLflow 3.17.2 refuses it" in captured.err + captured.out
    assert "./fab -H ec2 users.reset-admin" in captured.err + captured.out


def test_plan_says_that_it_would_be_taken_over():
    tasks = dict(plan.steps(context(replace(blank(), **HOLDS)).server))  # type: ignore[arg-type]
    assert tasks["deploy"][-1] == "take over the guide's server, after asking"
    assert "stop the guide's server" in dict(plan.steps(context(ready()).server))["deploy"]


def test_rollback_to_it_gives_the_guide_s_server_back(capsys):
    from stand_ins import deployed

    c = context(deployed())
    former = {"name": "20270115T080000Z-guide-2.22.1", "task": "adopt", "release": "2.22.1-guide",
              "databases": True, "replaced": 1_800_000_000, "runs": 3, "lost": 1}  # fmt: skip
    c.recorder.replies.append(Reply(f"@report {json.dumps(former)}\n@exit 0\n"))
    upgrade.rollback(c, yes=True)
    steps = c.recorder.changes[-1].steps
    assert "release=2.22.1-guide" in steps
    assert "guide start" in steps
    assert "the guide's server serves again, with MLflow 2.22.1" in capsys.readouterr().out


def test_the_users_of_mlflow_before_3_6_are_of_the_first_revision(tmp_path, monkeypatch):
    import sqlite3

    monkeypatch.syspath_prepend(str(templates.programs()["databases.py"].parent))
    import databases

    with sqlite3.connect(tmp_path / "basic_auth.db") as base:
        base.execute("create table users (username)")
        assert databases.revision(base, "basic_auth.db") == "8606fa83a998"
        base.execute("drop table users")
        with pytest.raises(databases.Damaged, match="holds no MLflow schema"):
            databases.revision(base, "basic_auth.db")


@pytest.mark.parametrize(
    ("values", "bind", "said"),
    [
        ({"host": "0.0.0.0"}, "127.0.0.1", ["bind: 0.0.0.0"]),
        ({"host": "0.0.0.0"}, "0.0.0.0", []),
        ({"host": "10.0.0.5"}, "0.0.0.0", []),
        ({"host": "localhost"}, "127.0.0.1", []),
        ({"host": "0.0.0.0", "port": 8080}, "127.0.0.1", ["bind: 0.0.0.0", "port: 8080"]),
    ],
)
def test_what_clients_would_find_elsewhere_is_said_with_the_setting_that_keeps_it(
    values, bind, said
):
    found = adopt.differences(Settings(bucket="my-bucket", bind=bind), guide(**values))
    assert [re.findall("`(.*?)`", text)[0] for text in found] == said


def test_it_is_said_before_the_question(terminal, capsys):
    terminal.append("")
    with pytest.raises(Exit, match="runs on"):
        deploy.deploy(context(ready(guide=guide(host="0.0.0.0"))))
    captured = capsys.readouterr()
    assert "`bind: 0.0.0.0`" in captured.err + captured.out


CUT_OFF = {"active": False, "cut_off": True, "pid": 0, "unit": "mlflow-server"}


def test_one_whose_takeover_was_cut_off_is_taken_over_to_the_end_or_runs_again(terminal, capsys):
    terminal.append("")
    c = context(ready(guide=guide(**CUT_OFF)))
    with pytest.raises(Exit, match=re.escape("It runs again after: ./fab rollback")):
        deploy.deploy(c)
    assert "stopped by a task that was cut off" in capsys.readouterr().out
    upgrade.rollback(c)
    steps = c.recorder.changes[-1].steps
    assert "guide start" in steps
    assert "give_back rollback" not in steps
    assert "forget_old_states" not in steps  # nothing needs the new release yet
    assert "the guide's server serves again, with MLflow 2.22.1" in capsys.readouterr().out


@pytest.mark.parametrize("task", [backup.backup, service.restart, upgrade.upgrade, doctor.doctor])
def test_what_needs_our_server_says_that_it_is_the_guide_s_yet(task):
    c = context(ready(server_env=frozenset()))
    wanted = "is one that the guide made, and not taken over yet. Type: ./fab install"
    with pytest.raises(Exit, match=re.escape(wanted)):
        task(c)
    assert c.recorder.runs == []


def test_status_says_whose_it_is():
    assert service_changes.state(SETTINGS, ready()) == "the guide's (./fab deploy takes it over)"
