"""The host's side of logs: what belongs together, how bad it is, and where it is looked for."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.engine import templates

PROGRAM = templates.programs()["read_log.py"]
NOW = 1_795_519_616
ASKED = {
    "unit": "mlflow-server", "access": False, "follow": False,
    "lines": None, "since": None, "grep": None, "level": None,
}  # fmt: skip


def load() -> Any:
    spec = importlib.util.spec_from_file_location("read_log", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


read_log = load()
LEVELS = ["debug", "info", "warning", "error", "critical"]


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ('2026/11/24 11:26:56 INFO:      - "GET / HTTP/1.1" 200 OK', "info"),
        ("2026/11/24 11:26:35 WARNING mlflow.server.auth: experimental", "warning"),
        ("2026/11/24 11:26:35 ERROR mlflow.server.handlers: Error in _x", "error"),
        ("2026-11-24 11:26:35,123 CRITICAL root: gone", "critical"),
        ("ERROR:    Exception in ASGI application", "error"),
        ("WARNING:  StatReload detected", "warning"),
        ("INFO  [alembic.runtime.migration] Context impl SQLiteImpl.", "info"),
        ("[2026-11-24 11:26:35 +0000] [12] [ERROR] Worker failed", "error"),
        ("Traceback (most recent call last):", "error"),
        ("sqlalchemy.exc.OperationalError: database is locked", "error"),
        ("Error: Invalid value for '--port'", "error"),
        ("/x/start_mlflow_server.sh: line 9: ./server.env: No such file", "error"),
        ("/x/site-packages/a.py:23: StarletteDeprecationWarning: old", "warning"),
        ("no ERROR at the beginning is none", "info"),
        ("INFORMATION is no level", "info"),
        ("", "info"),
    ],
)
def test_a_line_is_as_bad_as_it_says(text, level):
    assert LEVELS[read_log.rank(text, 6, False)] == level


@pytest.mark.parametrize(
    ("text", "priority", "level"),
    [
        ("Started mlflow-server.service.", 6, "info"),
        ("mlflow-server.service: Main process exited, code=killed, status=9/KILL", 5, "info"),
        ("mlflow-server.service: Failed with result 'signal'.", 4, "error"),
        ("Failed to start mlflow-server.service.", 3, "error"),
        ("mlflow-server.service: start request repeated", 4, "warning"),
        ("a panic", 1, "critical"),
    ],
)
def test_systemd_s_lines_have_priorities(text, priority, level):
    assert LEVELS[read_log.rank(text, priority, True)] == level


# -- the journal -------------------------------------------------------------------------------


def record(text: Any, at: float = 0, pid: str = "7", **fields: str) -> str:
    return json.dumps(
        {
            "__CURSOR": f"c{at}", "__REALTIME_TIMESTAMP": str(int((NOW + at) * 1e6)),
            "MESSAGE": text, "_PID": pid, "PRIORITY": "6", "_HOSTNAME": "ec2",
            "SYSLOG_IDENTIFIER": "start.sh", **fields,
        }
    )  # fmt: skip


def journal(*records: str, **asked: Any) -> list[list[str]]:
    request = read_log.Request(**(ASKED | asked))
    log = read_log.Journal(request, read_log.Filter(request))
    for line in records:
        log.take(line)
    return [entry.lines for entry in log.finished()]


ERROR = "2026/11/24 11:26:56 ERROR mlflow: it broke"
TRACE = [
    "Traceback (most recent call last):",
    '  File "x.py", line 1, in f',
    "sqlite3.OperationalError: no such table",
    "The above exception was the direct cause of the following exception:",
    "Traceback (most recent call last):",
    '  File "y.py", line 2, in g',
    "sqlalchemy.exc.OperationalError: no such table",
    "[SQL: SELECT 1",
    "FROM experiments]",
    "(Background on this error at: https://sqlalche.me/e/21/e3q8)",
]
INFO = '2026/11/24 11:26:57 INFO:      - "GET / HTTP/1.1" 500 Internal Server Error'


def test_an_error_and_its_chained_tracebacks_are_one_entry():
    found = journal(*(record(text, n / 1000) for n, text in enumerate([ERROR, *TRACE, INFO])))
    assert found == [[ERROR, *TRACE], [INFO]]


def test_a_traceback_after_a_harmless_line_stands_alone():
    assert journal(record(INFO), record(TRACE[0], 0.001), record(TRACE[1], 0.002)) == [
        [INFO], TRACE[:2],
    ]  # fmt: skip


def test_the_lines_of_several_processes_are_told_apart():
    texts = [(ERROR, "7"), (INFO, "8"), (TRACE[0], "7"), ("  more", "8"), (TRACE[1], "7")]
    found = journal(*(record(text, n / 1000, pid) for n, (text, pid) in enumerate(texts)))
    assert found == [[ERROR, *TRACE[:2]], [INFO, "  more"]]


def test_what_comes_much_later_begins_anew():
    assert journal(record(TRACE[0]), record("a word", 5)) == [[TRACE[0]], ["a word"]]


def test_lines_without_a_level_stand_alone():
    assert journal(record("one"), record("two")) == [["one"], ["two"]]


def test_a_message_of_several_lines_and_of_broken_bytes_is_read():
    assert journal(record("one\n  two"), record([104, 105, 255], 2)) == [
        ["one", "  two"], ["hi\N{REPLACEMENT CHARACTER}"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"level": "error"}, [ERROR]),
        ({"level": "warning"}, [ERROR]),
        ({"level": "info"}, [ERROR, INFO]),
        ({"grep": "IT BROKE"}, []),
        ({"grep": "it broke"}, [ERROR]),
        ({"grep": "internal server"}, [INFO]),
        ({"grep": "background on this"}, [ERROR]),
        ({"grep": "error", "level": "error"}, [ERROR]),
        ({"grep": r"GET /\S* HTTP"}, [INFO]),
    ],
)
def test_entries_are_wanted_as_a_whole(asked, wanted):
    lines = [ERROR, *TRACE, INFO]
    found = journal(*(record(text, n / 1000) for n, text in enumerate(lines)), **asked)
    assert [lines[0] for lines in found] == wanted


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Run the program with a journalctl that has these records, and a systemctl."""

    def run(*records: str, known: bool = True, stdin: bytes = b"", **asked: Any) -> list[Any]:
        (tmp_path / "records").write_text("".join(f"{line}\n" for line in records))
        for name, script in {
            # Only what the program relies on: --lines, and following to the end of the records.
            "journalctl": "for word; do case $word in --lines=*) n=${word#*=};; "
            f"--follow) exec sleep 9;; esac; done\ntail -n ${{n:-+1}} {tmp_path}/records",
            "systemctl": "true" if known else "false",
        }.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
            (tmp_path / name).chmod(0o755)
        done = subprocess.run(
            [sys.executable, PROGRAM, json.dumps(ASKED | asked)],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "TZ": "Asia/Tokyo"},
            input=stdin, capture_output=True, timeout=8,
        )  # fmt: skip
        assert done.stderr == b""
        assert done.returncode == 0
        lines = done.stdout.decode().splitlines()
        return [json.loads(line) if line.startswith("[") else line for line in lines]

    return run


