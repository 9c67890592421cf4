"""Whatever is cut short, the same command typed again sees it through; nothing is half done."""

from __future__ import annotations

import re
import subprocess

import pytest
from lab import CHAIN, DATA, Host, Lab, Working
from waiting import until

# Seconds that each task takes on a blank, installed or configured host: where a moment may fall.
DURATION = {"install": 13.0, "configure": 1.0, "deploy": 5.0}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the tasks that are cut short: by default one, with --full all."""
    if "task" in metafunc.fixturenames:
        killed = "operator" in metafunc.function.__name__
        cut = ("install", "deploy") if metafunc.config.getoption("full") else ("deploy",)
        metafunc.parametrize("task", CHAIN if killed else cut)


@pytest.mark.costly
def test_a_task_whose_operator_is_killed_succeeds_when_typed_again(
    lab: Lab, task: str, moment: float
) -> None:
    with lab.blank() as host:
        _done_before(host, task)
        with host.start(task) as working:
            _wait(working, moment * DURATION[task])
            working.kill()
        print(f"killed {task} after {moment * DURATION[task]:.1f} s")
        host.fab(task)
        host.fab(*CHAIN)
        host.healthy()
        assert host.fab(*CHAIN).out.count("nothing to change") == 3


@pytest.mark.sampled
def test_a_host_whose_power_is_cut_is_mended_by_the_same_task(
    lab: Lab, task: str, moment: float
) -> None:
    with lab.blank() as host:
        _done_before(host, task)
        with host.start(task) as working:
            _wait(working, moment * DURATION[task])
            lab.rehearsal.kill(host.alias)
            host.boot()
            print(f"cut after {moment * DURATION[task]:.1f} s")
            host.fab(task)
            # The first operator is told, once the connection is known to be dead.
            first = working.done(timeout=120)
        assert first.code in (0, 1)
        assert first.code == 0 or "was lost" in first.last_line, str(first)
        host.fab(*CHAIN)
        host.healthy()


@pytest.mark.costly
def test_first_tables_that_a_loss_of_power_left_half_made_are_made_anew(lab: Lab) -> None:
    """MLflow alone never goes on with them."""
    with lab.blank() as host:
        host.fab("install", "configure", timeout=900)
        log = f"stat -c %s {DATA}/mlflow.db-wal 2> /dev/null || echo 0"
        with host.start("deploy") as working:
            until(lambda: int(host.run(log)) > 100_000, "tables are being made", 60)
            lab.rehearsal.kill(host.alias)
            host.boot()
            assert working.done(timeout=120).code == 1
        host.fab("deploy")
        host.healthy()


def test_a_second_operator_is_told_who_is_at_work_since_when_and_what_to_do(host: Host) -> None:
    host.lacks_a_package()
    ann = {"LOGNAME": "ann", "USER": "ann"}
    bob = {"LOGNAME": "bob", "USER": "bob"}
    with host.busy_apt() as holder, host.start("install", **ann) as first:
        until(lambda: "apt is busy" in first.so_far, "ann is at work")
        done = host.refused(
            "restart", because=("ann@", "holds the lock", "(install)", "Wait"), **bob
        )
        assert re.search(r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", done.last_line)
        assert re.search(rf"ssh {host.alias} kill \d+", done.last_line)
        assert "running" in host.fab("status", **bob).out
        host.run(f"kill {holder}")
        finished = first.done()
    assert finished.code == 0, str(finished)
    log = [line.split("\t")[1:] for line in host.audit().splitlines()]
    assert [who.split("@")[0] for who, task, _ in log[-2:]] == ["ann", "ann"]
    assert [what for _, _, what in log[-2:]] == ["begun", "done"]


def test_the_next_operator_waits_for_what_a_lost_connection_left_at_work(host: Host) -> None:
    host.lacks_a_package()
    with host.busy_apt() as holder:
        with host.start("install", LOGNAME="ann") as first:
            until(lambda: "apt is busy" in first.so_far, "ann is at work")
            first.kill()
        with host.start("install", LOGNAME="bob") as second:
            said = "install by ann@"
            until(lambda: said in second.so_far, "bob waits")
            assert "lost its connection at work; waiting for it to finish" in second.so_far
            host.run(f"kill {holder}")
            done = second.done()
    assert done.code == 0, str(done)
    assert "nothing to change" in host.fab("install").out


def _done_before(host: Host, task: str) -> None:
    before = CHAIN[: CHAIN.index(task)]
    if before:
        host.fab(*before, timeout=600)


def _wait(working: Working, seconds: float) -> None:
    """Let it work for so long; less when it ends before."""
    try:
        working.done(seconds)
    except subprocess.TimeoutExpired:
        return
