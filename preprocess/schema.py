"""InstanceRow: the columns of instances.parquet, in one place (docs/dataset.md).

In:  Prepared, Reject or a duplicate, plus its place.
Out: one row per input. The same names are the TFRecord keys and Parquet columns of the shards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from preprocess.records import (
    Instance,
    Label,
    LabelColumn,
    LabelValue,
    Prepared,
    Reject,
    ScannedFile,
    Status,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One input's outcome. None where a column does not apply."""

    source: str
    status: Status
    reject_stage: str | None = None
    reject_code: str | None = None
    reject_message: str | None = None
    patient_id: str | None = None
    image_id: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    laterality: str | None = None
    view: str | None = None
    site_id: str | None = None
    machine_id: str | None = None
    manufacturer: str | None = None
    manufacturer_model_name: str | None = None
    transfer_syntax_uid: str | None = None
    rows: int | None = None
    columns: int | None = None
    bits_stored: int | None = None
    photometric_interpretation: str | None = None
    pixel_spacing_row_mm: float | None = None
    pixel_spacing_column_mm: float | None = None
    codestream_precision: int | None = None
    codestream_levels: int | None = None
    file_bytes: int | None = None
    file_sha256: str | None = None
    decoder: str | None = None
    decode_level: int | None = None
    decoded_sha256: str | None = None
    voi_source: str | None = None
    voi_lut_function: str | None = None
    window_center: float | None = None
    window_width: float | None = None
    roi: str | None = None
    box_row: int | None = None
    box_column: int | None = None
    box_rows: int | None = None
    box_columns: int | None = None
    flipped: bool | None = None
    content_row: int | None = None
    content_column: int | None = None
    content_rows: int | None = None
    content_columns: int | None = None
    height: int | None = None
    width: int | None = None
    bits: int | None = None
    fold: int | None = None
    shard: str | None = None
    shard_row: int | None = None
    pixels_sha256: str | None = None
    modality: str | None = None
    presentation_intent_type: str | None = None
    burned_in_annotation: str | None = None
    split: str | None = None
    above_bits_stored: int | None = None
    duplicate_of: str | None = None
    background_blanked: bool | None = None
    labels: tuple[Label, ...] = ()

    def values(self) -> dict[str, LabelValue]:
        """Column name → value, labels included, in schema order."""
        row = {name: getattr(self, name) for name in COLUMN_NAMES}
        return row | {label.name: label.value for label in self.labels}


class RowCodec:
    """InstanceRow as plain values, for lists that are kept outside memory (spill.py)."""

    def dump(self, value: InstanceRow) -> tuple[object, ...]:
        """Take apart."""
        labels = tuple((label.name, label.value) for label in value.labels)
        return (labels, value.status.value, *(getattr(value, name) for name in _PLAIN_NAMES))

    def load(self, plain: tuple[Any, ...]) -> InstanceRow:
        """Put together again."""
        labels, status, *values = plain
        return InstanceRow(
            labels=tuple(Label(*label) for label in labels),
            status=Status(status),
            **dict(zip(_PLAIN_NAMES, values, strict=True)),
        )


COLUMN_NAMES: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(InstanceRow) if f.name != "labels")
"""Fixed columns in their fixed order; label columns follow."""
_PLAIN_NAMES = tuple(name for name in COLUMN_NAMES if name != "status")

_ARROW = {
    "str": pa.string(),
    "Status": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}
_LABEL_ARROW = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}


def arrow_schema(labels: Iterable[LabelColumn] = ()) -> pa.Schema:
    """The explicit Arrow schema of instances.parquet with the given label columns."""
    fields = [
        pa.field(f.name, _ARROW[str(f.type).split(" | ")[0]])
        for f in dataclasses.fields(InstanceRow)
        if f.name != "labels"
    ]
    fields += [pa.field(label.name, _LABEL_ARROW[label.kind]) for label in labels]
    return pa.schema(fields)