def test_every_line_has_its_time_in_utc_its_host_and_its_program(run):
    assert run(record("one"), record("x\x1b[2Jy", 1.5)) == [
        [NOW * 10**6, ["2026-11-24T11:26:56+0000 ec2 start.sh[7]: one"]],
        [NOW * 10**6 + 1_500_000, ["2026-11-24T11:26:57+0000 ec2 start.sh[7]: x?[2Jy"]],
    ]


def test_the_last_lines_are_whole_entries(run):
    found = run(*(record(text, n / 1000) for n, text in enumerate([INFO, ERROR, *TRACE])), lines=2)
    assert [len(lines) for _, lines in found] == [1 + len(TRACE)]
    assert len(run(*(record(str(n), n * 2) for n in range(9)), lines=3)) == 3


def test_what_matches_is_looked_for_as_far_back_as_it_takes(run):
    rare = record(ERROR, -1, pid="9")
    many = [record(INFO, n / 1000) for n in range(3000)]
    assert len(run(rare, *many, lines=1, level="error")) == 1
    assert len(run(*many, lines=7, grep="get")) == 7


def test_since_is_kept_to_the_microsecond(run):
    records = [record("a", -1.5), record("b", -0.5), record("c", 1)]
    assert len(run(*records, since=NOW - 1)) == 2


def test_a_unit_that_nobody_knows_is_absent(run):
    assert run(known=False) == ["@absent"]
    assert run(known=True) == []
    assert len(run(record("an old line"), known=False)) == 1


