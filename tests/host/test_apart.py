"""Databases are moved to data/, which alone the server may write, and back; cut off anywhere."""

from __future__ import annotations

import os

import pytest
from switch_side import wholly

from tasks.engine.templates import source

LINKS = {"mlflow.db": "data/mlflow.db", "basic_auth.db": "data/basic_auth.db"}


def links(place) -> dict[str, str]:
    return {name: os.readlink(place.root / name) for name in LINKS}


def together(place, left: int = 10_000) -> bool:
    words = f'set -euo pipefail; root="{place.root}"\n{source("settle.sh")}\nkeep_together'
    done = place.bash("-c", words, left=left)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == 0


def test_they_are_moved_with_their_logs_and_links_take_their_place(place):
    inode = os.stat(place.root / "mlflow.db").st_ino
    (place.root / "mlflow.db-shm").write_text("nobody's any more")
    assert place.ready("data")
    assert links(place) == LINKS
    assert os.stat(place.root / "data/mlflow.db").st_ino == inode, "moved, not copied"
    assert set(os.listdir(place.root / "data")) == {"mlflow.db", "mlflow.db-wal", "basic_auth.db"}
    assert not list(place.root.glob("*.db-*"))
    assert place.start() == wholly("old")


def test_a_server_without_data_stays_as_it_is(place):
    assert place.ready()
    assert not (place.root / "mlflow.db").is_symlink()
    assert not (place.root / "data").exists()


def test_a_move_cut_off_after_any_step_loses_nothing_and_comes_to_its_end(place):
    for left, one in place.copies():
        ended = one.ready("data", left=left)
        assert one.start() == wholly("old"), f"cut off after {left} steps"
        assert one.ready("data")
        assert (one.start(), links(one)) == (wholly("old"), LINKS), f"cut off after {left} steps"
        assert not list(one.root.glob("*.db[-.]*")), f"cut off after {left} steps"
        if ended:
            assert left > 8
            return


def test_the_way_back_cut_off_after_any_step_loses_nothing_either(place):
    assert place.ready("data")
    for left, one in place.copies():
        ended = together(one, left)
        assert one.start() == wholly("old"), f"cut off after {left} steps"
        assert together(one)
        assert not (one.root / "data").exists()
        assert not (one.root / "mlflow.db").is_symlink()
        assert one.start() == wholly("old")
        if ended:
            assert left > 5
            return


def test_what_is_laid_in_root_by_hand_is_served_and_what_was_there_is_kept(place):
    assert place.ready("data")
    (place.root / "mlflow.db").unlink()
    (place.root / "mlflow.db").write_text("restored")
    assert place.ready("data")
    served = place.start()
    assert (served["mlflow.db"], "mlflow.db-wal" in served) == ("restored", False)
    assert (place.root / "data/former.mlflow.db").read_text() == "old"
    assert (place.root / "data/former.mlflow.db-wal").read_text() == "old"


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-journal"])
def test_a_folder_in_place_of_a_file_keeps_no_switch_from_its_end(place, end):
    """The server's process can make one."""
    assert place.ready("data")
    odd = place.root / f"data/mlflow.db{end}"
    odd.unlink(missing_ok=True)
    (odd / "full").mkdir(parents=True)
    place.build()
    assert place.switch()
    assert place.start() == wholly("new")


def test_the_stream_moves_nothing_under_a_server_that_runs(place):
    (place.root / "data").mkdir()
    stream = place.root / "start_stream.sh"
    stream.write_text("#!/bin/sh\n")
    stream.chmod(0o700)
    assert place.ready("./start_stream.sh", "begin")
    assert not (place.root / "mlflow.db").is_symlink()


def test_databases_that_move_elsewhere_leave_no_link(place):
    assert place.ready("data")
    place.build(parts=("server.env",))
    (place.root / "next.part/.aside").write_text("mlflow.db basic_auth.db\n")
    assert place.switch()
    assert not os.path.lexists(place.root / "mlflow.db")
    assert "mlflow.db=" not in str(place.start())
    assert place.switch("give_back return 20261124T100000Z failed")
    assert (place.start(), links(place)) == (wholly("old"), LINKS)
