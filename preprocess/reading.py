"""Reading a dataset back: images with their rows, every checksum verified on the way.

In:  OUT, complete.
Out: (InstanceRow, pixels), or DatasetDamaged. For users, `verify` and the trainer's tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt

from preprocess.config import Format
from preprocess.errors import DatasetDamaged
from preprocess.images import decode, picture_path, pixels_sha256
from preprocess.manifest import ShardEntry, read_manifest, read_rows
from preprocess.parquet import read_shard
from preprocess.png import decode_png
from preprocess.records import Status
from preprocess.results import ShardFile
from preprocess.schema import InstanceRow
from preprocess.sinks import IMAGES
from preprocess.tfrecord import FeatureLists, decode_example, read_records

Pixels = npt.NDArray[Any]
"""(height, width) uint8 or uint16."""


def read_images(out: Path) -> Iterator[tuple[InstanceRow, Pixels]]:
    """Yield every prepared image of a dataset with its row, in shard order; one image in memory.

    Pixels are (height, width) uint8 or uint16, MONOCHROME2, compared with their `pixels_sha256`. Of several
    formats the first is read.

    Raises:
        UsageError: OUT is not a complete dataset of this version.
        DatasetDamaged: something is not what was written.
    """
    manifest = read_manifest(out)
    rows = rows_by_shard(read_rows(out, manifest.label_columns()))
    for shard in manifest.shards:
        kind = manifest.config.formats[0]
        yield from read_shard_images(out, shard, kind, rows.get(shard.name, []))


def rows_by_shard(rows: list[InstanceRow]) -> dict[str, list[InstanceRow]]:
    """Rows of prepared images by shard, in the order of `shard_row`.

    Raises:
        DatasetDamaged: a shard's rows are not 0, 1, 2, …
    """
    shards: dict[str, list[InstanceRow]] = {}
    for row in sorted((r for r in rows if r.status is Status.PREPARED), key=_place):
        members = shards.setdefault(row.shard or "", [])
        if row.shard_row != len(members):
            raise DatasetDamaged(f"{row.shard}: row {len(members)} is missing or there twice")
        members.append(row)
    return shards


def read_shard_images(
    out: Path, shard: ShardEntry, kind: Format, rows: list[InstanceRow]
) -> Iterator[tuple[InstanceRow, Pixels]]:
    """Yield the images of one shard out of its files of one format, checked against `rows`."""
    count = 0
    for source, pixels in stored_images(out, shard, kind, rows):
        row = rows[count] if count < len(rows) else None
        if row is None or source != row.source or pixels_sha256(pixels) != row.pixels_sha256:
            raise DatasetDamaged(f"{shard.name}: image {count} is not that of its row in instances.parquet")
        yield row, pixels
        count += 1
    if count != len(rows) or count != shard.rows:
        raise DatasetDamaged(f"{shard.name}: {count} images, {len(rows)} rows, {shard.rows} expected")


def stored_images(
    out: Path, shard: ShardEntry, kind: Format, rows: list[InstanceRow]
) -> Iterator[tuple[str, Pixels]]:
    """(source, pixels) as the files say; for PNG the row's path decides."""
    sources = {f"{IMAGES}/{picture_path(row)}": row.source for row in rows} if kind is Format.PNG else {}
    for file in shard.files:
        if file.format == kind:
            if kind is Format.PNG:
                yield _picture(out, file, sources)
            else:
                yield from (_from_tfrecord if kind is Format.TFRECORD else _from_parquet)(out / file.path)


def _picture(out: Path, file: ShardFile, sources: dict[str, str]) -> tuple[str, Pixels]:
    try:
        return sources[file.path], decode_png((out / file.path).read_bytes())
    except KeyError:
        raise DatasetDamaged(f"{file.path} belongs to no row") from None
    except OSError as error:
        raise DatasetDamaged(f"{file.path} cannot be read ({type(error).__name__})") from None


def _from_tfrecord(path: Path) -> Iterator[tuple[str, Pixels]]:
    try:
        for record in read_records(path):
            example = decode_example(record)
            pixels = decode(
                _bytes(example, "image/encoded"),
                _bytes(example, "image/format").decode(),
                *(_int(example, f"image/{name}") for name in ("height", "width", "bits")),
            )
            yield _bytes(example, "source").decode(), pixels
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetDamaged(f"{path.name} cannot be read ({type(error).__name__})") from None


def _from_parquet(path: Path) -> Iterator[tuple[str, Pixels]]:
    for row in read_shard(path):
        image = cast(dict[str, bytes], row["image"])
        height, width, bits = (cast(int, row[name]) for name in ("height", "width", "bits"))
        yield str(row["source"]), decode(image["bytes"], str(row["format"]), height, width, bits)


def _bytes(example: FeatureLists, name: str) -> bytes:
    values = example.get(name, [])
    if len(values) != 1 or not isinstance(values[0], bytes):
        raise DatasetDamaged(f"a record has no {name}")
    return values[0]


def _int(example: FeatureLists, name: str) -> int:
    values = example.get(name, [])
    if len(values) != 1 or not isinstance(values[0], int):
        raise DatasetDamaged(f"a record has no {name}")
    return values[0]


def _place(row: InstanceRow) -> tuple[str, int]:
    return row.shard or "", -1 if row.shard_row is None else row.shard_row
