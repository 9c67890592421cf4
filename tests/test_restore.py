"""Restore: what is asked, what is sent, and what is said; and a backup that is only tried."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from invoke import Exit
from stand_ins import (
    BACKUP_KEY,
    RUNNER,
    SETTINGS,
    Reply,
    Task,
    blank,
    configured,
    context,
    deployed,
    request,
)

from tasks.backup import verify
from tasks.changes import stream as stream_changes
from tasks.changes.backup import verifying
from tasks.changes.restore import fetching, restoring
from tasks.engine import backup_keys
from tasks.engine.change import digest
from tasks.engine.facts import Unit
from tasks.engine.settings import Settings
from tasks.engine.templates import read
from tasks.restore import HINT, LOOK_TIMEOUT, options, replaced, restore

ID = "20261122T214724Z-926c1729"
SET = {
    "id": ID, "made": "2026-11-22T21:47:24+00:00", "host": "old-host", "version": "3.16.0",
    "runs": 12, "users": 3, "newest_run": 1_700_000_000_000, "bytes": 3_200_000,
}  # fmt: skip
PRESENT = {"runs": 2, "newest_run": 1_600_000_000_000}


def asked(
    present: Any = PRESENT, settings: Settings = SETTINGS, doubt: str = "", keys: Any = None,
    **values: Any,
) -> Task:  # fmt: skip
    c = context(deployed(settings, **values), settings)
    found = json.dumps({"set": SET, "present": present, "doubt": doubt, "keys": keys or []})
    c.recorder.replies = [Reply(f"@report {found}\n@exit 0\n")]
    return c


def test_a_restore_is_one_look_and_one_change(capsys):
    c = asked()
    restore(c, yes=True)
    look, change = c.recorder.runs
    assert set(look.files) >= {"look.sh", "choose_set.py", "choose_set.json"}
    assert look.options["timeout"] == LOOK_TIMEOUT
    assert set(change.files) >= RUNNER | {
        "ready_start", "ready_auth", "fetch_set.py", "beside.py", "migrate.py", "one_process.py",
        "try_server.py",
    }  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == (f"✓ restored {ID}: 12 runs, the newest of 2023-11-14 22:13:20 UTC, 3 users")
    assert said[-1] == c.server.completed(HINT)


def test_it_is_checked_and_served_on_the_side_before_the_server_stops():
    c = asked()
    restore(c, yes=True)
    steps = c.recorder.runs[1].steps
    order = [
        'place "$here/ready_start" "$root/start_mlflow_server.sh"',
        'rm -rf "$root/next.part"\n',
        '"$here/fetch_set.py" root="$root" folder="$root/next.part"',
        '"$here/migrate.py" folder="$root/next.part"',
        '"$here/try_server.py" folder="$root/next.part"',
        "\nstop_server\n",
        "\nchange_over restore\n",
    ]
    places = [steps.index(step) for step in order]
    assert places == sorted(places)
    assert request(c.recorder.runs[1].files, "fetch_set.py")["id"] == ID


def test_an_id_and_an_environment_s_own_place_are_handed_on():
    settings = Settings(
        bucket="bucket", environment="staging", backup_prefix="kept", endpoint_url="http://m:9000"
    )
    c = asked(settings=settings)
    restore(c, id="x y", yes=True)
    asks = request(c.recorder.runs[0].files, "choose_set.py")
    place = [asks["place"][name] for name in ("bucket", "backup_prefix", "environment", "endpoint")]
    assert place == ["bucket", "kept", "staging", "http://m:9000"]
    assert asks["id"] == "x y"
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
        (deployed(database="mysql"), "This server is on mysql, and only SQLite and PostgreSQL"),
        (deployed(database="postgresql"), "runs are in PostgreSQL and its users in SQLite"),
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
    text = "".join(
        change.script for change in restoring(SETTINGS, deployed(), fetching(SETTINGS, ID))
    )
    assert "SECRET_KEY" not in text
    assert "aws_secret" not in text.lower()


DOUBT = "Nobody vouches for the backup."


def test_what_nobody_vouches_for_is_not_answered_by_yes():
    c = asked(doubt=DOUBT)
    with pytest.raises(
        Exit, match=r"Nobody vouches for the backup. To restore it all the same, add "
    ):
        restore(c, yes=True)
    with pytest.raises(Exit, match="add --unsigned"):
        restore(asked(doubt=DOUBT))
    assert len(c.recorder.runs) == 1
    c = asked(doubt=DOUBT)
    restore(c, yes=True, unsigned=True)
    assert request(c.recorder.runs[1].files, "fetch_set.py")["unsigned"] is True
    assert request(asked_and_done().recorder.runs[1].files, "fetch_set.py")["unsigned"] is False


def asked_and_done() -> Task:
    c = asked()
    restore(c, yes=True, unsigned=True)
    return c


def test_a_person_is_told_that_nobody_vouches_for_it_and_may_agree(terminal, capsys):
    terminal.append("yes")
    c = asked(doubt=DOUBT)
    restore(c)
    assert f"Mind: {DOUBT}" in capsys.readouterr().out
    assert request(c.recorder.runs[1].files, "fetch_set.py")["unsigned"] is True


def test_a_key_of_the_operator_s_vouches_and_goes_along(capsys):
    """The host that made them is gone: its key is here."""
    lost = context(deployed(), alias="lost", REMOTE_MLFLOW_BACKUP_KEY="")
    lost.server.identity = "lost"
    backup_keys.keep(lost.server, "cd" * 32)
    other = backup_keys.id_of("cd" * 32)
    c = asked(doubt="Another key signed it.", keys=["00000000", other])
    again = asked().recorder.replies
    c.recorder.replies += again
    restore(c, yes=True)
    first, second, change = c.recorder.runs
    assert request(first.files, "choose_set.py")["key"] == ""
    assert request(second.files, "choose_set.py")["key"] == "cd" * 32
    assert request(change.files, "fetch_set.py")["key"] == "cd" * 32
    assert change.files["new_backup_key"] == "cd" * 32
    assert f"former={backup_keys.id_of(BACKUP_KEY)}\n" in change.steps
    assert "cd" * 32 not in change.steps + change.command
    assert backup_keys.kept(c.server) == "cd" * 32
    assert change.steps.index("change_over restore") < change.steps.index("new_backup_key")
    assert other in capsys.readouterr().out


def test_the_question_says_that_another_key_would_become_the_host_s(terminal, capsys):
    lost = context(deployed(), alias="lost", REMOTE_MLFLOW_BACKUP_KEY="")
    lost.server.identity = "lost"
    backup_keys.keep(lost.server, "cd" * 32)
    other, own = backup_keys.id_of("cd" * 32), backup_keys.id_of(BACKUP_KEY)
    c = asked(doubt="Another key signed it.", keys=[other])
    c.recorder.replies += asked().recorder.replies
    terminal.append("n")
    with pytest.raises(Exit):
        restore(c)
    out = " ".join(capsys.readouterr().out.split())
    assert f"The backup key {other} vouches for it" in out
    assert f"The host gets it in the place of its own, {own}." in out
    assert len(c.recorder.runs) == 2
    assert backup_keys.kept(c.server) is None


# -- restore --at ------------------------------------------------------------------------------

STREAM = "926c1729/20261124T120000Z"
CHOSEN = {
    "stream": STREAM, "at": "2026-11-24T15:29:58Z", "present": PRESENT | {"younger": 1},
}  # fmt: skip
BROUGHT = {
    "stream": STREAM, "at": "2026-11-24T15:29:58Z", "runs": 12, "users": 3,
    "newest_run": 1_700_000_000_000, "databases": {}, "seconds": 1.5,
}  # fmt: skip
MOMENT = "2026-11-24T15:30:00Z"


@pytest.fixture
def late(monkeypatch):
    """Have it be after all that these tests go back to."""

    class Late(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 24, 16, tzinfo=tz)

    monkeypatch.setattr("tasks.changes.stream.datetime", Late)


def streamed(chosen: Any = CHOSEN, doubts: Any = (), **values: Any) -> Task:
    given: dict[str, Any] = {"stream": digest(read("stream.txt"))}
    c = context(deployed(**(given | values)))
    compared = {"doubts": list(doubts), "keys": []}
    lacking = [] if (given | values)["stream"] else [Reply("@exit 0\n")]
    c.recorder.replies = [
        Reply(f"@report {json.dumps(chosen)}\n@exit 0\n"),
        *lacking,
        Reply(f"@report {json.dumps(compared)}\n@exit 0\n"),
        Reply(f"@report {json.dumps(BROUGHT)}\n@report {{}}\n@exit 0\n"),
    ]
    return c


def test_a_moment_is_two_looks_and_one_change(late, capsys):
    c = streamed()
    restore(c, at=MOMENT, yes=True)
    look, comparing, change = c.recorder.runs
    assert look.files.keys() >= {"look.sh", "choose_stream.py"}
    assert comparing.files.keys() >= {"look.sh", "compare_stream.py"}
    assert look.options["timeout"] == LOOK_TIMEOUT
    asks = request(look.files, "choose_stream.py")
    assert (asks["at"], asks["on"]) == (MOMENT, False), "this host streams nothing"
    assert change.files.keys() >= {
        "restore_stream.py",
        "migrate.py",
        "one_process.py",
        "try_server.py",
    }
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "✓ restored what was streamed until 2026-11-24T15:29:58Z: 12 runs, the newest of "
        "2023-11-14 22:13:20 UTC, 3 users",
        "This host streams nothing itself yet: ./fab -H ec2 backup.stream on",
        c.server.completed(HINT),
    ]


def test_a_moment_goes_the_way_that_a_backup_goes():
    moment, backup = streamed(), asked()
    restore(moment, at="latest", yes=True)
    restore(backup, yes=True)
    into = ' root="$root" folder="$root/next.part"\n'
    _, fetch, after = moment.recorder.runs[2].steps.partition('/restore_stream.py"' + into)
    assert fetch
    _, _, rest = backup.recorder.runs[1].steps.partition('/fetch_set.py"' + into)
    assert after == rest
    asks = request(moment.recorder.runs[2].files, "restore_stream.py")
    assert (asks["at"], asks["stream"], asks["own"]) == ("latest", STREAM, True)
    assert (asks["checked"], asks["agreed"]) == (True, [])
    assert "stream_pause || return" in backup.recorder.runs[1].steps


def test_a_host_without_litestream_gets_it_once_somebody_agreed():
    c = streamed(stream=None)
    with pytest.raises(Exit, match="Add --yes"):
        restore(c, at="latest")
    assert "stream.txt" not in c.recorder.runs[0].files
    c = streamed(stream=None)
    restore(c, at="latest", yes=True)
    assert "stream.txt" in c.recorder.runs[1].files


EVE = "admins that are not in the backup: eve\x1b"


def test_users_that_differ_are_named_in_the_question(terminal, capsys):
    terminal.append("yes")
    c = streamed(doubts=[EVE])
    restore(c, at="latest")
    assert "Mind: admins that are not in the backup: eve?\n" in capsys.readouterr().out
    asks = request(c.recorder.runs[2].files, "restore_stream.py")
    assert (asks["checked"], asks["agreed"]) == (True, [EVE])


def test_users_that_differ_are_not_answered_by_yes():
    c = streamed(doubts=[EVE])
    with pytest.raises(Exit, match=r"eve.*add --unsigned"):
        restore(c, at="latest", yes=True)
    assert len(c.recorder.runs) == 2
    c = streamed(doubts=[EVE])
    restore(c, at="latest", yes=True, unsigned=True)
    assert request(c.recorder.runs[2].files, "restore_stream.py")["checked"] is False


def test_the_stream_that_somebody_agreed_to_is_the_one_that_is_restored(terminal, capsys):
    terminal.append("yes")
    unit = Unit("loaded", "active", "running", "enabled")
    c = streamed(units={"mlflow-server-stream.service": unit})
    restore(c, at="latest")
    look, _, change = c.recorder.runs
    assert request(look.files, "choose_stream.py")["on"] is True
    assert request(change.files, "restore_stream.py")["stream"] == STREAM
    out = capsys.readouterr().out
    assert (
        "The last change by then was sent at 2026-11-24T15:29:58Z, by the stream of server "
        "926c1729 that began at 20261124T120000Z." in out
    )
    assert (
        "It replaces 2 runs, the newest of 2020-09-13 12:26:40 UTC; 1 of them began after that "
        "change." in out
    )
    assert "streams nothing" not in out


def test_whoever_says_no_to_a_moment_changes_nothing(terminal):
    terminal.append("")
    c = streamed(CHOSEN | {"present": None})
    with pytest.raises(Exit, match="Nothing was restored"):
        restore(c, at="latest")
    assert len(c.recorder.runs) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"id": ID, "at": "latest"}, "give one of them"),
        ({"at": "yesterday"}, "'yesterday' does not say when.*`2 hours ago`"),
        ({"at": "2026-11-24T25:00:00Z"}, "does not say when"),
        ({"at": "2126-11-24T15:30:00Z"}, "is in the future"),
    ],
)
def test_a_moment_that_is_none_is_refused_before_any_connection(words, said):
    with pytest.raises(Exit, match=said):
        options(**words)
    assert restore.options is options


@pytest.mark.parametrize("at", ["2026-11-24T15:30:00Z", "2026-11-24T16:30:00+01:00",
                                "2026-11-24 15:30:00"])  # fmt: skip
def test_a_moment_is_of_utc_unless_it_says_otherwise(late, at):
    assert stream_changes.moment(at) == MOMENT


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (configured(), "There is no server on ec2 yet"),
        (
            deployed(database="postgresql", auth_store="postgresql://u@h/d"),
            "this server is on PostgreSQL",
        ),
    ],
)
def test_a_host_that_cannot_be_restored_is_left_alone_by_a_moment_too(facts, said):
    c = context(facts)
    with pytest.raises(Exit, match=said):
        restore(c, at="latest", yes=True)
    assert c.recorder.runs == []


def test_what_the_stream_cannot_give_back_is_the_one_line(capsys):
    c = streamed()
    c.recorder.replies = [Reply("@fail No stream reaches to 2020\n@exit 1\n")]
    with pytest.raises(Exit, match="No stream reaches to 2020"):
        restore(c, at="latest", yes=True)
    assert len(c.recorder.runs) == 1


# -- backup.verify -----------------------------------------------------------------------------

VERIFIED = {
    "id": ID, "runs": 12, "users": 3, "made": "2026-11-22T21:47:24.5+00:00", "release": "r",
    "at": "2026-11-24T00:00:00+00:00", "seconds": 12, "by": "host",
}  # fmt: skip


def test_a_verification_is_one_change_and_says_what_a_restore_takes(capsys):
    c = context(deployed())
    c.recorder.replies = [Reply(f"@report {json.dumps(VERIFIED)}\n@exit 0\n")]
    verify(c)
    (run,) = c.recorder.runs
    assert set(run.files) >= RUNNER | {
        "verify_set.py", "beside.py", "migrate.py", "one_process.py",
        "try_server.py", "try_server.json",
    }  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  12 runs, 3 users, made 2026-11-22T21:47:24 UTC",
        f"✓ {ID} was restored and served in 12 s",
    ]


def test_a_verification_never_stops_the_server():
    change = verifying(SETTINGS, ID)
    assert "systemctl" not in change.script
    assert "next.part" not in change.script
    assert request(change.files, "verify_set.py")["id"] == ID


def test_a_host_without_a_release_has_nothing_to_verify_with():
    with pytest.raises(Exit, match="There is no server on ec2 yet"):
        verify(context(blank()))


@pytest.mark.parametrize("start", [10**17, -(10**18), 2**63 - 1])
def test_a_run_may_say_any_number_as_its_start(start):
    seen = {"id": ID, "host": "h", "version": "3", "runs": 1, "users": 1, "newest_run": start}
    assert "1 run, 1 user" in replaced(seen, None)
