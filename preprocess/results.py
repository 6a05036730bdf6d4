"""What a finished shard is: its rows, its files, its pixel statistics.

In:  rows and pixels as the shard is written.
Out: ShardResult, which goes from workers to the manifest, and to and from JSON in journals.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from preprocess.errors import DatasetDamaged
from preprocess.records import Geometry, Label
from preprocess.schema import InstanceRow

HISTOGRAM_BINS = 256


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One data file as it was written."""

    path: str
    """Relative to OUT, `/`-separated."""
    format: str
    bytes: int
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class PixelStatistics:
    """Exact sums over content pixels (the breast box, without fill)."""

    count: int = 0
    sum: int = 0
    sum_squares: int = 0
    minimum: int | None = None
    maximum: int | None = None
    histogram: tuple[int, ...] = (0,) * HISTOGRAM_BINS
    """Counts in 256 equal bins of the full range."""

    @classmethod
    def of(cls, pixels: npt.NDArray[Any], geometry: Geometry) -> PixelStatistics:
        """Statistics of one prepared image's content: pixels (height, width) uint8 or uint16."""
        rows = slice(geometry.content_row, geometry.content_row + geometry.content_rows)
        columns = slice(geometry.content_column, geometry.content_column + geometry.content_columns)
        values = 1 << pixels.dtype.itemsize * 8
        counts = np.bincount(pixels[rows, columns].ravel(), minlength=values)
        levels = np.arange(values, dtype=np.int64)
        present = np.flatnonzero(counts)
        return cls(
            count=int(counts.sum()),
            sum=int((counts * levels).sum()),
            # below 2^63 up to 8192x8192 pixels of 65,535: 2^26 · 2^32
            sum_squares=int((counts * levels * levels).sum()),
            minimum=int(present[0]) if present.size else None,
            maximum=int(present[-1]) if present.size else None,
            histogram=tuple(int(n) for n in counts.reshape(HISTOGRAM_BINS, -1).sum(axis=1)),
        )

    @classmethod
    def total(cls, parts: Iterable[PixelStatistics]) -> PixelStatistics:
        """The statistics of all parts together."""
        count = total = squares = 0
        histogram = np.zeros(HISTOGRAM_BINS, np.int64)
        lows: list[int] = []
        highs: list[int] = []
        for part in parts:
            count, total, squares = count + part.count, total + part.sum, squares + part.sum_squares
            histogram += part.histogram
            lows += [] if part.minimum is None else [part.minimum]
            highs += [] if part.maximum is None else [part.maximum]
        return cls(
            count=count,
            sum=total,
            sum_squares=squares,
            minimum=min(lows, default=None),
            maximum=max(highs, default=None),
            histogram=tuple(int(bin_count) for bin_count in histogram),
        )

    def mean(self) -> float | None:
        """Mean, rounded once from the exact quotient; None without pixels."""
        return float(Fraction(self.sum, self.count)) if self.count else None

    def std(self) -> float | None:
        """Population standard deviation from the exact variance; None without pixels."""
        if not self.count:
            return None
        variance = Fraction(self.sum_squares, self.count) - Fraction(self.sum, self.count) ** 2
        return math.sqrt(float(variance))


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A committed shard. Rows in the plan's order, names as written (pseudonyms under --identifiers hash)."""

    name: str
    fold: int
    key: str
    rows: tuple[InstanceRow, ...] = field(repr=False)
    files: tuple[ShardFile, ...] = field(repr=False)
    statistics: PixelStatistics = field(repr=False)
    stamp: str = field(default="", repr=False)
    """`ShardPlan.stamp` of the inputs as the scan saw them; in journals and run.json only."""

    def to_json(self) -> bytes:
        """The journal's form."""
        return _RESULT.dump_json(self)

    @classmethod
    def from_json(cls, data: bytes) -> ShardResult:
        """Read a journal. Raises DatasetDamaged if it is not one."""
        try:
            return _RESULT.validate_json(data)
        except ValidationError:
            raise DatasetDamaged("a shard's journal cannot be read") from None


_RESULT: TypeAdapter[ShardResult] = TypeAdapter(ShardResult)


def storable(row: InstanceRow) -> InstanceRow:
    r"""The row with text that UTF-8 can hold: bytes of a file name that are not become `\udcXX`."""
    changed: dict[str, Any] = {}
    for entry in dataclasses.fields(row):
        value = getattr(row, entry.name)
        if isinstance(value, str) and (clean := storable_text(value)) != value:
            changed[entry.name] = clean
    labels = tuple(_storable_label(label) for label in row.labels)
    return dataclasses.replace(row, labels=labels, **changed) if changed or labels != row.labels else row


def _storable_label(label: Label) -> Label:
    """NaN is "unknown", as None is."""
    if isinstance(label.value, str):
        return Label(label.name, storable_text(label.value))
    return Label(label.name, None) if label.value != label.value else label


def storable_text(text: str) -> str:
    """Text without lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def canonical_json(document: object) -> str:
    """JSON with sorted keys and no spaces: one text for one value."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