def _of_instance(instance: Instance) -> dict[str, LabelValue]:
    image, facts = instance.image, instance.codestream
    return {
        "patient_id": instance.identity.patient_id,
        "image_id": instance.identity.image_id,
        "study_instance_uid": instance.study_instance_uid,
        "series_instance_uid": instance.series_instance_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "laterality": instance.identity.laterality,
        "view": instance.identity.view,
        "site_id": instance.identity.site_id,
        "machine_id": instance.identity.machine_id,
        "split": instance.identity.split,
        "manufacturer": image.manufacturer,
        "manufacturer_model_name": image.manufacturer_model_name,
        "transfer_syntax_uid": image.transfer_syntax_uid,
        "rows": image.rows,
        "columns": image.columns,
        "bits_stored": image.bits_stored,
        "photometric_interpretation": image.photometric_interpretation,
        "pixel_spacing_row_mm": image.pixel_spacing_row_mm,
        "pixel_spacing_column_mm": image.pixel_spacing_column_mm,
        "modality": image.modality,
        "presentation_intent_type": image.presentation_intent_type,
        "burned_in_annotation": image.burned_in_annotation,
        "codestream_precision": facts.precision if facts else None,
        "codestream_levels": facts.levels if facts else None,
        "file_bytes": instance.file_bytes,
        "file_sha256": instance.file_sha256,
    }


def prepared_row(prepared: Prepared, *, fold: int, shard: str, shard_row: int) -> InstanceRow:
    """The row of a prepared image at its place."""
    mammogram, geometry, voi = prepared.mammogram, prepared.geometry, prepared.voi
    instance, box, window = mammogram.instance, prepared.geometry.box, prepared.voi.window
    fields = _of_instance(instance) | {
        "decoder": mammogram.decoder,
        "decode_level": mammogram.level,
        "decoded_sha256": prepared.decoded_sha256,
        "above_bits_stored": mammogram.above_bits_stored,
        "voi_source": voi.source.value,
        "voi_lut_function": voi.function.value if voi.function else None,
        "window_center": float(window.center) if window else None,
        "window_width": float(window.width) if window else None,
        "roi": box.method.value,
        "box_row": box.row,
        "box_column": box.column,
        "box_rows": box.rows,
        "box_columns": box.columns,
        "flipped": box.flipped,
        "content_row": geometry.content_row,
        "content_column": geometry.content_column,
        "content_rows": geometry.content_rows,
        "content_columns": geometry.content_columns,
        "height": geometry.height,
        "width": geometry.width,
        "bits": prepared.bits,
        "fold": fold,
        "shard": shard,
        "shard_row": shard_row,
        "pixels_sha256": prepared.pixels_sha256,
        "background_blanked": prepared.background_blanked,
    }
    return InstanceRow(
        source=instance.source.source,
        status=Status.PREPARED,
        labels=instance.source.labels,
        **fields,  # type: ignore[arg-type]  # columns by name, each of its type
    )


def rejected_row(reject: Reject) -> InstanceRow:
    """The row of a reject, with whatever was known of the input."""
    identity = reject.source.identity
    known: dict[str, LabelValue] = {
        "patient_id": identity.patient_id,
        "image_id": identity.image_id,
        "laterality": identity.laterality,
        "view": identity.view,
        "site_id": identity.site_id,
        "machine_id": identity.machine_id,
        "split": identity.split,
        "file_bytes": reject.file_bytes,
        "file_sha256": reject.file_sha256,
    }
    if reject.instance is not None:
        known = _of_instance(reject.instance)
    return InstanceRow(
        source=reject.source.source,
        status=Status.REJECTED,
        reject_stage=reject.stage.value,
        reject_code=reject.code,
        reject_message=reject.message,
        labels=reject.source.labels,
        **known,  # type: ignore[arg-type]  # likewise
    )


def duplicate_row(file: ScannedFile, original: str, file_sha256: str) -> InstanceRow:
    """The row of an input whose pixels are those of `original` (a source), which stays."""
    identity = file.identity
    return InstanceRow(
        source=file.source.source,
        status=Status.DUPLICATE,
        duplicate_of=original,
        patient_id=identity.patient_id,
        image_id=identity.image_id,
        laterality=identity.laterality,
        view=identity.view,
        site_id=identity.site_id,
        machine_id=identity.machine_id,
        split=identity.split,
        sop_instance_uid=file.sop_instance_uid,
        file_bytes=file.file_bytes,
        file_sha256=file_sha256,
        labels=file.source.labels,
    )
