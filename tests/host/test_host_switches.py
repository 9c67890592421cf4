"""restore.sh, upgrade.sh and rollback.sh: the new state serves, or the former does again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from host_side import execute, rows, tracking_database
from stand_ins import SETTINGS, blank, deployed
from switch_side import PARTS, Place, wholly

from tasks.changes.backup import verifying
from tasks.changes.files import start_script
from tasks.changes.switch import switching
from tasks.changes.upgrade import rolling_back
from tasks.engine.facts import READY
from tasks.engine.templates import source, staged

# Starts what the unit would start, notes what that serves, and counts restarts of what is bad.
SYSTEMCTL = """
echo "$*" >> "{folder}/systemctl"
case "$*" in
  show*) wc -l < "{folder}/restarts"; echo >> "{folder}/restarts" ;;
  "start "*) "{root}/start_mlflow_server.sh" > "{folder}/served" ;;
  *is-active*) exit 3 ;;
esac
"""


@pytest.fixture
def host(place: Place) -> Place:
    """A server that runs, until somebody switches it; what is called bad does not answer."""
    machine, folder = place.machine, place.machine.folder
    machine.stub("systemctl", SYSTEMCTL.format(folder=folder, root=place.root))
    machine.stub("curl", f'! grep -q "bad" "{folder}/served"')
    machine.stub("journalctl", "echo 'sqlite3.OperationalError: no such table'")
    machine.stub("sudo", 'shift; exec "$@"')
    for name in ("sync", "sleep"):
        machine.stub(name)
    (folder / "restarts").touch()
    shutil.copytree(place.root / "releases/new", place.root / "releases/bad")
    (place.root / "mlflow.db-wal").unlink()
    for release in (place.root / "releases").iterdir():
        (release / ".complete").touch()
    return place


OLD = wholly("old", tuple(part for part in PARTS if part != "mlflow.db-wal"))


def served(host: Place) -> dict[str, str]:
    text = (host.machine.folder / "served").read_text(errors="replace")
    return dict(line.split("=", 1) for line in text.split("\n") if "=" in line)


def left(host: Place) -> set[str]:
    """What a change leaves beside the state, the lock and the log."""
    ours = {*PARTS, READY, "releases", ".lock", ".hold", "audit.log"}
    return set(os.listdir(host.root)) - ours


def aside(host: Place) -> list[str]:
    """The former states that are kept, the oldest first."""
    folder = host.root / "former"
    return sorted(os.listdir(folder)) if folder.exists() else []


def about(host: Place, name: str) -> dict[str, object]:
    return json.loads((host.root / "former" / name / "about.json").read_text())


def failure(lines: list[str]) -> str:
    assert lines[-1] == "@exit 1"
    return [line for line in lines if line.startswith("@fail ")][-1]


# -- restore -----------------------------------------------------------------------------------


def restore(host: Place) -> list[str]:
    return host.machine.change(f"unit=mlflow-server\n{switching()}\n{source('restore.sh')}")


RESTORED = ("mlflow.db", "basic_auth.db", "server.env", ".server-id")


def test_a_restore_serves_what_was_restored_and_keeps_what_was_there(host):
    host.build(parts=RESTORED)
    lines = restore(host)
    assert lines[-1] == "@exit 0"
    assert served(host) == OLD | wholly("new", RESTORED)
    (name,) = aside(host)
    assert host.former(name) == {*RESTORED, "about.json"}
    assert about(host, name) == {"task": "restore", "release": "old", "databases": True}
    assert f"the former databases are kept in {host.root}/former/{name}" in lines[-2]
    assert left(host) == {"former"}


def test_nothing_is_moved_before_the_server_has_stopped(host):
    host.build(parts=RESTORED)
    moved = f'[ "$(cat "{host.root}/mlflow.db")" = old ] || echo moved >> "{host.machine.folder}/x"'
    stub = host.machine.folder / "bin/systemctl"
    stub.write_text(stub.read_text() + f'\ncase "$*" in stop*) {moved} ;; esac\n')
    assert restore(host)[-1] == "@exit 0"
    calls = (host.machine.folder / "systemctl").read_text().splitlines()
    assert [call for call in calls if call.startswith(("stop", "start"))] == [
        "stop mlflow-server.service",
        "start mlflow-server.socket nginx",
        "start mlflow-server.service",
    ]
    assert not (host.machine.folder / "x").exists()


def test_restored_databases_that_do_not_serve_are_taken_back(host):
    host.build("bad", RESTORED)
    lines = restore(host)
    assert failure(lines) == (
        "@fail The server does not start: sqlite3.OperationalError: no such table. "
        "See the whole: ./fab logs"
    )
    assert "@say the former state serves again, with all data" in lines
    assert served(host) == OLD
    (failed,) = aside(host)
    assert failed.endswith("Z-failed"), "what it may have acknowledged is kept"
    assert about(host, failed)["task"] == "return"
    assert left(host) == {"former"}
    assert host.machine.lines[-1][3] == "failed (1)"


def test_a_server_that_systemd_sees_end_at_once_is_said_not_to_start_like_any_other(host):
    stub = host.machine.folder / "bin/systemctl"
    stub.write_text(f'{stub.read_text()}\ncase "$*" in start*.service) exit 1 ;; esac\n')
    host.build("bad", RESTORED)
    lines = restore(host)
    assert failure(lines).startswith("@fail The server does not start: sqlite3.OperationalError")
    assert served(host) == OLD


def test_a_server_that_ends_without_a_word_is_said_not_to_start(host):
    host.machine.stub("journalctl", "echo Started.")
    host.build("bad", RESTORED)
    assert failure(restore(host)) == (
        "@fail The server does not start: no error in its log. See the whole: ./fab logs"
    )


def test_a_server_that_never_made_a_backup_does_not_keep_the_id_of_a_set_that_failed(host):
    """Two servers of one id would thin out each other's backups."""
    (host.root / ".server-id").unlink()
    host.build("bad", RESTORED)
    restore(host)
    assert re.fullmatch("[0-9a-f]{8}\n", (host.root / ".server-id").read_text())
    assert served(host)["mlflow.db"] == "old"
    assert left(host) == {"former"}


