"""Whole lines, tagged with their host; no secret; colour only on a terminal."""

from __future__ import annotations

import io
import threading

import pytest
from invoke import Exit

from tasks.engine.console import Console, confirm, console, painted, printable, seconds
from tasks.engine.typed import completed, typed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def err() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def voice(out: io.StringIO, err: io.StringIO) -> Console:
    return Console(out, err)


def test_what_is_said_goes_to_stdout_and_trouble_to_stderr(voice, out, err):
    voice.say("fine")
    voice.warn("look")
    voice.fail("broken")
    assert out.getvalue() == "fine\n"
    assert err.getvalue() == "look\nbroken\n"


def test_with_json_stdout_carries_nothing_but_the_answer(voice, out, err):
    voice.quiet_stdout = True
    voice.say("talk")
    voice.show("a table")
    with voice.step("work"):
        pass
    voice.answer("[]")
    assert out.getvalue() == "[]\n"
    assert "talk" in err.getvalue()
    assert "a table" in err.getvalue()


def test_one_host_needs_no_tag(voice, out):
    voice.say("line", "ec2")
    assert out.getvalue() == "line\n"


def test_every_line_is_tagged_where_there_are_several_hosts(voice, out):
    voice.tagged = True
    voice.say("one\ntwo", "ec2")
    voice.say("", "ec2")
    voice.say("about all")
    assert out.getvalue() == "[ec2] one\n[ec2] two\n[ec2] \nabout all\n"


@pytest.mark.parametrize("method", ["say", "warn", "fail"])
def test_a_protected_secret_is_never_printed(voice, out, err, method):
    voice.protect("hunter2hunter2", None, "")
    getattr(voice, method)("it is hunter2hunter2, twice: hunter2hunter2")
    assert out.getvalue() + err.getvalue() == "it is ********, twice: ********\n"


def test_a_secret_that_holds_another_one_is_blotted_out_whole(voice):
    for secret in ("abc", "xabcx", "abcabc", "aabcc"):
        voice.protect(secret)
    assert "x" not in voice.redacted("xabcx")
    assert voice.redacted("abcabc") in ("********", "****************")


def test_lines_of_many_threads_never_mix(voice, out):
    voice.tagged = True

    def talk(host: str) -> None:
        for _ in range(50):
            voice.say(host * 20, host)

    threads = [threading.Thread(target=talk, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = out.getvalue().splitlines()
    assert len(lines) == 200
    assert set(lines) == {f"[{name}] {name * 20}" for name in "abcd"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "?[2J?]0;title?"),
        ("a\rb", "a\nb"),
        ("tab\tand é, 日本, 🙂", "tab\tand é, 日本, 🙂"),
        ("right\u202eleft\u2066", "right?left?"),
        ("half a letter \ud83d", "half a letter ?"),
    ],
)
def test_nobody_s_text_gives_orders_to_the_terminal(voice, out, text, shown):
    voice.say(text)
    assert out.getvalue() == f"{shown}\n"


def test_others_text_is_one_line():
    assert printable("name\n✓ all is well\x1b[0m") == "name?✓ all is well?[0m"
    assert len(printable("x" * 1000)) == 500


def test_colour_is_for_terminals_only():
    assert painted("x", "green", io.StringIO()) == "x"
    assert painted("x", "green", Terminal()) == "\x1b[32mx\x1b[0m"
    assert painted("x", None, Terminal()) == "x"


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("x", "red", Terminal()) == "x"


def test_long_work_is_one_plain_line_where_there_is_no_terminal(voice, out):
    with voice.waiting("work"):
        pass
    assert out.getvalue() == "… work\n"


def test_long_work_shows_a_spinner_on_a_terminal(err):
    terminal = Terminal()
    with Console(terminal, err).waiting("work"):
        pass
    assert "work" in terminal.getvalue()
    assert "… work\n" not in terminal.getvalue()


