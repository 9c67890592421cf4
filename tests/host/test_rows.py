"""What becomes of SQLite's values on their way, and what a table's hash notices."""

from __future__ import annotations

import importlib
import sqlite3
from typing import Any

import pytest
from host_side import HOST

TYPES = ("bigint", "character varying(9)", "double precision", "boolean", "bytea", "json")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HOST))
    return importlib.import_module("rows")


@pytest.fixture
def columns(rows: Any) -> list[Any]:
    return [rows.Column(name, type) for name, type in zip("abcdef", TYPES, strict=True)]


def database(*values: tuple[Any, ...]) -> sqlite3.Connection:
    base = sqlite3.connect(":memory:")
    base.execute(
        "create table t (a bigint primary key, b varchar(9), c float, d boolean, e blob, f json)"
    )
    base.executemany("insert into t values (?, ?, ?, ?, ?, ?)", values)
    return base


ROW = (1, "x", 0.5, 1, b"\x00\xff", "{}")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        (None, r"\N"),
        (r"\N", r"\\N"),
        (r"\.", r"\\."),
        ("a\tb\nc\rd", r"a\tb\nc\rd"),
        ("", ""),
        ("é 😀", "é 😀"),
    ],
)
def test_text_is_written_as_copy_reads_it(rows, columns, value, written):
    lines = rows.Lines(database((1, value, None, None, None, None)), "t", columns)
    assert lines.read().decode() == "\t".join(["1", written, *[r"\N"] * 4]) + "\n"
    assert lines.read() == b""
    assert lines.rows == 1


def test_other_values_are_written_to_the_last_bit(rows, columns):
    base = database(
        ROW,
        (2**63 - 1, None, 5e-324, 0, b"", 5),
        (-1, None, float("-inf"), None, None, 1.5),
    )
    assert rows.Lines(base, "t", columns).read().decode().splitlines() == [
        "1\tx\t0.5\t1\t" + r"\\x00ff" + "\t{}",
        "9223372036854775807\t\\N\t5e-324\t0\t" + r"\\x" + "\t5",
        "-1\t\\N\t-inf\t\\N\t\\N\t1.5",
    ]


def test_a_nul_character_names_its_row_and_is_replaced_only_where_allowed(rows, columns):
    base = database(ROW, (2, "a\0b", None, None, None, None))
    lines = rows.Lines(base, "t", columns)
    with pytest.raises(rows.Unfit, match=r"^a row of t \(a=2\) holds a NUL character in b, which"):
        lines.read()
    assert isinstance(lines.unfit, rows.Unfit)
    lines = rows.Lines(base, "t", columns, replace=True)
    assert b"a\xef\xbf\xbdb" in lines.read()
    assert lines.replaced == 1


def test_large_values_are_read_a_few_at_a_time(rows, columns):
    base = database(*((n, "x", 0.5, 1, b"", "y" * rows.BLOCK) for n in range(3)))
    assert [len(batch) for batch in rows.batches(base, "t", columns)] == [1, 1, 1]
    base = database(*((n, *ROW[1:]) for n in range(rows.AT_ONCE + 1)))
    assert [len(batch) for batch in rows.batches(base, "t", columns)] == [rows.AT_ONCE, 1]


# What PostgreSQL's COPY writes of the same rows; its floats and booleans look otherwise.
THERE = [
    "1\tx\t0.5\tt\t" + r"\\x00ff" + "\t{}\n",
    "2\t" + r"\\N\\\t\n\r" + "\t1e+16\tf\t\\N\t" + r"\N" + "\n",
    "3\té\t1.5\t\\N\t" + r"\\x" + "\t5\n",
]
HERE = [
    ROW,
    (2, "\\N\\\t\n\r", 1e16, 0, None, None),
    (3, "é", 1.5, None, b"", 5),
]


def read(rows: Any, columns: list[Any], lines: list[str]) -> Any:
    reader = rows.Reader(columns)
    for line in lines:
        reader.write(line.encode())
    reader.flush()
    return reader.digest.value


def test_both_sides_of_the_same_rows_have_one_hash_whatever_the_order(rows, columns):
    count, hash = rows.of_sqlite(database(*HERE), "t", columns)
    assert count == 3
    assert read(rows, columns, THERE) == (3, hash)
    assert read(rows, columns, THERE[::-1]) == (3, hash)


@pytest.mark.parametrize(
    ("n", "old", "new"),
    [
        (0, "0.5", "0.5000000000000001"),
        (0, "t", "f"),
        (0, "x00ff", "x00fe"),
        (0, "1", "-1"),
        (1, "1e+16", "10000000000000002"),
        (2, "1.5", "-1.5"),
        (2, "é", "e\u0301"),
        (2, "é", ""),
        (2, "é", r"\N"),
        (2, "\t5\n", "\t5.0\n"),
    ],
)
def test_no_change_of_a_value_goes_unnoticed(rows, columns, n, old, new):
    lines = list(THERE)
    lines[n] = lines[n].replace(old, new, 1)
    assert read(rows, columns, lines) != read(rows, columns, THERE)


def test_two_rows_that_exchange_a_value_are_noticed(rows, columns):
    cells = [line.split("\t") for line in THERE]
    cells[0][2], cells[2][2] = cells[2][2], cells[0][2]
    assert read(rows, columns, ["\t".join(row) for row in cells]) != read(rows, columns, THERE)


def test_a_row_too_many_is_noticed_even_twice(rows, columns):
    whole = read(rows, columns, THERE)
    assert read(rows, columns, [*THERE, THERE[0]])[1] != whole[1]
    assert read(rows, columns, [*THERE[:2], THERE[0]]) != whole


def test_a_type_that_is_unknown_is_not_guessed(rows):
    assert not rows.Column("a", "timestamp without time zone").known
    assert rows.Column("a", "character varying(250)").known