def test_following_ends_with_its_input(run):
    assert len(run(record("one"), follow=True)) == 1
    assert len(run(record("one"), follow=True, access=False, stdin=b"\n\n")) == 1


def test_following_ends_where_nothing_is_heard_for_a_while(tmp_path):
    (tmp_path / "journalctl").write_text(
        "#!/bin/bash\ncase $* in *--follow*) echo $$ > pid; exec sleep 30;; esac\n"
    )
    (tmp_path / "systemctl").write_text("#!/bin/bash\n")
    for name in ("journalctl", "systemctl"):
        (tmp_path / name).chmod(0o755)
    program = PROGRAM.read_text().replace("SILENCE = 60", "SILENCE = 1")
    running = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(ASKED | {"follow": True})],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, cwd=tmp_path, stdin=subprocess.PIPE,
    )  # fmt: skip
    with running:
        assert running.wait(8) == 0
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# -- nginx's log -------------------------------------------------------------------------------


def line(status: int, at: str = "11:26:56 +0000", path: str = "/") -> str:
    return f'127.0.0.1 - admin [24/Nov/2026:{at}] "GET {path} HTTP/1.1" {status} 612 "-" "curl"\n'


@pytest.fixture
def access(tmp_path: Path) -> Callable[..., list[str]]:
    """Read a log that lies beside its older parts; returns what is told without the prefix."""

    def access(*files: list[str], **asked: Any) -> list[str]:
        for number, lines in enumerate(files):
            path = str(tmp_path / "x.access.log") + (f".{number}" if number else "")
            packed = number > 1
            with gzip.open(path + ".gz", "wt") if packed else open(path, "w") as stream:
                stream.write("".join(lines))
        request = read_log.Request(**(ASKED | {"access": True} | asked))
        log = read_log.Access(request, read_log.Filter(request))
        log.path = str(tmp_path / "x.access.log")
        return ["".join(entry.lines) for entry in log.past()]

    return access


def test_an_access_keeps_all_but_its_time(access):
    assert access([line(200)]) == ['127.0.0.1 - admin "GET / HTTP/1.1" 200 612 "-" "curl"']


@pytest.mark.parametrize(
    ("level", "wanted"),
    [("error", [502]), ("critical", []), ("warning", [401, 502]), (None, [200, 401, 502])],
)
def test_an_answer_is_as_bad_as_its_status(access, level, wanted):
    found = access([line(200), line(401), line(502), "torn\n"], level=level)
    assert [int(text.split('" ')[1][:3]) for text in found] == wanted


def test_the_time_zone_of_the_log_counts():
    assert read_log.moment("24/Nov/2026:11:26:56 +0000") == NOW * 10**6
    assert read_log.moment("24/Nov/2026:20:26:56 +0900") == NOW * 10**6
    assert read_log.moment("24/Nov/2026:05:56:56 -0530") == NOW * 10**6


def test_what_was_rotated_away_is_read_as_far_as_it_is_asked_for(access):
    files = [
        [line(200, "11:26:56 +0000", "/new")],
        [line(200, "11:26:51 +0000", "/b"), line(200, "11:26:52 +0000", "/c")],
        [line(200, "11:26:50 +0000", "/a")],
    ]

    def told(**asked: Any) -> list[str]:
        return [text.split(" ")[4] for text in access(*files, **asked)]

    assert told(since=NOW - 100) == ["/a", "/b", "/c", "/new"]
    assert told(since=NOW - 4) == ["/c", "/new"]
    assert told(lines=1) == ["/new"]
    assert told(lines=3) == ["/b", "/c", "/new"]


def test_following_goes_on_in_the_new_file_after_a_rotation(tmp_path):
    request = read_log.Request(**(ASKED | {"access": True}))
    log = read_log.Access(request, read_log.Filter(request))
    path = tmp_path / "x.access.log"
    log.path = str(path)
    path.write_text(line(200, path="/old"))
    log.watch()
    whole = line(200, path="/torn")

    def news() -> list[str]:
        return [entry.lines[0].split(" ")[4] for entry in log.news([])]

    with path.open("a") as stream:
        stream.write(whole[:20])
        stream.flush()
        assert news() == []
        stream.write(whole[20:])
    path.rename(tmp_path / "x.access.log.1")
    path.write_text(line(200, path="/new"))
    assert [*news(), *news()] == ["/torn", "/new"]
