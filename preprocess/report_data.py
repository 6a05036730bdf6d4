"""What a finished run left in OUT, read for the report and the dataset card.

In:  OUT with instances.parquet, and manifest.json and run.json where they exist.
Out: Dataset and RunFacts: typed values; keys that are missing in run.json are simply not known.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd

from preprocess.config import Format, ResultConfig
from preprocess.errors import DatasetDamaged, UsageError
from preprocess.records import LabelColumn, LabelLevel, Status

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
class Statistics:
    """Intensities of the prepared images: a histogram over the output range, mean and deviation."""

    histogram: tuple[int, ...] = ()
    mean: float | None = None
    standard_deviation: float | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """OUT as the report and the card see it."""

    out: Path
    table: pd.DataFrame
    config: ResultConfig
    complete: bool
    """manifest.json is there."""
    config_sha256: str
    found: int | None
    """What the manifest says was found."""
    ignored: int | None
    labels: tuple[LabelColumn, ...]
    shards: int
    shard_bytes: int
    statistics: Statistics

    def count(self, status: Status) -> int:
        """Inputs with this outcome."""
        return int((self.table["status"] == status.value).sum())

    @property
    def formats(self) -> tuple[Format, ...]:
        """Kinds of files in OUT."""
        return self.config.formats


def read_dataset(out: Path) -> Dataset:
    """Read OUT. Raises UsageError if there is no instances.parquet, DatasetDamaged if it cannot be read."""
    if not (out / "instances.parquet").is_file():
        raise UsageError(f"{out} holds no instances.parquet: not a dataset of bcd-prep")
    try:
        table = pd.read_parquet(out / "instances.parquet", dtype_backend="numpy_nullable")
    except (OSError, ValueError) as error:
        raise DatasetDamaged(f"instances.parquet cannot be read ({type(error).__name__})") from None
    manifest = read_json(out / "manifest.json")
    stored = _object(manifest.get("config"))
    shards = _list(manifest.get("shards"))
    try:
        config = ResultConfig.model_validate(stored)
    except ValueError:
        raise DatasetDamaged("manifest.json holds a config that this version does not know") from None
    return Dataset(
        out=out,
        table=table,
        config=config,
        complete=bool(manifest),
        config_sha256=_text(manifest.get("config_sha256")) or config.sha256(),
        found=_whole(_object(manifest.get("counts")).get("found")),
        ignored=_whole(_object(manifest.get("counts")).get("ignored")),
        labels=_labels(manifest),
        shards=len(shards),
        shard_bytes=sum(_whole(_object(shard).get("bytes")) or 0 for shard in shards),
        statistics=_statistics(_object(manifest.get("statistics"))),
    )


def read_run(out: Path) -> RunFacts | None:
    """run.json of OUT, or None."""
    document = read_json(out / "run.json")
    return RunFacts.of(document) if document else None


def read_json(path: Path) -> JsonObject:
    """A JSON object from a file; empty if the file is absent or is not a JSON object."""
    with contextlib.suppress(OSError, ValueError):
        return _object(json.loads(path.read_text(encoding="utf-8")))
    return {}


def _labels(manifest: JsonObject) -> tuple[LabelColumn, ...]:
    columns = [_object(item) for item in _list(manifest.get("labels"))]
    return tuple(
        LabelColumn(str(item["name"]), str(item["kind"]), LabelLevel(str(item["level"]))) for item in columns
    )


def _statistics(document: JsonObject) -> Statistics:
    histogram = tuple(
        count for value in _list(document.get("histogram")) if (count := _whole(value)) is not None
    )
    return Statistics(histogram, _number(document.get("mean")), _number(document.get("std")))


def _object(value: object) -> JsonObject:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _joined(document: JsonObject) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in sorted(document.items())) or None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
