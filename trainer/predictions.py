"""What a model said of each image: a table, its file, and its cases at image, breast and patient level.

In:  rows of a dataset, labels, probabilities.
Out: Predictions ⇄ predictions.parquet; Cases, what scores and intervals are computed from.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.atomic import write_atomically
from preprocess.errors import DatasetDamaged
from preprocess.failures import describe
from preprocess.places import Place, read_bytes
from preprocess.records import LabelValue
from preprocess.schema import InstanceRow

Texts = npt.NDArray[np.object_]
Doubles = npt.NDArray[np.float64]


class Level(StrEnum):
    """What a case is."""

    IMAGE = "image"
    BREAST = "breast"
    PATIENT = "patient"


@dataclass(frozen=True, slots=True)
class Cases:
    """Cases of one level, in order of their keys."""

    keys: tuple[str, ...]
    """image: source; breast: `<patient_id>_<laterality>`; patient: patient_id."""
    patients: Texts
    folds: npt.NDArray[np.int64]
    labels: Doubles
    """0, 1, or NaN where no image of the case has a label."""
    probabilities: Doubles

    def known(self) -> Cases:
        """The cases with a label."""
        return self.where(~np.isnan(self.labels))

    def where(self, mask: npt.NDArray[np.bool_]) -> Cases:
        """The cases where the mask (n,) is True."""
        keys = tuple(key for key, keep in zip(self.keys, mask, strict=True) if keep)
        return Cases(keys, self.patients[mask], self.folds[mask], self.labels[mask], self.probabilities[mask])


@dataclass(frozen=True, slots=True)
class Predictions:
    """One row per image, in the dataset's order. Text is None where unknown."""

    source: Texts
    image_id: Texts
    patient_id: Texts
    laterality: Texts
    view: Texts
    fold: npt.NDArray[np.int64]
    """Fold of the image; −1 for images of no fold's validation (a test split, another dataset)."""
    label: Doubles
    """0, 1, or NaN where unknown."""
    probability: Doubles

    @classmethod
    def of(cls, rows: Sequence[InstanceRow], folds: Any, labels: Any, probabilities: Any) -> Self:
        """From dataset rows and arrays (n,)."""
        return cls(
            source=np.array([row.source for row in rows], dtype=object),
            image_id=np.array([row.image_id for row in rows], dtype=object),
            patient_id=np.array([row.patient_id for row in rows], dtype=object),
            laterality=np.array([row.laterality for row in rows], dtype=object),
            view=np.array([row.view for row in rows], dtype=object),
            fold=np.asarray(folds, np.int64).ravel(),
            label=np.asarray(labels, np.float64).ravel(),
            probability=np.asarray(probabilities, np.float64).ravel(),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several tables below each other."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def where(self, mask: npt.NDArray[np.bool_]) -> Self:
        """The rows where the mask (n,) is True."""
        return type(self)(*(getattr(self, f.name)[mask] for f in fields(self)))

    def __len__(self) -> int:
        return len(self.source)

    def cases(self, level: Level) -> Cases:
        """Means of the images' probabilities; a case is positive if one of its images is.

        An image without laterality is a breast of its own at breast level.
        """
        if level is Level.IMAGE:
            return Cases(tuple(self.source), self.patient_id, self.fold, self.label, self.probability)
        keys = np.array([self._key(level, index) for index in range(len(self))], dtype=object)
        names, first, group = np.unique(keys.astype(str), return_index=True, return_inverse=True)
        answered = ~np.isnan(self.probability)
        counts = np.bincount(group[answered], minlength=names.size)
        sums = np.bincount(group[answered], weights=self.probability[answered], minlength=names.size)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        labels = np.full(names.size, np.nan)
        known = ~np.isnan(self.label)
        np.fmax.at(labels, group[known], self.label[known])
        return Cases(tuple(names.tolist()), self.patient_id[first], self.fold[first], labels, means)

    def _key(self, level: Level, index: int) -> str:
        patient = str(self.patient_id[index])
        if level is Level.PATIENT:
            return patient
        side = self.laterality[index]
        return f"{patient}_{side}" if side else f"{patient}_?{self.source[index]}"

    def write(self, path: Place) -> None:
        """Write predictions.parquet atomically, page checksums included. Raises RunAborted."""
        columns = {f.name: self._column(getattr(self, f.name)) for f in fields(self)}
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer, write_page_checksum=True, store_schema=False)
        write_atomically(path, buffer.getvalue())

    @staticmethod
    def _column(values: npt.NDArray[Any]) -> pa.Array:
        if values.dtype == object:
            return pa.array([None if v is None else str(v) for v in values], pa.string())
        return pa.array(values, from_pandas=values.dtype == np.float64)  # NaN: no label

    @classmethod
    def read(cls, path: Place) -> Self:
        """Read what `write` wrote. Raises DatasetDamaged."""
        try:
            table = pq.read_table(io.BytesIO(read_bytes(path)), page_checksum_verification=True)
            return cls(*(cls._values(table.column(f.name)) for f in fields(cls)))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DatasetDamaged(f"{path.name} cannot be read: {describe(error)}") from None

    @staticmethod
    def _values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
        if pa.types.is_string(column.type):
            return np.array(column.to_pylist(), dtype=object)
        if pa.types.is_floating(column.type):
            return np.array([np.nan if v is None else v for v in column.to_pylist()], np.float64)
        return np.array(column.to_pylist(), np.int64)


def attribute(rows: Sequence[InstanceRow], name: str) -> tuple[LabelValue, ...]:
    """A column or label of each row, None where it is unknown."""
    if name in InstanceRow.__dataclass_fields__:
        return tuple(getattr(row, name) for row in rows)
    found = ({label.name: label.value for label in row.labels} for row in rows)
    return tuple(labels.get(name) for labels in found)
