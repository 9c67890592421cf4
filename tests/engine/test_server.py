"""The only module that talks to a host: exact commands, secrets on standard input alone."""

from __future__ import annotations

import io
import json
import shlex
import tarfile

import pytest
from invoke import Exit, Result
from invoke.exceptions import CommandTimedOut, ThreadException
from invoke.util import ExceptionWrapper
from paramiko import SSHException
from stand_ins import ROOT, Reply, Task, blank, context

from tasks.engine import server as module
from tasks.engine.change import Change, bundle
from tasks.engine.console import console
from tasks.engine.server import Talk, operator
from tasks.engine.settings import Settings
from tasks.engine.streams import Lines
from tasks.engine.templates import source

SECRET = "correct horse battery"


@pytest.fixture
def c() -> Task:
    return context(blank())


@pytest.fixture
def anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")


def message(caught: pytest.ExceptionInfo[Exit]) -> str:
    text = str(caught.value.message)
    assert "\n" not in text
    return text


# -- reading -----------------------------------------------------------------------------------


def test_a_command_runs_as_it_is_with_nothing_on_its_input(c):
    c.server.run("uptime")
    (run,) = c.recorder.runs
    assert (run.command, run.stdin) == ("uptime", b"")
    assert run.options["timeout"] == module.TIMEOUT
    assert run.options["pty"] is False
    assert run.options["hide"] is True


def test_what_a_command_prints_is_read(c):
    c.recorder.replies = [Reply("up 3 days\n")]
    assert c.server.read("uptime") == "up 3 days\n"


def test_a_failure_is_the_last_line_of_its_errors(c):
    c.recorder.replies = [Reply("out", "first\nno such file\n", 2)]
    with pytest.raises(Exit) as caught:
        c.server.read("cat x")
    assert message(caught) == "A command on ec2 failed (2): no such file"


@pytest.mark.parametrize(
    ("stdout", "said"), [("only this\n", "only this"), ("", "it said nothing")]
)
def test_a_failure_without_errors_is_its_output(c, stdout, said):
    c.recorder.replies = [Reply(stdout, exited=2)]
    with pytest.raises(Exit, match=said):
        c.server.read("cat x")


def test_a_failed_command_is_not_printed_with_its_error(c):
    c.recorder.replies = [Reply(stderr="no", exited=1)]
    with pytest.raises(Exit) as caught:
        c.server.run("cat /a/very/long/path")
    assert "/a/very/long/path" not in message(caught)


def test_a_command_that_takes_too_long_names_the_host(c):
    c.recorder.replies = [CommandTimedOut(Result(command="x"), timeout=60)]
    with pytest.raises(Exit) as caught:
        c.server.run("sleep 100")
    assert message(caught).startswith("ec2 did not finish within 1 min 00 s.")


@pytest.mark.parametrize(
    "error", [SSHException("Channel closed"), EOFError(), OSError("Socket is closed")]
)
def test_a_lost_connection_says_that_the_work_goes_on(c, error):
    c.recorder.replies = [error]
    with pytest.raises(Exit) as caught:
        c.server.run("x")
    assert message(caught).startswith("The connection to ec2 was lost")
    assert "The step in progress finishes on ec2." in message(caught)
    assert str(error) in message(caught)


@pytest.mark.parametrize(("error", "said"), [(EOFError(), ""), (OSError("gone"), " (gone)")])
def test_a_connection_that_is_lost_in_a_thread_shows_no_traceback(c, error, said):
    wrapped = ExceptionWrapper({}, type(error), error, None)
    c.recorder.replies = [ThreadException([wrapped])]
    with pytest.raises(Exit) as caught:
        c.server.run("x")
    assert message(caught).startswith(f"The connection to ec2 was lost{said}. ")


def test_a_command_without_an_exit_code_is_a_lost_connection(c):
    c.recorder.replies = [Reply(exited=-1)]
    with pytest.raises(Exit, match="The connection to ec2 was lost"):
        c.server.run("x", check=False)


