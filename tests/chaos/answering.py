"""Executors that know what workers would say about `crowd`'s files: the driver's memory, without the work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

from preprocess.executors.base import Record
from preprocess.journal import shard_key
from preprocess.records import ScannedFile, SourceFile, Status
from preprocess.results import PixelStatistics, ShardResult
from preprocess.schema import InstanceRow
from preprocess.tasks import ScanTask, ShardOutcome, ShardTask

_UID = "1.2.826.0.1.3680043.8.498.{}"
_STATISTICS = PixelStatistics(1, 2, 4, 2, 2, tuple(range(1000, 1256)))
_ROW = InstanceRow(
    source="",
    status=Status.PREPARED,
    study_instance_uid=_UID.format(12345678901234567890),
    series_instance_uid=_UID.format(22345678901234567890),
    manufacturer="HOLOGIC, Inc.",
    manufacturer_model_name="Selenia Dimensions",
    transfer_syntax_uid="1.2.840.10008.1.2.4.90",
    rows=3328,
    columns=2560,
    bits_stored=12,
    photometric_interpretation="MONOCHROME2",
    pixel_spacing_row_mm=0.065,
    pixel_spacing_column_mm=0.065,
    codestream_precision=12,
    codestream_levels=5,
    file_bytes=2_123_456,
    decoder="openjpeg",
    decode_level=1,
    voi_source="window",
    voi_lut_function="LINEAR",
    window_center=540.0,
    window_width=580.0,
    roi="breast",
    box_row=0,
    box_column=10,
    box_rows=2000,
    box_columns=1000,
    flipped=False,
    content_row=0,
    content_column=0,
    content_rows=1024,
    content_columns=512,
    height=1024,
    width=512,
    bits=16,
    modality="MG",
    above_bits_stored=0,
    background_blanked=False,
)


class Answering:
    """Answers scans, without opening a file."""

    def run(self, tasks: Iterable[Any]) -> Iterator[Any]:
        for task in tasks:
            assert isinstance(task, ScanTask)
            yield tuple(
                ScannedFile(source, source.identity, _UID.format(source.identity.image_id), 900, 10**18)
                for source in task.sources
            )


class Preparing(Answering):
    """Answers shards too: rows with everything that real ones have, but no files."""

    def __init__(self, *_: object, **__: object) -> None:
        self.record = Record()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, tasks: Iterable[Any]) -> Iterator[Any]:
        for task in tasks:
            yield from [_shard(task)] if isinstance(task, ShardTask) else super().run([task])


def _shard(task: ShardTask) -> ShardOutcome:
    plan = task.plan
    assert plan is not None
    rows = tuple(_row(source, plan.name, plan.fold, number) for number, source in enumerate(task.sources))
    key = shard_key(plan, task.config, task.pseudonyms)
    return ShardOutcome(ShardResult(plan.name, plan.fold, key, rows, (), _STATISTICS, plan.stamp()), ())


def _row(source: SourceFile, shard: str, fold: int, number: int) -> InstanceRow:
    who, digest = source.identity, hashlib.sha256(source.source.encode()).hexdigest()
    return replace(
        _ROW,
        source=source.source,
        patient_id=who.patient_id,
        image_id=who.image_id,
        laterality=who.laterality,
        view=who.view,
        site_id=who.site_id,
        machine_id=who.machine_id,
        sop_instance_uid=_UID.format(who.image_id),
        file_sha256=digest,
        decoded_sha256=digest[::-1],
        pixels_sha256=digest[1:] + digest[0],
        fold=fold,
        shard=shard,
        shard_row=number,
        labels=source.labels,
    )
