"""Whatever is killed, whenever: one whole state, old or new, and no acknowledged run lost."""

from __future__ import annotations

import random
import time

import pytest
from lab import UNIT, Working
from load import Load, writers
from older import KILL, NEWER, OLDER, Older, State, set_id
from waiting import until

TASKS = ("backup", "restore", "upgrade")
VICTIMS = ("host", "operator", "server", "program")
MOMENTS = 10  # of each task and victim, with --full; by default one of them once
# What is said as the host begins, and the seconds that it then takes under load.
BEGINS = {
    "backup": ("back up both", 0.9),
    "restore": ("fetch and check", 13.0),
    "upgrade": ("rehearse the upgrade", 32.0),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose tasks, victims and moments (shares of the time that the task takes)."""
    if "victim" not in metafunc.fixturenames:
        return
    chance = random.Random("cut off")
    cases = [
        (task, victim, round(chance.random(), 3))
        for _ in range(MOMENTS)
        for task in TASKS
        for victim in VICTIMS
    ]
    if not metafunc.config.getoption("full"):
        cases = cases[8:9]  # an upgrade, by the host's power
    metafunc.parametrize(("task", "victim", "share"), cases)


def test_what_is_cut_off_leaves_a_whole_state_and_every_acknowledged_run(
    older: Older, task: str, victim: str, share: float
) -> None:
    host, before = older.host, older.state()
    command = {
        "backup": ["backup"],
        "restore": ["restore", "--yes", "--id", older.backup],
        "upgrade": ["upgrade", "--to", NEWER],
    }[task]
    sets = set(older.sets())
    # Where the power is cut, what was asked is never answered.
    with writers(host, older.login, patience=20) as load:
        began = time.time()
        with host.start(*command) as working:
            said, seconds = BEGINS[task]
            until(lambda: said in working.so_far or not working.running, "the host is at work")
            time.sleep(share * seconds)
            print(f"{victim} after {share * seconds:.1f} s of {task}: {working.running=}")
            cut(older, victim, working, share)
            if victim != "operator":
                done = working.done()
                assert done.code in (0, 1), str(done)
                assert "Traceback" not in done.out + done.err, str(done)
                print(done)
        older.idle()
        older.serves()
        whole(older, load, task, before, began)
        load.goes_on()
        for id in set(older.sets()) - sets:
            print(f"the backup {id} is complete")
            older.fetched(id)

        done = host.fab(*command)
        older.serves()
        load.goes_on()
        after = whole(older, load, task, before, began)
    if task == "backup":
        id = set_id(done.out)
        made = load.acknowledged(before=began)
        assert made - older.fetched(id) == set()
    else:
        assert after, "it is not the new state, though the same command succeeded"
    host.healthy()


def cut(older: Older, victim: str, working: Working, share: float) -> None:
    host = older.host
    if victim == "operator":
        working.kill()
    elif victim == "server":
        host.run(f"systemctl kill --kill-whom=all -s KILL {UNIT}.service", code=None)
    elif victim == "program":
        print(host.python(KILL))
    elif share < 0.5:
        host.lab.rehearsal.reboot(host.alias)
    else:
        host.lab.rehearsal.kill(host.alias)
        host.boot()


def whole(older: Older, load: Load, task: str, before: State, began: float) -> bool:
    """Assert that the state is the old or the new one in all its parts; returns whether the new.

    And that each acknowledged run is served or, where a restore replaced it, kept aside.
    """
    early, acknowledged = load.acknowledged(before=began), load.acknowledged()
    state = older.state(acknowledged)
    assert acknowledged - state.served - state.aside == set()
    assert state.left == [] or task != "backup"
    assert "next" not in state.left
    parts = {
        "restore": [state.marks[0] == 0, state.marks[1] == 0, not early & state.served],
        "upgrade": [
            state.version == NEWER, f" {NEWER}-" in state.script,
            state.revisions != before.revisions,
        ],
        "backup": [],
    }[task]  # fmt: skip
    assert len(set(parts)) <= 1, (parts, state)
    new = any(parts)
    if task != "upgrade":
        assert (state.release, state.script) == (before.release, before.script)
        assert state.revisions == before.revisions
    if task != "restore":
        assert state.marks == [1, 1]
        assert acknowledged - state.served == set()
    if not new:
        assert early - state.served == set()
        assert task == "backup" or state.version == OLDER
    return new
