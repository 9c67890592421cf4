"""What is done within a fence removes nothing outside, whatever a database's journal names."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
import struct
import sys

import pytest
from host_side import HOST, tracking_database


@pytest.fixture
def programs(monkeypatch):
    """The host's modules, as they are found where they are staged."""
    monkeypatch.setattr(sys, "path", [str(HOST), *sys.path])
    for name in ("databases", "fenced"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import databases
    import fenced

    return databases, fenced


needs_landlock = pytest.mark.skipif(
    ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) < 1, reason="no Landlock here"
)


@needs_landlock
def test_nothing_outside_is_removed_and_the_fence_ends_with_the_work(programs, tmp_path):
    _, fenced = programs
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    for folder in (inside, tmp_path):
        (folder / "file").write_text("x")

    def work():
        os.remove(inside / "file")
        with pytest.raises(PermissionError):
            os.remove(tmp_path / "file")
        return "done"

    assert fenced.fenced([inside], work) == "done"
    assert not (inside / "file").exists()
    os.rename(tmp_path / "file", outside)
    os.remove(outside)


def journal(database, names: str) -> bytes:
    """A journal that says it belongs to another (SQLite's "Database File Format", 3)."""
    page = 4096
    pages = os.path.getsize(database) // page
    magic = bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">IIIII", 0, 0, pages, 512, page)
    name = os.fsencode(names)
    end = struct.pack(">I", 0x40000000 // page + 1) + name
    end += struct.pack(">II", len(name), sum(ctypes.c_byte(byte).value for byte in name)) + magic
    return header.ljust(512, b"\0") + end


@needs_landlock
def test_a_journal_that_names_another_file_has_a_copy_remove_nothing(programs, tmp_path):
    databases, _ = programs
    root, copies, other = tmp_path / "root", tmp_path / "copies", tmp_path / "keys"
    for folder in (root, copies):
        folder.mkdir()
    with sqlite3.connect(root / "mlflow.db") as base:
        base.execute("create table runs (n)")
    other.write_text("ssh-ed25519 x")
    text = journal(root / "mlflow.db", str(other))
    (root / "mlflow.db-journal").write_bytes(text)
    with contextlib.suppress(sqlite3.Error):
        databases.copy(str(root), ["mlflow.db"], str(copies))
    assert other.exists()
    # As it is without the fence, or this test would prove nothing.
    (root / "mlflow.db-journal").write_bytes(text)
    sqlite3.connect(root / "mlflow.db").execute("select * from runs").fetchall()
    assert not other.exists()


def test_a_copy_is_what_it_was(programs, tmp_path):
    databases, _ = programs
    tracking_database(tmp_path / "mlflow.db")
    (tmp_path / "copies").mkdir()
    databases.copy(str(tmp_path), ["mlflow.db"], str(tmp_path / "copies"))
    with sqlite3.connect(tmp_path / "copies/mlflow.db") as base:
        assert base.execute("select count(*) from runs").fetchone() == (3,)
