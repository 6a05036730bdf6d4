"""Table columns of a million cells: each different value once, and four bytes a row that say which.

In:  cells in row order.
Out: Column, a sequence of them; Rows, the same cells row by row.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=Hashable)
U = TypeVar("U", bound=Hashable)


class Column(Sequence[T]):
    """Cells of one column; `values` are the different ones, in the order in which they came."""

    __slots__ = ("_codes", "_numbers", "values")

    def __init__(self, cells: Iterable[T] = ()) -> None:
        self.values: list[T] = []
        self._codes = array("I")
        self._numbers: dict[T, int] | None = {}
        for cell in cells:
            self.append(cell)

    def append(self, cell: T) -> None:
        """Add a row. Not after `freeze` or `map`."""
        assert self._numbers is not None
        number = self._numbers.setdefault(cell, len(self.values))
        if number == len(self.values):
            self.values.append(cell)
        self._codes.append(number)

    def freeze(self) -> None:
        """Drop what only `append` needs."""
        self._numbers = None

    def map(self, values: Iterable[U]) -> Column[U]:
        """The same rows, with these in the places of `values` (one each); equal ones become one."""
        column: Column[U] = Column()
        first: dict[tuple[type, U], int] = {}
        canonical = [first.setdefault((type(value), value), len(first)) for value in values]
        column.values = [value for _, value in first]
        column._codes.frombytes(np.array(canonical, np.uint32)[self.codes()].tobytes())
        column._numbers = None
        return column

    def codes(self) -> npt.NDArray[np.uint32]:
        """Which of `values` each row has."""
        return np.frombuffer(self._codes, np.uint32) if self._codes else np.zeros(0, np.uint32)

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[T]:
        return map(self.values.__getitem__, self._codes)

    @overload
    def __getitem__(self, row: int) -> T: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[T]: ...
    def __getitem__(self, row: int | slice) -> T | Sequence[T]:
        if isinstance(row, slice):
            return [self.values[code] for code in self._codes[row]]
        return self.values[self._codes[row]]


class Rows(Sequence[tuple[T, ...]], Generic[T]):
    """Columns of one length, read row by row; equal to any sequence of the same tuples."""

    __slots__ = ("_length", "columns")

    def __init__(self, columns: Sequence[Column[T]], length: int) -> None:
        self.columns = tuple(columns)
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[T, ...]]:
        return zip(*self.columns, strict=True) if self.columns else iter([()] * self._length)

    @overload
    def __getitem__(self, row: int) -> tuple[T, ...]: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[tuple[T, ...]]: ...
    def __getitem__(self, row: int | slice) -> tuple[T, ...] | Sequence[tuple[T, ...]]:
        if isinstance(row, slice):
            return [self[at] for at in range(*row.indices(self._length))]
        if not -self._length <= row < self._length:
            raise IndexError(row)
        return tuple(column[row] for column in self.columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]


def _same(one: object, other: object) -> bool:
    return one == other
