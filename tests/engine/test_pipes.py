"""`fab logs | head -1` ends quietly, and on a full disk with the reason, in whichever thread."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tasks.engine import paths
from tasks.engine.pipes import UNREAD

FABFILE = str(paths.PROJECT / "fabfile.py")

# Prints without end in another thread, as a task on several hosts does.
FOLLOWING = """
import concurrent.futures
from tasks.engine.pipes import ending_where_output_fails

def follow():
    for number in range(100_000):
        print(number, flush=True)

with ending_where_output_fails(), concurrent.futures.ThreadPoolExecutor() as pool:
    try:
        pool.submit(follow).result()
    except KeyboardInterrupt:
        raise SystemExit("as after Ctrl-C")
raise SystemExit("to the end")
"""


def unread(*words: str, read: bool = False) -> tuple[int, str]:
    """Run Python with nobody who reads its output, or its first line; return exit and stderr."""
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=paths.PROJECT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    if read:
        process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    return process.wait(), said


@pytest.mark.parametrize(
    "option", ["--list", "--help", "--version", "--print-completion-script=zsh"]
)
def test_a_list_that_nobody_reads_ends_quietly(option):
    assert unread(FABFILE, option) == (UNREAD, "")


def test_plain_fab_says_nothing_where_nobody_reads_its_list():
    script = "import sys; sys.argv[0] = 'fab'; from fabric.main import program; program.run()"
    assert unread("-c", script, "--list")[1] == ""


def test_what_follows_in_a_thread_ends_once_its_reader_has_gone():
    assert unread("-c", FOLLOWING, read=True) == (UNREAD, "")


# As a task that is ended by Ctrl-C and has something to do and say then.
ENDED_BY_CTRL_C = """
from tasks.engine.pipes import ending_where_output_fails
with ending_where_output_fails():
    try:
        print("open", flush=True)
    except KeyboardInterrupt:
        print("closed")
"""


@pytest.mark.parametrize("words", [(FABFILE, "--list"), ("-c", FOLLOWING), ("-c", ENDED_BY_CTRL_C)])
def test_a_full_disk_is_said_and_ends_what_prints(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, *words], stdout=full, stderr=subprocess.PIPE, text=True,
            cwd=paths.PROJECT,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        "What a command prints could not be written (No space left on device), and it was stopped "
        "there. Make room, or have it print elsewhere; then run the same command again.\n",
    )


def test_an_error_is_shown_though_output_fails_as_well():
    program = "from tasks.engine.pipes import ending_where_output_fails\n"
    program += "with ending_where_output_fails():\n    print('x')\n    raise ValueError('boom')"
    assert "ValueError: boom" in unread("-c", program)[1]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">/dev/full 2>&-"])
@pytest.mark.parametrize("typed", ["--list", "nosuch"])
def test_where_a_stream_is_closed_there_is_no_traceback(closed, typed):
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {closed}', "x", sys.executable, FABFILE, typed],
        capture_output=True, text=True, cwd=paths.PROJECT,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == (1 if typed == "nosuch" or "full" in closed else 0)


def test_a_pipe_that_does_not_wait_is_waited_for():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    program = "from tasks.engine.pipes import ending_where_output_fails\n"
    program += "with ending_where_output_fails():\n    print('x' * 1_000_000)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True,
        cwd=paths.PROJECT,
    ) as process:  # fmt: skip
        os.close(writing)
        time.sleep(0.5)  # it has filled the pipe by then, most likely
        with open(reading) as stream:
            assert stream.read() == "x" * 1_000_000 + "\n"
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait()) == ("", 0)


def test_an_exit_code_and_what_was_said_are_kept_where_somebody_reads():
    program = "from tasks.engine.pipes import ending_where_output_fails\n"
    program += "with ending_where_output_fails():\n    print('ä')\n    raise SystemExit(3)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=paths.PROJECT
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "ä\n", "")
