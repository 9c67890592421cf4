"""Logs of real journals: of two hosts as one, found by level and time, and nothing left behind."""

from __future__ import annotations

import re
import shlex
import signal
import time
from collections.abc import Callable

import pytest
from lab import UNIT, Done, Host
from waiting import until

TRACE = """2026/11/24 10:00:00 ERROR mlflow.server: e2e broke
Traceback (most recent call last):
  File "e2e.py", line 1, in f
e2e.Error: told so"""


# journald takes root's word for it that a record concerns another process.
WRITE = """
import socket, sys
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.connect("/run/systemd/journal/socket")
for line in sys.stdin.read().splitlines():
    journal.send(("MESSAGE=%s\\nPRIORITY=6\\nOBJECT_PID=%s\\n" % (line, sys.argv[1])).encode())
"""


def write(host: Host, text: str) -> None:
    """Have lines in the unit's journal, one record each, as the server's output would be."""
    host.python(WRITE, host.unit(UNIT, "MainPID"), stdin=text)


def told(host: Host, *options: str, aim: tuple[str, ...] | None = None, code: int = 0) -> Done:
    """Run logs to its end; unlike all else that ./fab prints, a log may hold a traceback."""
    with host.start("logs", *options, aim=aim) as working:
        done = working.done()
    assert done.code == code, done
    return done


def ask(host: Host, path: str) -> None:
    host.run(f"curl -s -u :nobody -o /dev/null http://127.0.0.1:5000{path}")


def followers(host: Host) -> list[str]:
    return [line for line in host.sessions() if re.search(r"journalctl|python3|sudo|tail", line)]


def test_an_error_is_found_by_its_level_with_its_traceback(host: Host) -> None:
    write(host, TRACE)
    write(host, "2026/11/24 10:00:01 INFO e2e goes on")
    write(host, "2026/11/24 10:00:01 WARNING e2e wonders")
    lines = told(host, "--level", "error", "--since", "1m").out.splitlines()
    assert [line.split("]: ", 1)[1] for line in lines[-4:]] == TRACE.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000 ", line) for line in lines)
    assert "e2e wonders" in told(host, "--level", "warning", "--lines", "1").out
    assert "e2e broke" in told(host, "--grep", "told so", "--lines", "1").out
    assert told(host, "--grep", "no line says this").out == "-- no entries --\n"


def test_what_the_unit_itself_suffers_is_an_error(host: Host) -> None:
    pid = host.unit(UNIT, "MainPID")
    assert int(pid) > 1  # kill 0 would end the tests themselves
    host.run(f"kill -9 {pid}")
    until(lambda: host.status("/health") == 200, "the server answers")
    assert "Failed with result 'signal'" in told(host, "--level", "error").out


def test_since_counts_back_on_the_host_s_clock(host: Host) -> None:
    write(host, "2026/11/24 10:00:00 INFO e2e before")
    time.sleep(3)
    write(host, "2026/11/24 10:00:00 INFO e2e after")
    out = told(host, "--since", "3s").out
    assert "e2e after" in out
    assert "e2e before" not in out
    assert "e2e before" in told(host, "--since", "10 minutes").out
    assert "e2e before" in told(host, "--since", "today").out
    assert told(host, "--since", "2100-01-01").out == "-- no entries --\n"


def test_the_access_log_tells_who_asked_for_what_but_no_password(host: Host) -> None:
    user, password = host.login()
    ask(host, "/e2e-before")
    log = f"/var/log/nginx/{UNIT}.access.log"
    host.run(f"mv {log} {log}.1; nginx -s reopen; sleep 0.5")  # as logrotate does
    ask(host, "/e2e-401")
    host.status("/e2e-authorised", (user, password))
    host.fab("stop")
    ask(host, "/e2e-502")
    assert "/e2e-" not in told(host, "--since", "5m", "--grep", "e2e").out
    out = told(host, "--access", "--since", "5m").out
    assert re.search(r"\+0000 \S+ nginx: 127\.0\.0\.1 - - \"GET /e2e-401 HTTP/1\.1\" 401", out)
    assert f"- {user} " in out
    assert "/e2e-before" in out
    assert password not in out
    assert "Basic " not in out
    (line,) = told(host, "--access", "--level", "error", "--since", "20s").out.splitlines()
    assert "/e2e-502" in line
    (line,) = told(host, "--access", "--grep", "e2e-4", "--lines", "1").out.splitlines()
    assert "/e2e-401" in line


@pytest.mark.parametrize(
    ("options", "because"),
    [
        (("--since", "yesterdayish"), "--since 'yesterdayish' is neither"),
        (("--grep", "("), "--grep '(' is no pattern"),
        (("--level", "loud"), "--level is 'loud'"),
        (("--lines", "0"), "--lines is '0'"),
        (("--lines=-3",), "--lines is '-3'"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    host: Host, options: tuple[str, ...], because: str
) -> None:
    done = host.refused("logs", *options, because=(because,))
    assert done.err.count("\n") == 1


def test_two_hosts_are_read_and_followed_as_one(host: Host, blank: Host) -> None:
    both = ("-S", str(host.lab.ssh_config), "-H", f"{host.alias},{blank.alias}")
    done = told(host, aim=both, code=1)
    assert f"[{blank.alias}] There is no server on {blank.alias} yet" in done.err
    blank.run("ln -sf /usr/share/zoneinfo/Asia/Tokyo /etc/localtime")
    script = shlex.quote("while sleep 1; do echo INFO tick; done")
    blank.run(f"systemd-run -q --unit={UNIT} bash -c {script}")
    until(lambda: "tick" in told(blank).out, "the other host writes")
    # What others wrote may be a traceback, of which the oldest entry would show more than its part.
    write(host, "INFO e2e earlier\n" * 12)
    for n in range(3):
        write(host, f"INFO e2e {n}")
        time.sleep(0.7)
    lines = told(host, "--lines", "12", aim=both).out.splitlines()
    times = [line.split("] ")[1][:24] for line in lines]
    assert times == sorted(times)
    assert {line.split("]")[0] for line in lines} == {f"[{host.alias}", f"[{blank.alias}"}
    assert len(lines) == 12

    def leave(how: Callable[[], None]) -> None:
        how()
        until(lambda: not followers(host) + followers(blank), "nothing runs on the hosts", 10)

    with host.start("logs", "--follow", "--level", "info", aim=both) as following:
        until(lambda: "tick" in following.so_far, "a first line")
        write(host, "INFO e2e live")
        until(lambda: "e2e live" in following.so_far, "a line as it comes", 5)
        assert followers(host)
        leave(lambda: following.send(signal.SIGINT))
        done = following.done(timeout=10)
    assert "Traceback" not in done.err
    assert done.err == ""
    assert done.code == 130
    with host.start("logs", "--follow", aim=both) as following:
        until(lambda: "tick" in following.so_far, "a first line")
        leave(following.kill)


@pytest.mark.parametrize("option", [(), ("--access",)], ids=["journal", "access"])
def test_following_ends_on_ctrl_c_and_leaves_nothing_running_on_the_host(
    host: Host, option: tuple[str, ...]
) -> None:
    happens = ask if option else write
    happens(host, "/e2e-first")
    with host.start("logs", "--follow", *option) as following:
        until(lambda: following.so_far, "a first line")
        happens(host, "/e2e-live")
        until(lambda: "/e2e-live" in following.so_far, "a line as it comes", 5)
        following.send(signal.SIGINT)
        done = following.done(timeout=10)
    assert "Traceback" not in done.err
    assert done.code == 130
    until(lambda: not followers(host), "nothing runs on the host any more", 10)
