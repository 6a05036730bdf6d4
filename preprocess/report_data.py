"""What a finished run left in OUT, read for the report and the dataset card.

In:  OUT with manifest.json and instances.parquet, and run.json where it exists.
Out: Dataset and RunFacts: typed values; keys that are missing in run.json are simply not known.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preprocess.config import ResultConfig
from preprocess.errors import DatasetDamaged
from preprocess.failures import describe
from preprocess.manifest import INSTANCES, Manifest, read_manifest
from preprocess.places import Place, open_bytes, read_bytes
from preprocess.records import Status

NOT_SHOWN = frozenset(
    {
        "study_instance_uid",
        "series_instance_uid",
        "sop_instance_uid",
        "file_sha256",
        "decoded_sha256",
        "pixels_sha256",
        "duplicate_of",
        "pixel_spacing_column_mm",
        "codestream_precision",
        "codestream_levels",
        "file_bytes",
        "box_row",
        "box_column",
        "content_row",
        "content_column",
        "modality",
    }
)
"""Columns that neither report nor card look at: half of a large table."""

_NULLABLE = {
    pa.string(): pd.StringDtype("pyarrow"),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}
"""Strings stay Arrow's: as Python objects a million rows would take gigabytes."""

_INT32 = np.iinfo(np.int32)

JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """How a run went, from run.json. None or empty where it does not say; part of no promise."""

    started: str | None = None
    seconds: float | None = None
    workers: int | None = None
    host: str | None = None
    images_per_second: float | None = None
    versions: tuple[tuple[str, str], ...] = ()
    stages: tuple[tuple[str, float], ...] = ()
    """Seconds by stage, summed over workers."""

    @classmethod
    def of(cls, document: JsonObject) -> Self:
        """Take what is there and has the right type."""
        return cls(
            started=_text(document.get("started")),
            seconds=_number(document.get("seconds")),
            workers=_whole(document.get("workers")),
            host=_text(document.get("host")) or _joined(_object(document.get("host"))),
            images_per_second=_number(document.get("images_per_second")),
            versions=tuple(
                (name, str(value))
                for name, value in _object(document.get("versions")).items()
                if value is not None
            ),
            stages=tuple(
                (name, seconds)
                for name, value in _object(document.get("stages")).items()
                if (seconds := _number(value)) is not None
            ),
        )


@dataclass(frozen=True, slots=True)
class Dataset:
    """OUT as the report and the card see it."""

    out: Place
    table: pd.DataFrame
    """instances.parquet with nullable types."""
    manifest: Manifest

    @property
    def config(self) -> ResultConfig:
        """The result config it was made with."""
        return self.manifest.config

    @property
    def shard_bytes(self) -> int:
        """Size of all data files."""
        return sum(shard.bytes for shard in self.manifest.shards)

    def count(self, status: Status) -> int:
        """Inputs with this outcome."""
        return int((self.table["status"] == status.value).sum())


def read_dataset(out: Place) -> Dataset:
    """Read OUT. Raises UsageError if it is not a complete dataset, DatasetDamaged if it cannot be read."""
    manifest = read_manifest(out)
    shown = [name for name in manifest.columns if name not in NOT_SHOWN]
    try:
        with open_bytes(out / INSTANCES) as stream:
            table = _read_columns(stream, [*shown, *(label.name for label in manifest.labels)])
    except (OSError, ValueError, KeyError) as error:
        raise DatasetDamaged(f"{INSTANCES} cannot be read: {describe(error)}") from None
    return Dataset(out, table, manifest)


def _read_columns(stream: BinaryIO, names: Sequence[str]) -> pd.DataFrame:
    """One column after the other: the file's pages and Arrow's copy of one only are in memory besides."""
    columns = {}
    with pq.ParquetFile(stream) as file:
        for name in names:
            column = _narrow(file.read(columns=[name], use_threads=False))
            columns[name] = column.to_pandas(types_mapper=_NULLABLE.get, self_destruct=True)[name]
            del column
            pa.default_memory_pool().release_unused()
    return pd.DataFrame(columns, copy=False)


def _narrow(column: pa.Table) -> pa.Table:
    """A column of integers in half the bytes, where they fit."""
    if column.schema.types != [pa.int64()]:
        return column
    ends = pc.min_max(column.column(0)).as_py()
    low, high = (value or 0 for value in (ends["min"], ends["max"]))
    if low < _INT32.min or high > _INT32.max:
        return column
    return column.cast(pa.schema([(column.schema.names[0], pa.int32())]))


def read_run(out: Place) -> RunFacts | None:
    """run.json of OUT, or None."""
    document = read_json(out / "run.json")
    return RunFacts.of(document) if document else None


def read_json(path: Place) -> JsonObject:
    """A JSON object from a file; empty if the file is absent or is not a JSON object."""
    with contextlib.suppress(OSError, ValueError):
        return _object(json.loads(read_bytes(path)))
    return {}


def _object(value: object) -> JsonObject:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _joined(document: JsonObject) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in sorted(document.items())) or None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
