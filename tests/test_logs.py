"""Logs: what is typed is checked here, what happened on several hosts is one story."""

from __future__ import annotations

import json
import shlex
from datetime import datetime, timezone
from typing import Any

import pytest
from invoke import Exit
from stand_ins import Reply, Task, blank, context

from tasks import logs as module
from tasks.engine.console import console
from tasks.engine.streams import Alive
from tasks.logs import Entry, Log, Merger, logs, merged, question, start

NOW = datetime(2026, 11, 24, 11, 26, 56, 500_000, tzinfo=timezone.utc)
MIDNIGHT = datetime(2026, 11, 24, tzinfo=timezone.utc).timestamp()
HOUR, DAY = 3600, 86400


def said(*entries: tuple[int, list[str]]) -> Reply:
    return Reply("".join(json.dumps(entry) + "\n" for entry in entries))


def asked(c: Task) -> dict[str, Any]:
    words = shlex.split(c.recorder.commands[0])
    assert words[:2] == ["bash", "-c"]
    assert words[3:6] == ["logs", "python3", "-c"]
    assert int(words[7]) == len(c.recorder.runs[0].stdin), "the program is read to its end"
    question: dict[str, Any] = json.loads(words[8])
    return question


def test_the_last_hundred_lines_are_asked_for_in_one_exec(capsys):
    c = context()
    c.recorder.replies = [said((1, ["one"]), (2, ["two", "  more"]))]
    module.show({"ec2": logs(c)})
    assert capsys.readouterr().out == "one\ntwo\n  more\n"
    assert asked(c) == {
        "unit": "mlflow-server", "access": False, "follow": False,
        "lines": 100, "since": None, "grep": None, "level": None,
    }  # fmt: skip
    assert len(c.recorder.runs) == 1


def test_what_the_operator_looks_for_is_asked_of_the_host():
    c = context()
    logs(c, lines="5", since="1h", grep="it's; reboot", level="error", access=True)
    question = asked(c)
    assert (question["lines"], question["since"]) == (5, -HOUR)
    assert (question["grep"], question["level"]) == ("it's; reboot", "error")
    assert question["access"]


def test_since_shows_all_that_happened_since():
    assert question(since="1h")["lines"] is None


def test_nothing_that_matches_is_an_answer_too(capsys):
    module.show({"ec2": logs(context())})
    assert capsys.readouterr().out == "-- no entries --\n"


def test_a_host_without_a_server_says_what_to_type():
    c = context()
    c.recorder.replies = [Reply("@absent\n")]
    with pytest.raises(Exit, match=r"no server on ec2 yet.*install configure deploy"):
        logs(c)


def test_a_user_who_may_not_become_root_is_told_how(capsys):
    c = context(blank(sudo=False))
    c.recorder.replies = [Reply("@refused\n")]
    with pytest.raises(Exit, match="sudo asks ubuntu for a password"):
        logs(c)


def test_what_a_login_shell_says_on_its_own_is_no_entry():
    c = context()
    c.recorder.replies = [Reply("Welcome!\n" + said((1, ["one"])).stdout)]
    log = logs(c)
    assert log is not None
    assert log.entries == (Entry(1, ("one",)),)