def test_a_server_that_cannot_be_stopped_is_left_as_it_is(host):
    host.build(parts=RESTORED)
    stub = host.machine.folder / "bin/systemctl"
    stub.write_text(stub.read_text() + '\ncase "$*" in stop*) exit 1 ;; esac\n')
    assert restore(host)[-1] == "@exit 1"
    assert served(host) == OLD
    assert left(host) == set()


# -- upgrade -----------------------------------------------------------------------------------

# What plays migrate.py: `folder` is where the copies are.
PLAYED = """import os, sqlite3, sys
folder = sys.argv[1].removeprefix("folder=")
"""
MIGRATED = (
    PLAYED
    + """
with sqlite3.connect(folder + "/mlflow.db") as base:
    base.execute("update alembic_version set version_num = 'r2'")
print('@report {"migrated": ["mlflow.db"], "seconds": 0.1}')
"""
)
SAME = """print('@report {"migrated": [], "seconds": 0.1}')"""
BROKEN = """print("@fail it broke"); raise SystemExit(1)"""


def upgrade(host: Place, release: str = "new", migrate: str = SAME) -> list[str]:
    """Rehearse and switch; `migrate` is what plays migrate.py."""
    words = f"unit=mlflow-server release={release} current=old store=sqlite well=digest"
    steps = (
        f"{words} python={sys.executable}",
        switching(),
        source("rehearse.sh"),
        source("upgrade.sh"),
    )
    files = staged("rehearse.py", "aside.py") | {
        "start": start_script(SETTINGS, blank(release=release)).text,
        "migrate.py": migrate,
        "try_server.py": """print('@report {"seconds": 0.1, "run": null}')""",
    }
    return host.machine.change("\n".join(steps), **files)


@pytest.fixture
def sound(host: Place) -> Place:
    """That server with databases that can be read."""
    for name in ("mlflow.db", "basic_auth.db"):
        (host.root / name).unlink()
        tracking_database(host.root / name)
    return host


def revision(folder: Path) -> str:
    return rows(folder / "mlflow.db", "select version_num from alembic_version")[0][0]