def test_what_is_followed_has_no_end_of_its_own_and_input_that_stays_open(c):
    c.recorder.replies = [Reply(exited=-1)]
    with pytest.raises(
        Exit, match=r"The connection to ec2 was lost\. Run the same command again\.$"
    ):
        c.server.run("journalctl --follow", input=b"program", follow=True)
    (run,) = c.recorder.runs
    assert run.stdin == b"program"
    assert run.options["timeout"] is None


def test_lines_are_handed_over_whole_as_they_come(c):
    c.recorder.replies = [Reply("one\r\ntwo\nthree")]
    lines: list[str] = []
    c.server.run("x", on_line=lines.append)
    assert lines == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        (["on", "e\ntw", "o\n"], ["one", "two"]),
        (["a\r", "\nb"], ["a", "b"]),
        (["a\n\nb\n"], ["a", "", "b"]),
        ([], []),
    ],
)
def test_a_line_may_come_in_parts(parts, lines):
    seen: list[str] = []
    stream = Lines(seen.append)
    for part in parts:
        stream.write(part)
        stream.flush()
    stream.close()
    assert seen == lines


# -- facts -------------------------------------------------------------------------------------

PROBED = f"home\t/home/ubuntu\nuser\tubuntu\nroot\t{ROOT}\ngeneration\t7\nend\tyes\n"


@pytest.fixture
def unseen() -> Task:
    """A host that nobody has looked at yet."""
    c = context()
    c.recorder.replies = [Reply(PROBED)]
    return c


def test_facts_are_read_once_in_one_exec(unseen):
    assert unseen.server.facts is unseen.server.facts
    assert unseen.server.facts.root == ROOT
    assert len(unseen.recorder.runs) == 1
    assert unseen.server.execs == 1


def test_facts_are_forgotten_after_a_change(unseen):
    unseen.recorder.replies += [Reply("@exit 0\n"), Reply(PROBED.replace("\t7", "\t9"))]
    assert unseen.server.facts.generation == 7
    unseen.server.apply("task", [Change("do it", "true")])
    assert unseen.server.facts.generation == 9


def test_facts_are_forgotten_after_a_change_that_failed(unseen):
    unseen.recorder.replies += [Reply("@exit 1\n"), Reply(PROBED.replace("\t7", "\t9"))]
    with pytest.raises(Exit):
        unseen.server.apply("task", [Change("do it", "false")])
    assert unseen.server.facts.generation == 9


def test_a_host_that_gives_no_shell_says_what_it_says_instead():
    c = context()
    said = 'Please login as the user "ubuntu" rather than the user "root".'
    c.recorder.replies = [Reply(f"{said}\n\n")]
    with pytest.raises(Exit) as caught:
        _ = c.server.facts
    assert said in message(caught)
    assert "-H USER@HOST" in message(caught)


# -- changing ----------------------------------------------------------------------------------


def test_a_change_is_one_exec_with_the_lock_s_arguments(c, anybody):
    c.server.apply("deploy", [Change("a", "true"), Change("b", "true")])
    (run,) = c.recorder.runs
    script = source("receive.sh")
    assert shlex.split(run.command) == [
        "bash", "-c", script, "remote-mlflow", "change.sh", ROOT, "me@laptop", "deploy", "0", "0",
    ]  # fmt: skip
    assert run.options["timeout"] == module.CHANGE_TIMEOUT
    assert operator() == "me@laptop"


def test_the_decision_s_generation_goes_along():
    c = context(blank(generation=42))
    c.server.apply("deploy", [Change("a", "true")])
    assert c.recorder.commands[0].endswith(" deploy 42 0")


def test_only_the_first_step_of_a_command_fails_at_a_held_lock():
    c = context(blank(generation=42))
    c.recorder.replies = [Reply("@exit 0\n"), Reply("@exit 0\n")]
    for _ in range(2):
        c.server.apply("deploy", [Change("a", "true")])
    first, later = c.recorder.commands
    assert first.endswith(" deploy 42 0")
    assert later.endswith(f" deploy 42 {module.TURN}")