def test_a_spinner_shows_what_is_under_way_just_now(err, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()
    voice = Console(terminal, err)
    voice.protect("password")
    with voice.waiting("install on ec2"):
        voice.now("apt: preparing nginx")
        voice.now("apt: unpacking [bold]nginx password")
    voice.now("it is over")
    shown = terminal.getvalue()
    assert "install on ec2: apt: unpacking [bold]nginx ********" in shown
    assert "password" not in shown.replace("********", "")
    assert "it is over" not in shown
    assert "it is over" not in err.getvalue()


def test_what_is_under_way_is_no_line_where_there_is_no_terminal(voice, out):
    with voice.waiting("work"):
        voice.now("apt: unpacking nginx")
    assert out.getvalue() == "… work\n"


def test_a_step_that_failed_is_not_called_done(voice, out):
    with pytest.raises(ValueError, match="broken"), voice.step("work"):
        raise ValueError("broken")
    assert "✓" not in out.getvalue()


def test_a_step_says_how_long_it_took(voice, out):
    with voice.step("work"):
        pass
    assert out.getvalue().splitlines() == ["… work", "✓ work (0.0 s)"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.44, "0.4 s"), (9.94, "9.9 s"), (12.3, "12 s"), (185, "3 min 05 s"), (3600, "60 min 00 s")],
)
def test_durations_are_spelt_as_people_read_them(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [("y", True), (" YES ", True), ("", False), ("n", False), ("yy", False), ("Ctrl-D", False)],
)
def test_a_question_is_answered_no_by_default(terminal, answer, wanted):
    terminal.append(answer)
    assert confirm("Remove it?", yes=False) is wanted


def test_yes_answers_without_asking(terminal):
    assert confirm("Remove it?", yes=True) is True


def test_what_would_be_lost_is_said_before_the_question(terminal, capsys):
    terminal.append("n")
    confirm("Remove it?", yes=False, consequence="3 runs are lost")
    assert "3 runs are lost" in capsys.readouterr().out


def test_without_a_terminal_and_without_yes_it_refuses():
    with pytest.raises(Exit, match=r"Remove it\?.*--yes"):
        confirm("Remove it?", yes=False)


@pytest.mark.parametrize(
    ("answer", "wanted"), [("prod", True), ("y", False), ("", False), ("Ctrl-D", False)]
)
@pytest.mark.parametrize("yes", [True, False])
def test_a_name_that_is_wanted_has_to_be_typed_whatever_else_is_given(
    terminal, answer, wanted, yes
):
    terminal.append(answer)
    assert confirm("Remove it?", yes, name="prod") is wanted


def test_a_name_that_nobody_can_type_says_how_to_give_it():
    with pytest.raises(Exit, match=r"Remove it\? prod wants its name typed: use prod TASK --yes"):
        confirm("Remove it?", yes=True, name="prod")


# -- what is to be typed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "chosen", "wanted"),
    [
        (None, False, "./fab -H ec2 status"),
        ("staging", True, "./fab -H ec2 use staging status"),
        # Where another one is chosen, or the default, the unnamed one has to be named too.
        (None, True, "./fab -H ec2 use default status"),
    ],
)
def test_what_is_to_be_typed_names_the_environment(monkeypatch, environment, chosen, wanted):
    monkeypatch.setattr(console, "chosen", chosen)
    assert typed("ec2", environment, "status") == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Type: ./fab logs", "Type: ./fab -H ec2 use staging logs"),
        (
            "./fab -H a start, ./fab stop",
            "./fab -H a use staging start, ./fab -H ec2 use staging stop",
        ),
        ("./fab use dev stop", "./fab -H ec2 use dev stop"),
        ("./fab -S x -H a stop", "./fab -S x -H a use staging stop"),
        ("./fab --list", "./fab --list"),
        ("./fab environments", "./fab environments"),
        ("fab is a word", "fab is a word"),
    ],
)  # fmt: skip
def test_a_text_s_commands_are_completed_once(text, wanted):
    assert completed(text, "ec2", "staging") == wanted
    assert completed(wanted, "other", "other") == wanted


def test_a_command_repeats_the_ssh_options_of_this_one(monkeypatch):
    monkeypatch.setattr(console, "ssh_options", "-S 'my hosts' ")
    wanted = "Type: ./fab -S 'my hosts' -H a,b start"
    assert completed("Type: ./fab start", "a,b", None) == wanted
    assert completed(wanted, "c", None) == wanted


def test_what_lines_concern_is_no_part_of_the_answer(voice, out):
    voice.head("staging on ec2:")
    assert out.getvalue() == ""
