"""What manifest.json says about rows and shards: counts, labels, folds, statistics.

In:  rows in source order and results of shards, gone through one by one: there may be a million.
Out: the entries of a Manifest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from preprocess.plan import is_positive
from preprocess.records import LabelColumn, LabelLevel, Status
from preprocess.results import PixelStatistics, ShardFile, ShardResult
from preprocess.schema import InstanceRow


class Frozen(BaseModel):
    """A part of manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Counts(Frozen):
    """prepared + rejected + duplicate = found; `ignored` files are no DICOM and not among them."""

    found: int
    prepared: int
    rejected: int
    duplicate: int
    ignored: int
    rejected_by_code: dict[str, int]


class ShardEntry(Frozen):
    """One shard: `rows` prepared images, the same in each of its formats."""

    name: str
    fold: int
    key: str
    rows: int
    bytes: int
    files: tuple[ShardFile, ...]
    statistics: PixelStatistics


class LabelEntry(Frozen):
    """One label column: over all rows, how many have it, and how many are 1 (None unless it is binary)."""

    name: str
    kind: str
    level: LabelLevel
    known: int
    positives: int | None


class FoldEntry(Frozen):
    """Prepared images of one fold; positives by the label that folds are stratified by."""

    fold: int
    shards: int
    patients: int
    images: int
    positive_patients: int | None
    positive_images: int | None


class StatisticsEntry(Frozen):
    """Content pixels of the whole dataset: exact sums, and what follows from them."""

    count: int
    sum: int
    sum_squares: int
    minimum: int | None
    maximum: int | None
    histogram: tuple[int, ...]
    mean: float | None
    std: float | None


def counts_of(rows: Iterable[InstanceRow], ignored: int) -> Counts:
    """How many inputs came to which end."""
    by_status: Counter[Status] = Counter()
    codes: Counter[str] = Counter()
    for row in rows:
        by_status[row.status] += 1
        if row.status is Status.REJECTED:
            codes[row.reject_code or ""] += 1
    return Counts(
        found=by_status.total(),
        prepared=by_status[Status.PREPARED],
        rejected=by_status[Status.REJECTED],
        duplicate=by_status[Status.DUPLICATE],
        ignored=ignored,
        rejected_by_code=dict(sorted(codes.items())),
    )


def labels_of(label_columns: Sequence[LabelColumn], rows: Iterable[InstanceRow]) -> tuple[LabelEntry, ...]:
    """How many rows have each label."""
    known: Counter[str] = Counter()
    ones: Counter[str] = Counter()
    others: set[str] = set()
    for row in rows:
        for label in row.labels:
            if label.value is not None:
                known[label.name] += 1
                ones[label.name] += label.value == 1
                if label.value not in (0, 1):
                    others.add(label.name)
    return tuple(
        LabelEntry(
            name=column.name,
            kind=column.kind,
            level=column.level,
            known=known[column.name],
            positives=ones[column.name] if known[column.name] and column.name not in others else None,
        )
        for column in label_columns
    )


@dataclass(slots=True)
class _Fold:
    shards: int = 0
    patients: int = 0
    images: int = 0
    positive_patients: int = 0
    positive_images: int = 0

    def add(self, result: ShardResult, positive: str | None) -> None:
        """A shard of this fold: patients are in no other one."""
        rows = [row for row in result.rows if row.status is Status.PREPARED]
        positives = [row for row in rows if is_positive(row.labels, positive)]
        self.shards += 1
        self.patients += len({row.patient_id for row in rows})
        self.images += len(rows)
        self.positive_patients += len({row.patient_id for row in positives})
        self.positive_images += len(positives)


def folds_of(results: Iterable[ShardResult], folds: int, positive: str | None) -> tuple[FoldEntry, ...]:
    """What is in each fold."""
    totals: defaultdict[int, _Fold] = defaultdict(_Fold)
    for result in results:
        totals[result.fold].add(result, positive)
    return tuple(
        FoldEntry(
            fold=fold,
            shards=totals[fold].shards,
            patients=totals[fold].patients,
            images=totals[fold].images,
            positive_patients=None if positive is None else totals[fold].positive_patients,
            positive_images=None if positive is None else totals[fold].positive_images,
        )
        for fold in range(folds)
    )


def shard_of(result: ShardResult) -> ShardEntry:
    """A shard without its rows."""
    return ShardEntry(
        name=result.name,
        fold=result.fold,
        key=result.key,
        rows=sum(row.status is Status.PREPARED for row in result.rows),
        bytes=sum(file.bytes for file in result.files),
        files=result.files,
        statistics=result.statistics,
    )


def statistics_of(results: Iterable[ShardResult]) -> StatisticsEntry:
    """The pixel statistics of all shards together."""
    total = PixelStatistics.total(result.statistics for result in results)
    return StatisticsEntry(
        count=total.count,
        sum=total.sum,
        sum_squares=total.sum_squares,
        minimum=total.minimum,
        maximum=total.maximum,
        histogram=total.histogram,
        mean=total.mean(),
        std=total.std(),
    )