@pytest.mark.parametrize(
    ("options", "because"),
    [
        ({"lines": "0"}, "--lines is '0', not a number from 1 on"),
        ({"lines": "-3"}, "--lines is '-3'"),
        ({"lines": "ten"}, "--lines is 'ten'"),
        ({"since": "yesterdayish"}, "--since 'yesterdayish' is neither a duration nor a date"),
        ({"since": ""}, "--since '' is neither"),
        ({"since": "1 fortnight"}, "--since '1 fortnight' is neither"),
        ({"since": "2026-13-01"}, "--since '2026-13-01' is neither"),
        ({"grep": "("}, "--grep '\\(' is no pattern: missing \\)"),
        ({"level": "loud"}, "--level is 'loud'. Take one of: info, warning, error, critical"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_connection(options, because):
    with pytest.raises(Exit, match=because) as caught:
        logs.options(**options)
    assert "\n" not in (caught.value.message or "")


@pytest.mark.parametrize(
    ("since", "wanted"),
    [
        ("1h", -HOUR),
        ("-1h", -HOUR),
        ("10m", -600),
        ("10min", -600),
        ("90 s", -90),
        ("2 days", -2 * DAY),
        ("1 day 2 hours ago", -DAY - 2 * HOUR),
        ("1h30m", -HOUR - 1800),
        ("1w", -7 * DAY),
        ("today", MIDNIGHT),
        ("Yesterday", MIDNIGHT - DAY),
        ("10:30", MIDNIGHT + 10 * HOUR + 1800),
        ("9:05:01", MIDNIGHT + 9 * HOUR + 301),
        ("2026-11-23", MIDNIGHT - DAY),
        ("2026-11-24 01:00", MIDNIGHT + HOUR),
        ("2026-11-24T01:00:00Z", MIDNIGHT + HOUR),
        ("2026-11-24 01:00 UTC", MIDNIGHT + HOUR),
        ("2026-11-24T01:00:00+01:00", MIDNIGHT),
    ],
)
def test_since_is_a_duration_of_the_host_s_clock_or_a_moment_in_utc(since, wanted):
    assert start(since, NOW) == wanted


# -- several hosts -----------------------------------------------------------------------------


def log(*entries: tuple[int, str], limit: int | None = None) -> Log:
    return Log(tuple(Entry(when, tuple(text.split("\n"))) for when, text in entries), limit)


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "tagged", True)


def test_lines_of_several_hosts_come_in_the_order_of_their_times(several):
    logs = {"alpha": log((1, "a1"), (4, "a4")), "beta": log((2, "b2"), (3, "b3"))}
    assert merged(logs) == ["[alpha] a1", "[beta] b2", "[beta] b3", "[alpha] a4"]


def test_lines_of_one_entry_stay_together(several):
    logs = {"alpha": log((1, "error\n  trace\nend")), "beta": log((1, "b1"), (2, "b2"))}
    assert merged(logs)[:3] == ["[alpha] error", "[alpha]   trace", "[alpha] end"]


def test_the_last_lines_are_those_of_all_hosts_together(several):
    logs = {
        "alpha": log((1, "a1"), (4, "a4"), limit=2),
        "beta": log((2, "b2"), (3, "b3"), limit=2),
    }
    assert merged(logs) == ["[beta] b3", "[alpha] a4"]


def test_an_entry_is_never_cut_for_the_number_of_lines():
    assert merged({"ec2": log((1, "a"), (2, "error\ntrace"), (3, "b"), limit=2)}) == [
        "error", "trace", "b",
    ]  # fmt: skip


def test_secrets_that_are_known_are_blotted_out():
    console.protect("hidden-word")
    assert merged({"ec2": log((1, "a hidden-word"))}) == ["a ********"]


def test_an_entry_waits_for_older_ones_of_other_hosts(several):
    written: list[str] = []
    merger = Merger(written.append)
    merger._open = 1  # the logins are long over
    merger.add(Entry(20, ("late",)), "alpha", 10.0)
    merger.add(Entry(10, ("early",)), "beta", 10.3)
    merger.release(10.4)
    assert written == []
    merger.release(10.5)
    assert written == ["[beta] early", "[alpha] late"]


def test_what_still_waits_is_printed_in_the_end(several):
    written: list[str] = []
    merger = Merger(written.append)
    merger.add(Entry(2, ("two", "  more")), "alpha", 0.0)
    merger.add(Entry(1, ("one",)), "beta", 0.0)
    merger.release()
    assert written == ["[beta] one", "[alpha] two\n[alpha]   more"]


# -- following ---------------------------------------------------------------------------------


def test_following_prints_as_it_comes_and_keeps_the_host_s_input_open(capsys):
    c = context()
    c.recorder.replies = [said((1, ["one"]), (2, ["two"]))]
    with pytest.raises(Exit, match="stopped sending its log"):
        logs(c, follow=True)
    assert capsys.readouterr().out == "one\ntwo\n"
    assert asked(c)["follow"]
    assert c.recorder.runs[0].options["timeout"] is None


def test_a_host_that_drops_out_is_named_while_the_others_go_on(several, capsys):
    c = context()
    c.recorder.replies = [Reply("@absent\n")]
    with pytest.raises(Exit):
        logs(c, follow=True)
    assert capsys.readouterr().err.startswith("[ec2] There is no server on ec2 yet")


def test_a_host_that_the_operator_left_is_not_named(several, capsys):
    c = context()
    c.server.interrupted.set()
    c.recorder.replies = [Reply(exited=-1)]
    with pytest.raises(Exit):
        logs(c, follow=True)
    assert capsys.readouterr().err == ""


def test_input_that_stays_open_is_still_bytes():
    assert Alive(b"x").getvalue() == b"x"
