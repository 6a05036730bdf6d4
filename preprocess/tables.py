"""Label tables and file lists as text: nothing is typed yet (label_values.py decides types).

In:  a CSV, TSV or Parquet file: local path, fsspec URL, or a member of a zip archive.
Out: Table, named columns of text with None where a cell is empty.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import PurePosixPath

from preprocess.columns import Column, Rows
from preprocess.errors import UsageError
from preprocess.failures import describe

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")

_MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "<na>"})

Cell = str | None
Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows as text; all rows have as many cells as there are columns."""

    name: str
    """For messages: the file's name without its folder."""
    columns: tuple[str, ...]
    rows: Sequence[Row]

    def column(self, name: str) -> Column[Cell]:
        """All cells of one column, in row order."""
        index = self.columns.index(name)
        if isinstance(self.rows, Rows):
            return self.rows.columns[index]
        return Column(row[index] for row in self.rows)


def is_url(path: str) -> bool:
    """True for fsspec URLs; `file://` counts as one, discover.py turns it into a path."""
    return "://" in path


def is_table_name(path: str) -> bool:
    """True if the name ends like a table this module reads."""
    return path.lower().endswith(TABLE_SUFFIXES)


def read_table(path: str, member: str | None = None) -> Table:
    """Read a table; empty cells and the usual words for missing (NA, NaN, None, null, …) become None.

    Raises:
        UsageError: the file is missing, unreadable, or not a table.
    """
    name = PurePosixPath(member or path).name
    if not is_table_name(name):
        raise UsageError(f"{name}: a table must be .csv, .tsv or .parquet (save spreadsheets as CSV)")
    try:
        data = _read(path, member)
        return _parquet(name, data) if name.lower().endswith(".parquet") else _csv(name, data)
    except (OSError, KeyError, ImportError, zipfile.BadZipFile) as error:
        raise UsageError(f"{name}: the table cannot be read: {describe(error)}") from error
    except (csv.Error, ValueError) as error:
        raise UsageError(f"{name}: not a table: {error}") from error


def stack(name: str, tables: list[Table]) -> Table:
    """One table below the other; a column that a table lacks is None there.

    The order of columns depends on the columns only, that of rows on the order of tables.
    """
    if len(tables) == 1:
        return tables[0]
    widest_first = sorted(tables, key=lambda table: (-len(table.columns), table.columns))
    columns = tuple(dict.fromkeys(column for table in widest_first for column in table.columns))
    cells = [Column(chain.from_iterable(_cells(table, column) for table in tables)) for column in columns]
    return Table(name, columns, Rows(cells, sum(len(table.rows) for table in tables)))


def _cells(table: Table, column: str) -> Iterable[Cell]:
    return table.column(column) if column in table.columns else repeat(None, len(table.rows))


def _read(path: str, member: str | None) -> bytes:
    if is_url(path):
        import fsspec

        with fsspec.open(path, "rb") as file:
            data: bytes = file.read()
    else:
        with open(path, "rb") as file:
            data = file.read()
    if member is None:
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(member)


def _csv(name: str, data: bytes) -> Table:
    first = data.partition(b"\n")[0].decode("utf-8-sig")
    # Excel writes `;` where the decimal comma rules; the header is the one line without numbers.
    delimiter = max(",;\t", key=first.count)
    # Line by line: as one text a large table would take four times its size more.
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), delimiter=delimiter)
    header = next(lines, [])
    return _table(name, header, (row for row in lines if row))


def _parquet(name: str, data: bytes) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data), page_checksum_verification=True)
    except pyarrow.ArrowException as error:
        raise ValueError(f"damaged Parquet: {describe(error)}") from error
    columns = [[None if v is None else str(v) for v in column.to_pylist()] for column in table.columns]
    return _table(name, table.column_names, zip(*columns, strict=True))


def _table(name: str, header: list[str], lines: Iterable[Sequence[Cell]]) -> Table:
    names = [column.strip() for column in header]
    # A nameless first column is the index that pandas writes.
    kept = [i for i, column in enumerate(names) if column and not column.startswith("Unnamed: ")]
    columns = tuple(names[i] for i in kept)
    if not columns:
        raise ValueError("it has no header")
    if len(set(columns)) < len(columns):
        raise ValueError("two columns have the same name")
    raw: list[Column[Cell]] = [Column() for _ in kept]
    length = 0
    for number, line in enumerate(lines, start=2):
        if len(line) > len(names):
            raise ValueError(f"row {number} has more cells than the header")
        length += 1
        for i, column in zip(kept, raw, strict=True):
            column.append(line[i] if i < len(line) else None)
    return Table(name, columns, Rows([column.map(map(_cell, column.values)) for column in raw], length))


def _cell(raw: Cell) -> Cell:
    text = (raw or "").strip()
    return None if text.lower() in _MISSING else text
