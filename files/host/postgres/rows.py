"""Carry rows from SQLite to PostgreSQL's COPY, and say on both sides what a table holds.

Runs on the host, beside the programs that import it. Copying and comparing share nothing but the
order of columns: what is compared are SQLite's own values and what PostgreSQL gives back.
"""

import hashlib
import marshal
import re
import sqlite3
from contextlib import closing

import databases
import talk

AT_ONCE = 1000  # rows
BLOCK = 1 << 20  # characters or bytes of a batch in what has no limit of its own
NULL = r"\N"
ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
TEXTS = ("character varying", "text", "json", "date")
WHOLE = ("smallint", "integer", "bigint")


class Unfit(Exception):
    """A row that PostgreSQL cannot hold; says which and why."""


class Column:
    """A column of PostgreSQL's: its type as format_type() names it, its length left out."""

    def __init__(self, name, type, generated=False):
        self.name, self.generated = name, generated
        self.type = re.sub(r"\(.*\)", "", type)

    @property
    def known(self):
        return self.type in (*TEXTS, *WHOLE, "boolean", "double precision", "bytea")

    @property
    def unlimited(self):
        return self.type in ("text", "json", "bytea")


def quoted(name):
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def names(columns):
    return ", ".join(quoted(column.name) for column in columns)


# -- SQLite to COPY ------------------------------------------------------------------------------


class Lines:
    """A table of SQLite's as the text that COPY reads, batch by batch.

    `rows` counts what was read, `replaced` the values whose NUL characters became U+FFFD, which
    happens only where `replace` allows it. `said` is called after every batch.
    """

    def __init__(self, database, table, columns, replace=False, said=lambda rows: None):
        self.table, self.columns, self.replace, self.said = table, columns, replace, said
        self.rows = self.replaced = 0
        self.unfit = None
        self._database = database
        self._batches = batches(database, table, columns)

    def read(self, size=-1):
        """Return the next batch, of any size, and b"" at the end.

        psycopg2 turns whatever is raised here into an error of its own: `unfit` keeps it.
        """
        try:
            batch = next(self._batches, ())
            cells = [
                self._cells(batch, n, values) for n, values in enumerate(zip(*batch, strict=True))
            ]
            self.rows += len(batch)
            self.said(self.rows)
            lines = "".join(["\t".join(row) + "\n" for row in zip(*cells, strict=True)])
            return lines.encode()
        except (Unfit, sqlite3.Error) as error:
            self.unfit = error
            raise

    def _cells(self, batch, n, values):
        types = set(map(type, values))
        if types == {str}:
            return self._texts(batch, n, values)
        if types == {int}:
            return list(map(str, values))
        if types == {float}:
            return list(map(repr, values))
        if str in types:
            # The others are few: a column of text may be without one.
            there = [k for k, value in enumerate(values) if type(value) is str]
            found = list(map(_cell, values))
            texts = self._texts([batch[k] for k in there], n, [values[k] for k in there])
            for k, text in zip(there, texts, strict=True):
                found[k] = text
            return found
        return list(map(_cell, values))

    def _texts(self, batch, n, values):
        together = "".join(values)
        if "\0" in together:
            values = [self._without_nul(batch[k], n, value) for k, value in enumerate(values)]
        if any(sign in together for sign in "\\\t\n\r"):
            return [_escaped(value) for value in values]
        return values

    def _without_nul(self, row, n, value):
        if "\0" not in value:
            return value
        if not self.replace:
            where = described(self._database, self.table, self.columns, row)
            raise Unfit(
                f"{where} holds a NUL character in {self.columns[n].name}, which PostgreSQL cannot "
                "keep"
            )
        self.replaced += 1
        return value.replace("\0", REPLACEMENT)


def _cell(value):
    if value is None:
        return NULL
    if isinstance(value, bytes):
        return r"\\x" + value.hex()
    return repr(value) if isinstance(value, float) else str(value)


def _escaped(value):
    for sign, letter in (("\\", "\\"), ("\t", "t"), ("\n", "n"), ("\r", "r")):
        value = value.replace(sign, "\\" + letter)
    return value


