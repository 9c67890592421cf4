"""A switch of the server's state, cut off anywhere: old or new is served, never both."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess

import pytest
from switch_side import NAME, PARTS, wholly

from tasks.engine.templates import source


@pytest.fixture(params=["databases in root", "databases in data"])
def place(place, request):
    if request.param == "databases in data":
        assert place.ready("data")
        assert place.start() == wholly("old")
    return place


def test_a_switch_makes_the_new_state_the_one_that_is_served(place):
    place.build()
    assert place.start() == wholly("old")
    assert place.switch()
    assert place.start() == wholly("new")
    about = json.loads((place.root / "former" / NAME / "about.json").read_text())
    assert about == {"task": "upgrade", "release": "old", "databases": True}
    assert place.former() == {*PARTS, "about.json"}
    assert {"next", "next.part", "next.done"}.isdisjoint(os.listdir(place.root))


def test_a_switch_cut_off_after_any_step_serves_the_old_or_the_new_state_never_both(place):
    place.build()
    served = []
    for left, one in place.copies():
        ended = one.switch(left=left)
        begun = ended or any((one.root / name).exists() for name in ("next", "next.done"))
        assert one.start() == wholly("new" if begun else "old"), f"cut off after {left} steps"
        assert begun == ((one.root / "former" / NAME).exists())
        if begun:
            assert one.former() == {*PARTS, "about.json"}, f"cut off after {left} steps"
            assert {"next", "next.part"}.isdisjoint(os.listdir(one.root))
        served.append(begun)
        if ended:
            break
    assert served == sorted(served), "once begun it is never taken back"
    assert served.count(False) >= 3
    assert served.count(True) > 2 * len(PARTS)


@pytest.mark.parametrize("budget", [3, 4, 7])
def test_a_switch_that_is_cut_off_again_and_again_comes_to_its_end(place, budget):
    place.build()
    place.switch(left=4)
    assert (place.root / "next").exists()
    starts = []
    while not starts or starts[-1] is None:
        starts.append(place.start(left=budget))
        assert len(starts) < 100
    assert starts[-1] == wholly("new")
    assert len(starts) > 3
    assert place.former() == {*PARTS, "about.json"}


def test_a_log_is_never_left_beside_a_database_that_did_not_write_it(place):
    for end in ("-wal", "-shm", "-journal"):
        for name in ("mlflow.db", "basic_auth.db"):
            (place.databases / f"{name}{end}").write_text("old")
    place.build(parts=("mlflow.db", "basic_auth.db"))
    assert place.switch()
    left = {path.name for path in place.databases.glob("*.db*")}
    assert {path.name for path in place.root.glob("*.db*")} == left
    assert left == {"mlflow.db", "basic_auth.db"}
    assert {"mlflow.db-wal", "mlflow.db-shm", "basic_auth.db-journal"} <= place.former()


def test_what_a_new_state_does_not_bring_stays(place):
    place.build(parts=("venv", "start_mlflow_server.sh"))
    assert place.switch()
    assert place.start() == wholly("old") | {"venv": "new", "start_mlflow_server.sh": "new"}
    about = json.loads((place.root / "former" / NAME / "about.json").read_text())
    assert about["databases"] is False


def test_what_cannot_be_put_aside_is_never_overwritten(place):
    (place.root / "former").write_text("in the way")
    place.build()
    words = f'set -euo pipefail; root="{place.root}" unit=mlflow-server here=/nowhere'
    script = "\n".join((words, source("settle.sh"), source("tidy.sh"), source("switch.sh")))
    # As in what goes back after a failure, where bash ignores errexit.
    assert place.bash("-c", f"{script}\nswitch upgrade {NAME} || exit 5").returncode == 5
    done = place.bash(str(place.root / "start_mlflow_server.sh"))
    assert done.returncode == 1
    assert "venv=" not in done.stdout
    assert (place.root / "mlflow.db").read_text() == "old"
    (place.root / "former").unlink()
    assert place.start() == wholly("new")


def test_the_reason_is_what_failed_first(place):
    words = f"""set -euo pipefail; root="{place.root}" unit=mlflow-server here=/nowhere
        say() {{ echo "@say $*"; }}; warn() {{ echo "@warn $*"; }}
        fail() {{ echo "@fail $*"; exit 1; }}
        undrain() {{ :; }}; trap serve_again EXIT"""
    parts = (words, source("settle.sh"), source("tidy.sh"), source("switch.sh"))
    failing = 'serve() { fail "it does not start"; }; fail "the step failed"'
    done = place.bash("-c", "\n".join((*parts, failing)))
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if "former state" not in line]
    assert said == ["@fail the step failed", "@warn it does not start"]


def test_a_start_waits_until_the_switch_that_is_under_way_is_over(place):
    place.build()
    with (place.root / ".hold").open("w") as hold:
        fcntl.flock(hold, fcntl.LOCK_EX)
        start = subprocess.Popen(
            ["bash", place.root / "start_mlflow_server.sh"],
            env=place.machine.environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with pytest.raises(subprocess.TimeoutExpired):
            start.wait(0.5)
        # What a switch does, by the one who holds the lock.
        assert place.switch()
    said, _ = start.communicate(timeout=20)
    assert "venv=new" in said.splitlines()
    assert "start_mlflow_server.sh=new" in said.splitlines(), "it is the new start script's turn"


# -- and back ----------------------------------------------------------------------------------

BACK = f"give_back rollback {NAME} aside"


def test_a_state_that_is_given_back_is_what_it_was(place):
    place.build()
    assert place.switch()
    place.write(place.root / "basic_auth.db", "newer")
    assert place.switch(BACK)
    assert place.start() == wholly("old")
    assert not (place.root / "former" / NAME).exists(), "it is not kept a second time"
    assert place.former("aside") == {*PARTS, "about.json"}
    about = json.loads((place.root / "former/aside/about.json").read_text())
    assert about == {"task": "rollback", "release": "new", "databases": True}
    assert place.switch("give_back rollback aside again")
    assert place.start() == wholly("new") | {"basic_auth.db": "newer"}


def test_a_way_back_cut_off_after_any_step_serves_one_state_never_both(place):
    parts = ("mlflow.db", "mlflow.db-wal", "basic_auth.db", "start_mlflow_server.sh", "venv")
    place.build(parts=parts)
    assert place.switch()
    served = []
    for left, one in place.copies():
        ended = one.switch(BACK, left=left)
        begun = ended or any((one.root / name).exists() for name in ("next", "next.done"))
        now = wholly("old") if begun else wholly("old") | wholly("new", parts)
        assert one.start() == now, f"cut off after {left} steps"
        kept = {path.name for path in (one.root / "former").iterdir()}
        assert kept == ({"aside"} if begun else {NAME}), f"cut off after {left} steps"
        served.append(begun)
        if ended:
            break
    assert served == sorted(served)
    assert served.count(False) > 3
    assert served.count(True) > 2 * len(parts)


def test_a_state_without_a_release_of_its_own_is_given_back_with_the_one_that_served_it(place):
    place.build(parts=("mlflow.db", "basic_auth.db"))
    assert place.switch(f"switch restore {NAME}")
    place.build("newer", ("venv",))
    assert place.switch("switch upgrade later")
    assert place.switch(f"{BACK} old")
    served = place.start()
    assert (served["mlflow.db"], served["venv"]) == ("old", "old")


# -- a change after a cut ----------------------------------------------------------------------


def test_the_next_change_finishes_a_switch_first(place):
    place.build()
    place.switch(left=8)
    lines = place.machine.change('say "$(cat "$root/mlflow.db" "$root/basic_auth.db")"', "-")
    assert lines == ["@say what", "@say newnew", "@exit 0"]
    assert [line[3] for line in place.machine.lines] == [
        "finished a switch that was cut off", "begun", "done",
    ]  # fmt: skip


def test_what_was_decided_before_a_switch_was_finished_is_void(place):
    place.machine.change("true")
    seen = place.machine.audit.stat().st_size
    place.build()
    place.switch(left=8)
    assert place.machine.change("say done", seen) == ["@exit 76"]
    assert place.start() == wholly("new")


def test_a_change_begins_nothing_where_a_switch_cannot_be_finished(place):
    place.build()
    place.switch(left=4)
    shutil.rmtree(place.root / "former", ignore_errors=True)
    (place.root / "former").write_text("in the way")
    lines = place.machine.change("say done", "-")
    assert lines[-1] == "@exit 1"
    assert "@say done" not in lines
    assert (place.root / "mlflow.db").read_text() == "old"
