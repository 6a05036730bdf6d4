"""Table columns of a million cells: each different value once, and four bytes a row that say which.

In:  cells in row order.
Out: Column, a sequence of them; Rows, the same cells row by row.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt

_MANY = 1 << 12

T = TypeVar("T", bound=Hashable)
U = TypeVar("U", bound=Hashable)


class Column(Sequence[T]):
    """Cells of one column; `values` are the different ones, in the order in which they came."""

    __slots__ = ("_codes", "_kept", "_numbers", "values")

    def __init__(self, cells: Iterable[T] = ()) -> None:
        self._kept: list[T] = []
        self.values: Sequence[T] = self._kept
        self._codes = array("I")
        self._numbers: dict[T, int] | None = {}
        for cell in cells:
            self.append(cell)

    def append(self, cell: T) -> None:
        """Add a row. Not to what `map` gave."""
        assert self._numbers is not None
        number = self._numbers.setdefault(cell, len(self._kept))
        if number == len(self._kept):
            self._kept.append(cell)
        self._codes.append(number)

    def map(self, values: Iterable[U]) -> Column[U]:
        """The same rows, with these in the places of `values` (one each); equal ones become one."""
        column: Column[U] = Column()
        first: dict[tuple[type, U], int] = {}
        canonical = [first.setdefault((type(value), value), len(first)) for value in values]
        column.values = compact([value for _, value in first])
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


class Texts(Sequence[str]):
    """Many texts as one, and where each ends: ten bytes of ASCII in fourteen, not seventy-two."""

    __slots__ = ("_all", "_ends")

    def __init__(self, texts: Iterable[str]) -> None:
        self._ends = array("Q", [0])
        self._all = "".join(map(self._noted, texts))

    def _noted(self, text: str) -> str:
        self._ends.append(self._ends[-1] + len(text))
        return text

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        return self._all[self._ends[at] : self._ends[at + 1]]


class Index:
    """Where each of many different texts stands: twelve bytes a text."""

    def __init__(self, texts: Sequence[Hashable]) -> None:
        self._texts = texts
        hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
        self._order = np.argsort(hashes, kind="stable").astype(np.uint32)
        self._hashes = hashes[self._order]

    def find(self, text: Hashable) -> int | None:
        """Its place; None if it is not among them."""
        wanted = hash(text)
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._order) and self._hashes[at] == wanted:
            place = int(self._order[at])
            if self._texts[place] == text:
                return place
            at += 1
        return None


def missing_from(texts: Sequence[str], others: Iterable[str]) -> list[str]:
    """Those of many different texts that are not among the others."""
    index, found = Index(texts), bytearray(len(texts))
    for other in others:
        at = index.find(other)
        if at is not None:
            found[at] = 1
    return [texts[at] for at, is_there in enumerate(found) if not is_there]


def compact(values: list[T]) -> Sequence[T]:
    """The values, in less memory if they are many texts."""
    if len(values) < _MANY or not all(type(value) is str for value in values):
        return values
    return cast(Sequence[T], Texts(cast(list[str], values)))


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

    __hash__ = None  # type: ignore[assignment]  # equal by content, and growing


def _same(one: object, other: object) -> bool:
    return one == other