def runs(folder: Path) -> int:
    return rows(folder / "mlflow.db", "select count(*) from runs")[0][0]


def inodes(folder: Path) -> dict[str, int]:
    """Tell one file from another that only looks the same."""
    return {name: os.lstat(folder / name).st_ino for name in OLD if name in os.listdir(folder)}


def calls(host: Place) -> list[str]:
    lines = (host.machine.folder / "systemctl").read_text().splitlines()
    return [line.split()[0] for line in lines if re.match(r"(start|stop) \S+\.service$", line)]


def test_a_release_that_reads_the_same_databases_is_a_switch_of_the_release_alone(sound):
    before = inodes(sound.root)
    assert upgrade(sound)[-1] == "@exit 0"
    changed = {"venv", "start_mlflow_server.sh"}
    now = inodes(sound.root)
    assert {name for name in before if now[name] != before[name]} == changed
    assert os.readlink(sound.root / "venv") == "releases/new"
    (name,) = aside(sound)
    assert name.endswith("Z-old")
    assert sound.former(name) == {*changed, "about.json"}
    assert about(sound, name) == {"task": "upgrade", "release": "old", "databases": False}
    assert (sound.root / ".well").read_text() == "digest\n"
    assert left(sound) == {"former", ".well"}
    assert calls(sound) == ["stop", "start"]


def test_a_release_that_does_not_start_gives_way_to_the_former(sound):
    before = inodes(sound.root)
    lines = upgrade(sound, "bad")
    assert failure(lines).startswith("@fail The server does not start: sqlite3.OperationalError")
    assert "@say the former state serves again, with all data" in lines
    assert served(sound)["venv"] == "old"
    del before["start_mlflow_server.sh"]  # copied aside, so that it is there at every moment
    assert before.items() <= inodes(sound.root).items()
    assert (aside(sound), left(sound)) == ([], {"former"})


def test_databases_are_migrated_while_the_server_is_stopped_and_switched_with_it(sound):
    before = inodes(sound.root)
    assert upgrade(sound, migrate=MIGRATED)[-1] == "@exit 0"
    former = sound.root / "former" / aside(sound)[0]
    assert (revision(sound.root), revision(former)) == ("r2", "r1")
    assert inodes(former)["mlflow.db"] == before["mlflow.db"], "moved, not copied"
    assert (runs(sound.root), runs(former)) == (3, 3)
    assert about(sound, former.name)["databases"] is True
    assert os.readlink(sound.root / "venv") == "releases/new"
    assert calls(sound) == ["stop", "start"]


def test_a_rehearsal_that_fails_never_stops_the_server(sound):
    before = inodes(sound.root)
    lines = upgrade(sound, migrate=BROKEN)
    assert lines[-2:] == ["@fail it broke", "@exit 1"]
    assert not (sound.machine.folder / "systemctl").exists() or calls(sound) == []
    assert (inodes(sound.root), left(sound), revision(sound.root)) == (before, set(), "r1")


SECOND = (
    PLAYED
    + f"""
rehearsed = os.path.dirname(folder) + "/rehearsed"
if os.path.exists(rehearsed):
    {BROKEN}
open(rehearsed, "w").close()
"""
)


def test_a_migration_that_fails_after_its_rehearsal_changes_nothing(sound):
    before = inodes(sound.root)
    lines = upgrade(sound, migrate=SECOND + MIGRATED)
    assert failure(lines) == "@fail it broke"
    assert "@say the former state serves again, with all data" in lines
    assert served(sound)["venv"] == "old"
    assert calls(sound) == ["stop", "start"]
    assert (inodes(sound.root), left(sound), revision(sound.root)) == (before, {"rehearsed"}, "r1")


def test_a_migrated_release_that_does_not_start_gives_way_with_its_databases(sound):
    upgrade(sound, "bad", MIGRATED)
    assert (revision(sound.root), runs(sound.root)) == ("r1", 3)
    assert os.readlink(sound.root / "venv") == "releases/old"
    (failed,) = aside(sound)
    assert revision(sound.root / "former" / failed) == "r2"
    assert left(sound) == {"former"}


