"""How a change runs on a host: its lock, its audit line, its end; by bash itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from typing import IO

import pytest
from host_side import HOST, Machine

from tasks.engine.change import Change, bundle
from tasks.engine.templates import source


@pytest.mark.parametrize("script", sorted(HOST.glob("*.sh")), ids=lambda path: path.name)
def test_every_shell_script_is_bash(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_program_is_python_that_an_old_host_understands():
    import ast

    for file in HOST.glob("*.py"):
        ast.parse(file.read_text(), feature_version=(3, 10))


def test_a_change_is_made_and_leaves_an_audit_line(machine):
    assert machine.change('say "in $root"') == ["@say what", f"@say in {machine.root}", "@exit 0"]
    begun, done = machine.lines
    assert begun[1:] == ["me@laptop", "task", "begun"]
    assert done[1:] == ["me@laptop", "task", "done"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", done[0])


def test_nothing_of_a_change_stays_but_what_it_made(machine):
    machine.change('place "$here/secret" "$root/kept" 0640', secret="x")
    assert not machine.staged.exists()
    assert (machine.root / "kept").read_text() == "x"
    assert (machine.root / "kept").stat().st_mode & 0o777 == 0o640
    assert machine.root.stat().st_mode & 0o777 == 0o700
    assert sorted(file.name for file in machine.root.iterdir()) == [".lock", "audit.log", "kept"]


def test_what_a_step_makes_is_closed_to_others(machine):
    machine.change('echo x > "$root/made"')
    assert (machine.root / "made").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("script", "said", "code"),
    [
        ("fail broken", ["@fail broken"], 1),
        ("echo noise >&2; exit 7", ["noise"], 7),
        ("false; say never", [], 1),
        ("false | cat; say never", [], 1),
        ('echo "$not_there"', None, 1),
        ("printf 'no end of line'; exit 3", ["no end of line"], 3),
    ],
)
def test_a_step_that_fails_ends_the_change_and_says_its_code(machine, script, said, code):
    lines = machine.change(script)
    assert lines[-1] == f"@exit {code}"
    assert said is None or lines[1:-1] == said
    assert machine.lines[-1][3] == f"failed ({code})"
    assert not machine.staged.exists()


def test_a_host_that_changed_since_it_was_looked_at_is_left_alone(machine):
    machine.change("true")
    assert machine.change('touch "$root/x"', generation=0) == ["@exit 76"]
    assert not (machine.root / "x").exists()
    assert len(machine.lines) == 2


@contextlib.contextmanager
def held(machine: Machine, session: int) -> Iterator[None]:
    machine.root.mkdir(exist_ok=True)
    with (machine.root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"you@desk\t2026-11-22T10:00:00Z\tinstall\t4711\t{session}\n")
        lock.flush()
        yield


def begun(
    machine: Machine, *words: str, script: str = "true", **environment: str
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Begin a change; returns its process, and what that says."""
    process = subprocess.Popen(
        [*machine.command(0), *words], env=machine.environment | environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(bundle([Change("what", script)]))
    process.stdin.close()
    return process, process.stdout


def test_a_held_lock_says_who_and_since_when_and_nothing_is_done(machine):
    with held(machine, os.getpid()):
        lines = machine.change('touch "$root/x"')
    assert lines == ["@held you@desk\t2026-11-22T10:00:00Z\tinstall\t4711", "@exit 75"]
    assert not (machine.root / "x").exists()
    assert not machine.audit.exists()


@pytest.mark.parametrize(
    ("holder", "patience", "said"),
    [
        (
            "timer",
            "0",
            b"@say the scheduled backup is at work; waiting for it to finish\n@say what",
        ),
        # What a timer begins waits for an operator, without a word.
        ("you@desk", "20", b"@say what"),
    ],
)
def test_timer_and_operator_wait_for_each_other(machine, holder, patience, said):
    with held(machine, os.getpid()), (machine.root / ".lock").open("w") as lock:
        lock.write(f"{holder}\t2026-11-22T10:00:00Z\tbackup\t4711\t{os.getpid()}\n")
        lock.flush()
        process, said_so_far = begun(machine, REMOTE_MLFLOW_PATIENCE=patience)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert not machine.audit.exists()
    assert said_so_far.read() == said + b"\n\n@exit 0\n"
    process.wait()


def test_a_later_step_of_a_chain_waits_its_turn_and_says_for_whom(machine):
    with held(machine, os.getpid()):
        process, said = begun(machine, "20")
        assert said.readline().decode() == (
            "@say install by you@desk is at work since 2026-11-22T10:00:00Z; waiting for it to "
            "finish\n"
        )
        assert not machine.audit.exists()
    assert b"@exit 0" in said.read()
    process.wait()


def test_work_whose_connection_was_lost_is_waited_for(machine):
    gone = subprocess.Popen(["true"])
    gone.wait()
    with held(machine, gone.pid):
        process, said = begun(machine)
        line = said.readline().decode()
        assert line.startswith("@say install by you@desk lost its connection at work; waiting")
    assert b"@exit 0" in said.read()
    process.wait()


def test_the_lock_names_its_holder(machine):
    machine.change("true")
    who, _, task, pid, session = (machine.root / ".lock").read_text().split("\t")
    assert (who, task) == ("me@laptop", "task")
    assert pid.isdigit()
    assert session.strip().isdigit()


def test_a_change_goes_on_to_its_end_although_nobody_reads_any_more(machine):
    script = 'say begun; for n in $(seq 2000); do echo "noise $n"; done; touch "$root/end"'
    process, said = begun(machine, script=script)
    said.readline()
    said.close()
    process.wait(timeout=20)
    assert (machine.root / "end").exists()
    assert machine.lines[-1][3] == "done"


def test_a_look_leaves_no_trace_and_waits_for_nobody(machine):
    (machine.root).mkdir()
    with (machine.root / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = subprocess.run(
            ["bash", "-c", source("receive.sh"), "remote-mlflow", "look.sh", str(machine.root)],
            input=bundle([Change("a question", 'echo "@report $(cat "$here/secret")"',
                                 {"secret": "42"})], "look.sh"),
            env=machine.environment, capture_output=True, timeout=20,
        )  # fmt: skip
    assert done.stdout.decode().split("\n") == ["@report 42", "", "@exit 0", ""]
    assert not machine.audit.exists()
    assert not machine.staged.exists()


def test_a_bundle_that_was_cut_short_changes_nothing(machine):
    whole = bundle([Change("what", 'touch "$root/x"', {"big": "x" * 100_000})])
    done = subprocess.run(
        machine.command(0), input=whole[:60_000], env=machine.environment, capture_output=True
    )
    assert done.returncode != 0
    assert b"@exit 0" not in done.stdout
    assert not machine.root.exists()


def test_no_secret_of_a_change_stands_in_the_process_list(machine):
    # The pattern does not match itself, as it stands in the command line of the search.
    search = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'hidden[-]word'"
    told = f"if {search}; then say told; else say untold; fi"
    assert machine.change(told, login="hidden-word")[1] == "@say untold"
    careless = "(exec -a hidden-word sleep 9) > /dev/null 2>&1 & until " + search + "; do :; done\n"
    assert machine.change(f"set +o pipefail; {careless}{told}; kill $!")[1] == "@say told"
