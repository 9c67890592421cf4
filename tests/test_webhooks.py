"""Webhooks whose secrets a lost key left unreadable: looked at, asked about, then reset."""

from __future__ import annotations

import json

import pytest
from invoke import Exit
from stand_ins import Reply, blank, context, deployed, request

from tasks.webhooks import reset

HOOK = {"id": "3a7f6d4a", "name": "nightly"}


def replied(*hooks: dict[str, str]) -> Reply:
    return Reply(f"@report {json.dumps({'webhooks': hooks})}\n@exit 0\n")


def test_a_server_that_can_read_all_is_only_looked_at(capsys):
    c = context(deployed())
    c.recorder.replies = [replied()]
    reset(c)
    assert "nothing to change" in capsys.readouterr().out
    (look,) = c.recorder.runs
    assert request(look.files, "reset_webhooks.py") == {"ids": []}
    assert "change.sh" not in look.files


def test_those_that_were_shown_are_reset_after_a_question(capsys, terminal):
    terminal.append("y")
    c = context(deployed())
    c.recorder.replies = [replied(HOOK), replied(HOOK)]
    reset(c)
    out = capsys.readouterr().out
    assert "nightly (3a7f6d4a)" in out
    assert 'update_webhook("3a7f6d4a", secret="…", status="ACTIVE")' in out
    _, change = c.recorder.runs
    assert request(change.files, "reset_webhooks.py") == {"ids": ["3a7f6d4a"]}


def test_a_no_and_nobody_to_ask_change_nothing(terminal):
    terminal.append("")
    c = context(deployed())
    c.recorder.replies = [replied(HOOK)]
    with pytest.raises(Exit, match="Nothing was changed"):
        reset(c)
    assert len(c.recorder.runs) == 1


def test_without_a_terminal_yes_is_asked_for():
    c = context(deployed())
    c.recorder.replies = [replied(HOOK)]
    with pytest.raises(Exit, match=r"Take its secret away on ec2.*Add --yes"):
        reset(c)
    assert len(c.recorder.runs) == 1


def test_a_host_without_a_server_is_told_so():
    with pytest.raises(Exit):
        reset(context(blank()))