def test_what_a_reader_keeps_in_the_log_is_upgraded_as_well(sound):
    """A stream to the bucket reads all the time: the log cannot be folded into the file."""
    file = sound.root / "mlflow.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from runs").fetchall()
        execute(file, "insert into runs values ('late', 2000, 'active')")
        assert upgrade(sound, migrate=MIGRATED)[-1] == "@exit 0"
    assert (runs(sound.root), runs(sound.root / "former" / aside(sound)[0])) == (4, 4)


def test_an_upgrade_without_room_for_its_copies_says_how_much_it_needs(
    sound, run_program, monkeypatch
):
    space = shutil.disk_usage("/")._replace(free=50_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: space)
    folder, migrates = sound.root / "next.part", sound.root / "migrates"
    done = run_program("rehearse.py", root=sound.root, folder=folder, migrates=migrates)
    assert done == (
        1,
        "@fail Copies of the databases need 100 MB of room on the host, and 50 are free. Free "
        "some, then run the same command again.\n",
    )
    assert left(sound) == set()


# -- what is kept ------------------------------------------------------------------------------


def keep(host: Place, name: str, task: str, release: str) -> None:
    folder = host.root / "former" / name
    folder.mkdir(parents=True)
    (folder / "about.json").write_text(f'{{"task": "{task}", "release": "{release}"}}')
    made = host.root / "releases" / release
    made.mkdir(exist_ok=True)
    (made.with_name(f"{release}.txt")).write_text("lock")


def test_of_each_task_two_former_states_stay_and_the_releases_that_they_need(sound):
    host = sound
    keep(host, "20250101T000000Z-1.0.0-a", "upgrade", "1.0.0-a")
    keep(host, "20250201T000000Z-2.0.0-b", "upgrade", "2.0.0-b")
    keep(host, "20250202T000000Z", "restore", "1.5.0-c")
    keep(host, "20250203T000000Z", "restore", "2.0.0-b")
    keep(host, "20250204T000000Z", "restore", "2.0.0-b")
    keep(host, "20250205T000000Z-2.0.0-b", "rollback", "2.0.0-b")
    keep(host, "20250101T000000Z-guide-2.22.1", "adopt", "2.22.1-guide")
    (host.root / "releases/bad").rename(host.root / "releases/unused")
    assert upgrade(host)[-1] == "@exit 0"
    assert aside(host)[:-1] == [
        "20250101T000000Z-guide-2.22.1",
        "20250201T000000Z-2.0.0-b",
        "20250203T000000Z",
        "20250204T000000Z",
        "20250205T000000Z-2.0.0-b",
    ]
    assert about(host, aside(host)[-1])["release"] == "old"
    assert set(os.listdir(host.root / "releases")) == {
        *("2.0.0-b", "2.0.0-b.txt", "old", "new"),
        *("2.22.1-guide", "2.22.1-guide.txt"),
    }


# -- rollback ----------------------------------------------------------------------------------


def rollback(host: Place, name: str, release: str = "old") -> list[str]:
    former = {"name": name, "task": about(host, name)["task"], "release": release}
    change = rolling_back(SETTINGS, deployed(release="new"), former)[-1]
    return host.machine.change(change.script, **change.files)


def test_a_rollback_serves_the_former_state_and_keeps_what_it_replaced(host):
    host.build()
    assert host.switch("switch upgrade before")
    lines = rollback(host, "before")
    assert lines[-1] == "@exit 0"
    assert served(host) == OLD
    (name,) = aside(host)
    assert about(host, name) == {"task": "rollback", "release": "new", "databases": True}
    assert f"what was replaced is kept in {host.root}/former/{name}" in lines[-2]
    assert len((host.root / ".well").read_text().strip()) == 16


def test_a_former_state_that_does_not_serve_is_put_aside_again(host):
    host.build("bad")
    assert host.switch("switch upgrade first")
    host.build("new")
    assert host.switch("switch upgrade second")
    lines = rollback(host, "second", "bad")
    assert failure(lines).startswith("@fail The server does not start: sqlite3.OperationalError")
    assert "@say the former state serves again, with all data" in lines
    assert served(host) == OLD | wholly("new", tuple(OLD))
    assert aside(host) == ["first", "second"]
    assert host.former("second") == {*OLD, "about.json"}
    assert about(host, "second") == {"task": "upgrade", "release": "bad", "databases": True}