def test_the_bundle_holds_the_steps_and_their_files_closed_to_others(c):
    changes = [Change("say it's so", "place x y", {"x": "text"}), Change("b", "two", {"z": b"\0"})]
    c.server.apply("task", changes)
    (run,) = c.recorder.runs
    assert run.files["change.sh"] == source("change.sh")
    assert run.files["x"] == "text"
    assert run.files["z"] == "\0"
    assert run.steps == "say 'say it'\"'\"'s so'\nplace x y\nsay b\ntwo\n"
    with tarfile.open(fileobj=io.BytesIO(run.stdin)) as archive:
        assert {entry.mode for entry in archive} == {0o600}


def test_what_is_done_at_once_is_said_line_by_line():
    change = Change("put /a; put /b", "script")
    assert change.sentences == ["put /a", "put /b"]
    assert b"say 'put /a'\nsay 'put /b'\nscript\n" in bundle([change])


def test_a_secret_travels_on_standard_input_and_never_in_a_command(c):
    c.server.apply("task", [Change("keep it", "place login x", {"login": SECRET})])
    (run,) = c.recorder.runs
    assert SECRET not in run.command
    assert SECRET not in json.dumps(str(run.options))
    assert SECRET.encode() in run.stdin


# -- what the host says of a change ------------------------------------------------------------


def applied(c: Task, *lines: str) -> list[str]:
    c.recorder.replies = [Reply("".join(f"{line}\n" for line in lines))]
    return c.server.apply("deploy", [Change("a", "true")])


def failure(c: Task, *lines: str) -> str:
    with pytest.raises(Exit) as caught:
        applied(c, *lines)
    return message(caught)


def test_what_the_host_says_is_passed_on(c, capsys):
    applied(c, "@say step one", "noise", "@warn look out", "@exit 0")
    out, err = capsys.readouterr()
    assert "step one" in out
    assert "look out" in err
    assert "noise" not in out + err


def test_reports_are_returned_in_their_order(c):
    assert applied(c, "@report one", "@report two 2", "@exit 0") == ["one", "two 2"]
    assert c.server.changed


def test_a_named_failure_is_the_one_line(c):
    assert failure(c, "noise", "@fail It is broken. Fix it", "@exit 1") == "It is broken. Fix it"
    assert not c.server.changed


def test_an_unnamed_failure_shows_the_host_s_last_lines(c, capsys):
    lines = [f"line {n}" for n in range(20)]
    said = failure(c, *lines, "", "@exit 7")
    assert said.startswith("deploy on ec2 failed (7); the lines above are the host's.")
    err = capsys.readouterr().err.splitlines()
    assert err == [f"  | line {n}" for n in range(5, 20)]


def test_no_secret_stands_in_the_host_s_last_lines(c, capsys):
    console.protect(SECRET)
    failure(c, f"the password is {SECRET}", "@exit 1")
    assert SECRET not in "".join(capsys.readouterr())


def test_output_without_an_end_was_cut_short(c):
    assert failure(c, "@say begun").startswith("deploy on ec2 was cut short")


def test_a_held_lock_says_who_since_when_and_how_to_break_it(c):
    said = failure(c, "@held you@desk\t2026-11-22T10:00:00Z\tinstall\t4711", "@exit 75")
    assert said == (
        "you@desk holds the lock of ec2 (default) since 2026-11-22T10:00:00Z (install). Wait for "
        "it and run the same command again; if that process hangs, end it: ssh ec2 kill 4711"
    )


def test_a_lock_file_that_is_still_empty_is_no_crash(c):
    assert "holds the lock of ec2 (default)" in failure(c, "@held ", "@exit 75")


def test_a_host_that_somebody_else_changed_meanwhile_is_left_alone(c):
    said = failure(c, "@exit 76")
    assert said == (
        "Somebody else changed ec2 at the same moment. Nothing was done here; run the same "
        "command again."
    )


def test_a_connection_that_is_lost_during_a_change_is_one_line(c):
    c.recorder.replies = [Reply("@say begun\n", exited=-1)]
    with pytest.raises(Exit, match="The connection to ec2 was lost"):
        c.server.apply("deploy", [Change("a", "true")])


