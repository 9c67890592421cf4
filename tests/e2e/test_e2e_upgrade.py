"""An upgrade fails no call of a client, and one that fails is as if it had never been typed."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest
from canaries import PLANT, confined, unharmed
from lab import ROOT, UNIT
from load import Load, writers
from older import NEWER, OLDER, Older
from sabotage import release, small_disk
from waiting import until

# Which step fails, whether it does so in the rehearsal already, and what is said.
FAILURES = (
    ("start", False, "The server does not start: Error: made to fail"),
    ("install", True, "upgrade on sandbox"),
    ("migration", True, "The databases cannot be migrated: made to fail. Nothing was changed"),
    ("migration", False, "The databases cannot be migrated: made to fail. Nothing was changed"),
    ("start", True, "MLflow does not serve these databases: it ended at its start"),
    ("check", True, "MLflow does not serve these databases: it cannot read the newest run"),
    ("check", False, "MLflow does not serve these databases: it cannot read the newest run"),
    ("disk", False, "The databases cannot be migrated"),
)
SAMPLE = 1  # of them by default


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fault" in metafunc.fixturenames:
        cases = FAILURES if metafunc.config.getoption("full") else FAILURES[:SAMPLE]
        metafunc.parametrize(("fault", "rehearsed", "said"), cases)


def test_restart_upgrade_and_migration_fail_no_call_of_mlflows_own_client(
    older: Older, full: bool
) -> None:
    host, rows = older.host, 100_000 if full else 5_000
    older.fill(rows)
    release = older.state().release
    # Those of the bare kind never try again: what a client would hide shows as well.
    with writers(host, older.login, ("client", 6 if full else 2), ("raw", 2)) as load:
        host.fab("restart")
        passed(load, "restart")

        lock = host.lab.clone / f"files/releases/{OLDER}.txt"
        lock.write_text(lock.read_text() + "# locked anew\n")
        done = host.fab("upgrade", timeout=600)
        passed(load, "upgrade without a migration")
        assert older.state().release not in (release, "")
        assert older.state().version == OLDER
        print(pause(done.out), "s without a migration")

        done = host.fab("upgrade", "--to", NEWER, timeout=900)
        passed(load, "upgrade with a migration")
        print(pause(done.out), f"s with a migration of {rows} runs")
        before = load.acknowledged()
        state = older.state(before)
        assert (state.version, state.marks) == (NEWER, [1, 1])
        assert state.served == before
        assert state.count >= rows + len(before)

        load.goes_on()
        since = load.acknowledged() - before
        back = host.fab("rollback", "--yes", timeout=600)
        until(lambda: older.state().version == OLDER, "the older release is back")
        load.goes_on()
    # Who made a run in one database and writes to it in the other is told that it is not there.
    assert all("RESOURCE_DOES_NOT_EXIST" in failure for failure in load.failures())
    print(back.out)
    acknowledged = load.acknowledged()
    state = older.state(acknowledged)
    assert acknowledged - state.served - state.aside == set()
    assert since & state.aside, "no run was made since the upgrade"
    assert state.marks == [1, 1]
    assert state.count >= rows
    host.healthy()
    # Both releases serve in the process that has loaded them.
    assert "loading MLflow again" not in host.run(f"journalctl -u {UNIT} --no-pager")


def test_a_failing_upgrade_leaves_the_former_release_serving_with_all_data(
    older: Older, fault: str, rehearsed: bool, said: str
) -> None:
    host, before = older.host, older.state()
    disk = small_disk(older, 500) if fault == "disk" else nullcontext()
    with release(older, fault, rehearsed) as version, disk:
        with writers(host, older.login) as load:
            done = host.refused("upgrade", "--to", version, because=(said,), timeout=600)
            print(done)
            older.serves()
            state = older.state(load.acknowledged())
            # A disk that is full refuses what is written; room for it is the operator's.
            host.run("rm -f /home/ubuntu/mlflow-server/ballast")
            load.goes_on()
        assert ("serves again, with all data" in done.out) is not rehearsed
        parts = (state.release, state.script, state.revisions, state.marks, state.left)
        assert parts == (before.release, before.script, before.revisions, before.marks, [])
        acknowledged = load.acknowledged()
        assert acknowledged - older.state(acknowledged).served == set()
        if fault != "disk":
            assert load.failures() == []
        host.healthy()


@pytest.mark.sampled
def test_a_check_runs_nothing_that_the_server_s_process_left(older: Older) -> None:
    host = older.host
    with unharmed(host):
        confined(host, PLANT, ROOT)
        assert NEWER in host.fab("upgrade", "--check", "--to", NEWER, timeout=600).out
        older.serves()


def passed(load: Load, what: str) -> None:
    """Assert that no call failed so far, and go on."""
    load.goes_on()
    assert load.failures() == []
    print(
        f"{what}: {len(load.acknowledged())} runs so far, longest wait {load.longest_wait():.1f} s"
    )


def pause(said: str) -> int:
    """Return the seconds that writes waited for, as an upgrade says."""
    found = re.search(r"writes waited for (\d+) s", said)
    assert found, said
    return int(found[1])