def test_a_rollback_to_what_is_gone_stops_before_the_server_does(host):
    host.build()
    assert host.switch("switch upgrade before")
    shutil.rmtree(host.root / "releases/old")
    assert failure(rollback(host, "before")) == (
        "@fail The release old, which served that state, is no longer here. "
        "Type: ./fab upgrade --to old"
    )
    (host.root / "former/before").rename(host.root / "former/other")
    change = rolling_back(
        SETTINGS, deployed(), {"name": "before", "task": "upgrade", "release": "old"}
    )
    said = host.machine.change(change[-1].script, **change[-1].files)
    assert failure(said) == "@fail The former state before is gone. Type ./fab rollback again."
    assert "stop" not in (host.machine.folder / "systemctl").read_text()


# -- look_at_former.py -------------------------------------------------------------------------


@pytest.fixture
def look_at_former(sound, run_program):
    def look(name: str = "") -> dict[str, Any]:
        code, out = run_program("look_at_former.py", root=sound.root, id=name)
        assert (code, out.startswith("@report ")) == (0, True), out
        return json.loads(out.removeprefix("@report "))

    return look


def put_aside(host: Place, name: str, task: str, runs: int | None) -> Path:
    keep(host, name, task, "old")
    folder = host.root / "former" / name
    given = {"task": task, "release": "old", "databases": runs is not None}
    (folder / "about.json").write_text(json.dumps(given))
    if runs is not None:
        tracking_database(folder / "mlflow.db", runs)
    return folder


def test_the_last_upgrade_or_restore_is_what_a_rollback_gives_back(sound, look_at_former):
    put_aside(sound, "20260101T000000Z-old", "upgrade", None)
    put_aside(sound, "20260102T000000Z", "restore", 1)
    put_aside(sound, "20260103T000000Z-old", "rollback", 2)
    put_aside(sound, "20260102T000000Z-failed", "return", 3)
    (sound.root / "former/20260104T000000Z").mkdir()  # cut off before it was whole
    found = look_at_former()
    replaced = found.pop("replaced")
    assert found == {
        "name": "20260102T000000Z", "task": "restore", "release": "old", "databases": True,
        "runs": 1, "lost": 2,
    }  # fmt: skip
    about = sound.root / "former/20260102T000000Z/about.json"
    assert replaced == int(about.stat().st_mtime)
    assert look_at_former("20260103T000000Z-old")["task"] == "rollback"
    assert "runs" not in look_at_former("20260101T000000Z-old")


def test_only_runs_that_the_former_database_does_not_know_are_lost(sound, look_at_former):
    put_aside(sound, "20260102T000000Z", "restore", 5)
    execute(sound.root / "mlflow.db", "insert into runs values ('late', 2000, 'active')")
    found = look_at_former()
    assert (found["runs"], found["lost"]) == (5, 1)


def test_what_is_only_in_a_former_log_counts(sound, look_at_former):
    folder = put_aside(sound, "20260102T000000Z", "restore", 0)
    with contextlib.closing(sqlite3.connect(sound.root / "mlflow.db")) as base:
        base.execute("insert into runs values ('late', 2000, 'active')")
        base.commit()
        for end in ("", "-wal"):
            shutil.copy(sound.root / f"mlflow.db{end}", folder / f"mlflow.db{end}")
    assert (folder / "mlflow.db-wal").stat().st_size > 0
    assert look_at_former()["runs"] == 4


