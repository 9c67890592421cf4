"""Hosts with one database: what the first was brought to, the others follow."""

from __future__ import annotations

import pytest
from invoke import Exit
from stand_ins import context, deployed

from tasks.changes.follow import follow
from tasks.changes.releases import release_of
from tasks.engine import stores
from tasks.engine.settings import Settings
from tasks.restore import restore
from tasks.upgrade import rollback, upgrade

SETTINGS = Settings(bucket="my-bucket", backend_store_uri="postgresql://u@db/d")
OLD = "postgresql+psycopg2://u@db/d"
NEW = "postgresql+psycopg2://u@db/d_20261125t170000z"
RELEASE = release_of(SETTINGS)


def facts(store=OLD, release="3.16.0-1111aaaa", **more):
    complete = frozenset({release})
    return deployed(
        store=store, auth_store=store + "_auth", database="postgresql", release=release,
        **{"complete": complete, **more},
    )  # fmt: skip


def following(mine, lead):
    c = context(mine, settings=SETTINGS)
    return c.handed(lead=context(lead, settings=SETTINGS).server, several=True)


@pytest.mark.parametrize(
    ("task", "call"),
    [
        ("upgrade", lambda c: upgrade(c, to="3.16.0")),
        ("restore", lambda c: restore(c, id="whatever")),
        ("rollback", lambda c: rollback(c)),
    ],
)
def test_whatever_the_task_the_others_follow_without_a_question(task, call, capsys):
    c = following(facts(schema=None, schema_error=stores.CLOSED), facts(NEW, RELEASE))
    call(c)
    (run,) = c.recorder.runs
    assert f"task={task} release={RELEASE} current=3.16.0-1111aaaa" in run.steps
    assert run.files["stores"] == stores.lines(
        stores.Stores(NEW, NEW + "_auth"), c.server.facts.root
    )
    assert NEW + "_auth" in run.files["auth"]
    assert RELEASE in run.files["start"]
    assert {"share.py", "beside.py", "release.txt"} <= set(run.files)
    assert "have balancers send nothing new here" in run.steps
    assert "on the databases that ec2 has" in capsys.readouterr().out


def test_a_release_that_is_there_is_not_installed_again():
    c = following(facts(complete=frozenset({RELEASE})), facts(NEW, RELEASE))
    follow(c.server, c.turn.lead, "upgrade")
    assert "release.txt" not in c.recorder.runs[0].files


def test_a_host_that_serves_the_same_is_left_alone(capsys):
    c = following(facts(NEW, RELEASE), facts(NEW, RELEASE))
    follow(c.server, c.turn.lead, "restore")
    assert c.recorder.runs == []
    assert "restore: nothing to change, it serves what ec2 serves" in capsys.readouterr().out


def test_another_lock_of_the_same_version_is_named():
    version = RELEASE.rpartition("-")[0]
    c = following(facts(), facts(NEW, f"{version}-0000ffff"))
    with pytest.raises(Exit, match=f"upgrade --to {version}"):
        follow(c.server, c.turn.lead, "upgrade")
    assert c.recorder.runs == []


@pytest.mark.parametrize("task", [upgrade, restore, rollback])
def test_a_host_alone_whose_database_was_replaced_says_what_to_type(task):
    c = context(facts(schema=None, schema_error=stores.CLOSED), settings=SETTINGS)
    with pytest.raises(Exit, match=r"replaced by an upgrade, .*\./fab -H HOSTS upgrade"):
        task(c)
    assert c.recorder.runs == []


def test_an_upgrade_that_was_cut_off_with_the_database_closed_goes_on():
    c = context(facts(schema=None, schema_error=stores.CUT_OFF), settings=SETTINGS)
    upgrade(c)
    assert "open_again" in c.recorder.runs[0].files["change.sh"]
