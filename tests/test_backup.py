"""One set, made on the host by one exec, and said as the guide says it."""

from __future__ import annotations

import json

import pytest
from invoke import Exit
from stand_ins import SETTINGS, Reply, blank, configured, context, deployed, request

from tasks.backup import backup
from tasks.changes.backup import backing_up
from tasks.engine.settings import Settings

DONE = {"place": "s3://my-bucket/mlflow-backups/default/x/", "runs": 3, "users": 1, "bytes": 2e6}


def test_a_backup_is_one_exec_and_names_its_place(capsys):
    c = context(deployed())
    c.recorder.replies = [Reply(f"@report {json.dumps(DONE)}\n@exit 0\n")]
    backup(c)
    (run,) = c.recorder.runs
    assert "back_up.py" in run.files
    out = capsys.readouterr().out
    assert "3 runs, 1 user, 1.9 MB sent" in out
    assert out.splitlines()[-1] == f"Backup complete: {DONE['place']}"


PLACE = {
    "bucket": "my-bucket", "prefix": "mlflow-artifacts", "backup_prefix": "mlflow-backups",
    "environment": "default", "region": "", "endpoint": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({}, {}),
        ({"backup_prefix": "b", "environment": "staging"},
         {"backup_prefix": "b", "environment": "staging", "prefix": "mlflow-artifacts-staging"}),
        ({"endpoint_url": "http://m:9000/?a&b"}, {"endpoint": "http://m:9000/?a&b"}),
    ],
)  # fmt: skip
def test_the_program_is_told_where_to(values, place):
    change = backing_up(Settings(**({"bucket": "my-bucket"} | values)))
    assert change.script.splitlines()[-1] == (
        'for_backups "$root/venv/bin/python" "$here/back_up.py" root="$root"'
    )
    assert request(change.files, "back_up.py") == {"place": PLACE | place}


def test_libpq_finds_the_password_where_the_server_does():
    assert 'PGPASSFILE="$root/.pgpass"\n' in backing_up(SETTINGS).script


@pytest.mark.parametrize("facts", [blank(), configured(), deployed(schema=None)])
def test_a_host_without_a_server_says_what_to_type(facts):
    with pytest.raises(Exit, match="There is no server on ec2 yet"):
        backup(context(facts))


def test_a_failed_backup_is_never_called_complete(capsys):
    c = context(deployed())
    c.recorder.replies = [Reply("@fail The database mlflow.db is damaged\n@exit 1\n")]
    with pytest.raises(Exit, match=r"mlflow\.db is damaged"):
        backup(c)
    assert "complete" not in capsys.readouterr().out


def test_a_database_that_cannot_be_read_is_no_server_that_is_missing():
    c = context(deployed(schema=None, schema_error="unable to open database file"))
    with pytest.raises(
        Exit, match=r"cannot be read: unable to open database file\. .*\./fab doctor"
    ):
        backup(c)