def test_a_present_database_that_cannot_be_read_does_not_bar_the_way_back(sound, look_at_former):
    put_aside(sound, "20260102T000000Z", "restore", 5)
    (sound.root / "mlflow.db").write_text("this is no database" * 99)
    assert look_at_former()["lost"] is None
    (sound.root / "mlflow.db").unlink()
    assert look_at_former()["lost"] is None
    assert not (sound.root / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("kept", "asked", "said"),
    [
        ((), "", "There is nothing to go back to: no upgrade, restore or adoption was made here."),
        (
            (("20260103T000000Z-old", "rollback"),),
            "",
            "There is nothing to go back to: no upgrade, restore or adoption was made here. "
            "Kept are: 20260103T000000Z-old. Back to one: ./fab rollback --id NAME",
        ),
        ((), "x", "There is no former state x. Kept are: none"),
        (
            (("20260102T000000Z", "restore"), ("20260103T000000Z-old", "rollback")),
            "x",
            "There is no former state x. Kept are: 20260103T000000Z-old, 20260102T000000Z",
        ),
    ],
)
def test_a_state_that_is_not_there_names_those_that_are(sound, run_program, kept, asked, said):
    for name, task in kept:
        put_aside(sound, name, task, 1)
    assert run_program("look_at_former.py", root=sound.root, id=asked) == (1, f"@fail {said}\n")


def test_a_former_database_that_cannot_be_read_is_refused(sound, run_program):
    folder = put_aside(sound, "20260102T000000Z", "restore", None)
    (folder / "about.json").write_text('{"task": "restore", "release": "old", "databases": true}')
    code, out = run_program("look_at_former.py", root=sound.root)
    assert code == 1
    assert out.startswith("@fail The former database of 20260102T000000Z cannot be read: unable")


# -- stop_server -------------------------------------------------------------------------------


def test_a_stopped_server_s_databases_are_one_file_each_and_a_damaged_one_is_left(sound):
    file = sound.root / "mlflow.db"
    (sound.root / "basic_auth.db").write_text("this is no database" * 99)
    script = f"unit=mlflow-server\n{switching()}\nstop_server\n"
    with contextlib.closing(sqlite3.connect(file)) as base:
        base.execute("insert into runs values ('late', 2000, 'active')")
        base.commit()
        assert (sound.root / "mlflow.db-wal").stat().st_size > 0
        assert sound.machine.change(script)[-1] == "@exit 0"
        assert (sound.root / "mlflow.db-wal").stat().st_size == 0
    assert (sound.root / "basic_auth.db").read_text() == "this is no database" * 99


# -- verify_set.sh -----------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "code"), [("exit 0", 0), ("exit 1", 1), ("kill -9 $$", 137)])
def test_what_a_verification_fetched_goes_however_it_ends(host, end, code):
    python = host.root / "releases/old/bin/python"
    python.write_text(f'#!/bin/bash\nmkdir -p "{host.root}/backups/verifying/x"\n{end}\n')
    python.chmod(0o755)
    lines = host.machine.change(verifying(SETTINGS).script)
    assert lines[-1] == f"@exit {code}"
    assert os.listdir(host.root / "backups") == []


# -- databases that other hosts use as well ------------------------------------------------------

SHARED = "postgresql+psycopg2://mlflow@db/mlflow?sslmode=require"


@pytest.fixture
def closed(host: Place) -> Place:
    """That server, after a task was cut off that had closed its database to others."""
    host.machine.stub("psql", f'printf "%s\\n" "$@" >> "{host.machine.folder}/psql"')
    (host.root / ".closed").write_text(SHARED + "\n")
    return host


OPENED = (
    "-qwX", "postgresql://mlflow@db/postgres?sslmode=require",
    "-c", 'alter database "mlflow" connection limit -1',
)  # fmt: skip


def opened(host: Place) -> tuple[str, ...]:
    return tuple((host.machine.folder / "psql").read_text().splitlines())


def test_what_a_cut_off_task_closed_is_open_before_the_server_starts(closed):
    assert closed.start() == OLD
    assert opened(closed) == OPENED
    assert not (closed.root / ".closed").exists()


def test_the_next_change_opens_it_as_well(closed):
    assert closed.machine.change("say well")[-1] == "@exit 0"
    assert opened(closed) == OPENED
    assert not (closed.root / ".closed").exists()


def test_a_server_does_not_start_on_a_database_that_it_could_not_open(closed):
    closed.machine.stub("psql", "exit 2")
    assert subprocess.run(closed.root / "start_mlflow_server.sh", check=False).returncode == 2
    assert (closed.root / ".closed").exists()


def test_what_a_new_state_replaced_stays_closed(closed):
    closed.build()
    assert closed.switch()
    assert not (closed.root / ".closed").exists()
    assert not (closed.machine.folder / "psql").exists()