def test_the_talk_of_several_hosts_is_tagged(c, capsys):
    console.tagged = True
    Talk(c.server)("@say step one")
    assert capsys.readouterr().out.startswith("[ec2] ")


def test_a_rehearsal_host_never_sees_the_operator_s_variables(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "real")
    assert "AWS_ACCESS_KEY_ID" not in context(rehearsal=True).server.variables


def test_a_look_is_one_exec_without_lock_operator_or_announcement(c):
    c.recorder.replies = [Reply("@report 1\n@report 2\n@exit 0\n")]
    asked = [Change("ask", 'echo "@report 1"', {"secret.json": "{}"})]
    assert c.server.look("doctor", asked) == ["1", "2"]
    (run,) = c.recorder.runs
    assert shlex.split(run.command)[3:] == ["remote-mlflow", "look.sh", "~/mlflow-server"]
    assert set(run.files) == {"look.sh", "words.sh", "variables.sh", "steps.sh", "secret.json"}
    assert run.steps == 'echo "@report 1"\n'


def test_a_look_that_fails_says_why(c):
    c.recorder.replies = [Reply("@fail It is dark. Switch on the light.\n@exit 1\n")]
    with pytest.raises(Exit, match=r"It is dark\. Switch on the light\."):
        c.server.look("doctor", [])


GUIDES = {
    "version": "2.22.1", "unit": "", "active": True, "enabled": False, "pid": 7, "host": "0.0.0.0",
    "port": 5000, "store": "", "destination": "s3://b/p", "profile": "default", "auth": "",
    "permission": "READ",
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "execs", "version", "foreign"),
    [
        ("release\t3.17.2-abc\nend\tyes\n", 1, None, False),
        ("foreign\tvenv\nroot\t/r\nend\tyes\n", 2, "2.22.1", False),
        ("foreign\tvenv\nroot\t/r\nend\tyes\n", 2, None, True),
    ],
)
def test_only_a_host_with_somebody_else_s_environment_is_asked_whose_it_is(
    unseen, said, execs, version, foreign
):
    unseen.recorder.replies = [
        Reply(said),
        Reply("Welcome\n" + (json.dumps(GUIDES) if version else "")),
    ]
    facts = unseen.server.facts
    assert unseen.server.execs == execs
    assert (facts.guide and facts.guide.version, facts.foreign) == (version, foreign)
    assert all("/proc/{pid}" in command for command in unseen.recorder.commands[1:])


# -- which environment -------------------------------------------------------------------------

STAGING = Settings(environment="staging")
PRODUCTION = Settings(environment="production", confirm="name")


def test_what_is_said_names_the_environment_in_its_commands(capsys):
    c = context(blank(), STAGING)
    c.server.say("To undo: ./fab rollback")
    c.server.warn("see ./fab -H ec2 logs")
    out, err = capsys.readouterr()
    assert out == "To undo: ./fab -H ec2 use staging rollback\n"
    assert err == "see ./fab -H ec2 use staging logs\n"
    assert c.server.fab("users.list") == "./fab -H ec2 use staging users.list"
    assert c.server.place == "ec2 (staging)"


def test_a_name_is_wanted_only_where_the_settings_say_so(terminal):
    terminal.append("y")
    assert context(blank(), STAGING).server.confirm("Go on?", yes=False)
    terminal.append("y")
    assert not context(blank(), PRODUCTION).server.confirm("Go on?", yes=False)
    terminal.append("production")
    assert context(blank(), PRODUCTION).server.confirm("Go on?", yes=False)


@pytest.mark.parametrize(("named", "yes"), [(False, True), (True, False), (False, False)])
def test_without_a_terminal_the_name_has_to_stand_in_the_command_with_yes(named, yes):
    server = context(blank(), PRODUCTION, named=named).server
    with pytest.raises(Exit, match=r"production wants its name typed: use production TASK --yes"):
        server.confirm("Go on?", yes)


def test_use_and_yes_together_are_the_name_typed():
    server = context(blank(), PRODUCTION, named=True).server
    assert server.confirm("Go on?", yes=True)