def batches(database, table, columns):
    """Read a table in pieces of bounded size: lists of rows, in the table's own order."""
    wide = [n for n, column in enumerate(columns) if column.unlimited]
    batch, size = [], 0
    for row in database.execute(f"select {names(columns)} from {quoted(table)}"):
        batch.append(row)
        for n in wide:
            if isinstance(row[n], (str, bytes)):
                size += len(row[n])
        if len(batch) >= AT_ONCE or size >= BLOCK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def described(database, table, columns, row):
    """Name a row of a table by its primary key."""
    found = database.execute(f"pragma table_info({quoted(table)})").fetchall()
    keys = {name for _, name, _, _, _, key in found if key}
    parts = [
        f"{column.name}={value}"
        for column, value in zip(columns, row, strict=True)
        if column.name in keys
    ]
    text = f"a row of {table} ({', '.join(parts)})"
    return talk.printable(text, longest=300)


def nth(database, table, columns, number):
    """Name the row that stands at a place, from 0 on, in the order of Lines."""
    query = f"select {names(columns)} from {quoted(table)} limit 1 offset {number}"
    row = database.execute(query).fetchone()
    return described(database, table, columns, row)


# -- what a table holds --------------------------------------------------------------------------


class Digest:
    """Count rows, and add up a hash of each: the same whatever their order.

    Two rows that exchange a value change it, and so does the last bit of a float. A row is hashed
    as version 2 of Python's marshal writes it, which keeps types, lengths and every bit.
    """

    def __init__(self):
        self.rows, self.sum = 0, 0

    def add(self, columns_of_values):
        hashes = [
            hashlib.blake2b(marshal.dumps(row, 2), digest_size=16).digest()
            for row in zip(*columns_of_values, strict=True)
        ]
        self.rows += len(hashes)
        self.sum += sum(map(int.from_bytes, hashes, ["big"] * len(hashes)))

    @property
    def value(self):
        return self.rows, f"{self.sum % (1 << 128):032x}"


def of_sqlite(database, table, columns, replace=False):
    """Return rows and hash of one of SQLite's tables."""
    digest = Digest()
    for batch in batches(database, table, columns):
        values = zip(*batch, strict=True)
        digest.add(
            [_meant(column, cells, replace) for column, cells in zip(columns, values, strict=True)]
        )
    return digest.value


def _meant(column, values, replace):
    """Return what values of SQLite's, which knows few types, mean in a column.

    Nothing else is bent to fit: what was changed on its way has to be seen.
    """
    types = set(map(type, values)) - {type(None)}
    if column.type == "boolean" and types == {int}:
        return [{0: False, 1: True}.get(value, value) for value in values]
    if column.type == "double precision" and int in types:
        return [float(value) if type(value) is int else value for value in values]
    if column.type in TEXTS and types & {int, float}:
        # The number that a JSON document may be; SQLite keeps it as one.
        return [str(value) if type(value) in (int, float) else value for value in values]
    if replace and column.type in TEXTS and str in types:
        return [value and value.replace("\0", REPLACEMENT) for value in values]
    return values


class Reader:
    """Takes a table as COPY writes it, a row at a time, and digests what is in it."""

    def __init__(self, columns):
        self.digest = Digest()
        self._columns = columns
        self._lines, self._size = [], 0

    def write(self, line):
        self._lines.append(line)
        self._size += len(line)
        if len(self._lines) >= AT_ONCE or self._size >= BLOCK:
            self.flush()

    def flush(self):
        if not self._lines:
            return
        rows = [line.split("\t") for line in b"".join(self._lines).decode().split("\n")[:-1]]
        cells = zip(*rows, strict=True)
        self.digest.add(
            [_parsed(column, each) for column, each in zip(self._columns, cells, strict=True)]
        )
        self._lines, self._size = [], 0


def _parsed(column, cells):
    parse = PARSERS.get(column.type, _unescaped)
    if NULL in cells:
        return [None if cell == NULL else parse(cell) for cell in cells]
    if parse is _unescaped and not any("\\" in cell for cell in cells):
        return cells
    return list(map(parse, cells))


def _unescaped(cell):
    return re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[1]), cell)


PARSERS = {
    **dict.fromkeys(WHOLE, int),
    "double precision": float,
    "boolean": {"t": True, "f": False}.__getitem__,
    "bytea": lambda cell: bytes.fromhex(_unescaped(cell)[2:]),
}


def of_postgres(cursor, table, columns):
    """Return rows and hash of one of PostgreSQL's tables, as a cursor of psycopg2's reads it."""
    reader = Reader(columns)
    query = f"copy (select {names(columns)} from {quoted(table)}) to stdout"
    cursor.copy_expert(query, reader)
    reader.flush()
    return reader.digest.value


def read_only(path):
    """Open a database of SQLite's that is not to be changed."""
    return closing(databases.opened(path))
