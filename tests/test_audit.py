"""The audit is one look, says what it could not look at, and shows who changed what."""

from __future__ import annotations

import json

import pytest
from invoke import Exit
from stand_ins import Reply, Task, context, deployed

from tasks import audit as module
from tasks.findings.diagnosis import verdict


def answered(*reports: str) -> Task:
    c = context(deployed())
    lines = "".join(f"@report {line}\n" for line in reports)
    c.recorder.replies = [Reply(f"{lines}@exit 0\n")]
    return c


@pytest.mark.usefixtures("unreached")
def test_an_audit_is_one_look_without_lock_or_login(capsys):
    c = answered("package\tmlflow-3.9.0", "loose\t/x", "looked\tunits", "blind\tsite no file")
    found = module.audit(c)
    (run,) = c.recorder.runs
    assert "change.sh" not in run.files
    assert json.loads(run.files["look_at_requests.json"])["logins"] == []
    assert "patience=20" in run.steps
    assert {"writable-by-others", "vulnerable"} <= {row["key"] for row in found}
    out, err = capsys.readouterr()
    assert "✗ Others than root may change" in out or "✗ Others than its owner may change /x" in out
    assert "? Not looked at: secrets (no answer)." in out
    assert "? Not looked at: tls (no file)." in out
    assert "no database of advisories was reached (no way out)" in err
    assert "problems" in str(getattr(verdict(found), "message", ""))


def test_a_host_without_a_server_says_what_to_type():
    from stand_ins import blank

    with pytest.raises(Exit, match=r"no server on ec2 yet"):
        module.audit(context(blank()))


LINES = (
    "2026-11-25T14:29:07Z\tann@desk\tinstall\tbegun\n"
    "2026-11-25T14:30:45Z\tann@desk\tinstall\tdone\n2026-11-25T14"
)


def test_the_log_is_read_in_one_exec():
    c = context(deployed())
    c.recorder.replies = [Reply(LINES)]
    rows = module.log(c, lines="3")
    assert rows == [
        {"time": "2026-11-25T14:29:07Z", "who": "ann@desk", "task": "install", "result": "begun"},
        {"time": "2026-11-25T14:30:45Z", "who": "ann@desk", "task": "install", "result": "done"},
    ]
    (command,) = c.recorder.commands
    assert command == 'tail -n 3 "$HOME"/mlflow-server/audit.log 2> /dev/null || true'


def test_logs_of_several_hosts_are_one_in_the_order_of_their_times(capsys):
    rows = [module.entry(line) for line in LINES.splitlines()[:2]]
    module.show({"a": [rows[1]], "b": [rows[0]]})  # type: ignore[list-item]
    assert [line.split("  ")[3] for line in capsys.readouterr().out.splitlines()] == [
        "begun", "done",
    ]  # fmt: skip
    module.show({"a": []})
    assert capsys.readouterr().out == "no task has changed anything yet\n"


@pytest.mark.parametrize("lines", ["0", "many", "-3"])
def test_lines_that_are_no_number_are_refused(lines):
    with pytest.raises(Exit, match=f"--lines is '{lines}'"):
        module.options(lines)
