"""Reading a dataset back: images with their rows, every checksum verified on the way.

In:  OUT, complete.
Out: (InstanceRow, pixels), or DatasetDamaged. For users, `verify` and the trainer's tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, cast

import numpy.typing as npt

from preprocess.config import Format
from preprocess.errors import DatasetDamaged, DatasetUnreadable
from preprocess.failures import describe
from preprocess.images import decode, picture_path, pixels_sha256
from preprocess.manifest import INSTANCES, Manifest, ShardEntry, read_manifest, read_rows, rows_sha256
from preprocess.parquet import ParquetValue, read_shard
from preprocess.places import Place, open_bytes, read_bytes
from preprocess.png import decode_png
from preprocess.records import Status
from preprocess.results import ShardFile
from preprocess.schema import InstanceRow
from preprocess.sinks import IMAGES
from preprocess.tfrecord import FeatureLists, decode_example, read_records

_CHUNK = 1 << 20

Pixels = npt.NDArray[Any]
"""(height, width) uint8 or uint16."""


def read_images(out: Place) -> Iterator[tuple[InstanceRow, Pixels]]:
    """Yield every prepared image of a dataset with its row, in shard order; one image in memory.

    Pixels are (height, width) uint8 or uint16, MONOCHROME2, compared with their `pixels_sha256`. Of several
    formats the first is read.

    Raises:
        UsageError: OUT is not a complete dataset of this version.
        DatasetDamaged: something is not what was written.
    """
    manifest = read_manifest(out)
    rows = rows_by_shard(written_rows(out, manifest))
    for shard in manifest.shards:
        kind = manifest.config.formats[0]
        yield from read_shard_images(out, shard, kind, rows.get(shard.name, []))


def written_rows(out: Place, manifest: Manifest) -> list[InstanceRow]:
    """Rows of instances.parquet, compared with the manifest's hash over them. Raises DatasetDamaged."""
    rows = read_rows(out, manifest.label_columns())
    if rows_sha256(rows, manifest.label_columns()) != manifest.rows_sha256:
        raise DatasetDamaged(f"{INSTANCES} holds other rows than were written")
    return rows


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
    out: Place, shard: ShardEntry, kind: Format, rows: list[InstanceRow]
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
    out: Place, shard: ShardEntry, kind: Format, rows: list[InstanceRow]
) -> Iterator[tuple[str, Pixels]]:
    """(source, pixels) as the files say; for PNG the row's path decides."""
    sources = {f"{IMAGES}/{picture_path(row)}": row.source for row in rows} if kind is Format.PNG else {}
    for file in shard.files:
        if file.format == kind:
            if kind is Format.PNG:
                yield _picture(out, file, sources)
            elif kind is Format.TFRECORD:
                yield from _from_tfrecord(out / file.path)
            else:
                check_file(out, file)  # page checksums leave page headers and the footer open
                yield from _from_parquet(out / file.path)


def check_file(out: Place, file: ShardFile) -> None:
    """Compare a data file's size and sha256 with the manifest's. Raises DatasetDamaged."""
    digest, size = hashlib.sha256(), 0
    try:
        with open_bytes(out / file.path) as stream:
            while block := stream.read(_CHUNK):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        raise DatasetDamaged(f"{file.path} is missing") from None
    except OSError as error:
        raise DatasetUnreadable(f"{file.path} cannot be read: {describe(error)}") from None
    if size != file.bytes:
        raise DatasetDamaged(f"{file.path} has {size} bytes instead of {file.bytes}")
    if digest.hexdigest() != file.sha256:
        raise DatasetDamaged(f"{file.path} has another sha256 than the manifest")


def _picture(out: Place, file: ShardFile, sources: dict[str, str]) -> tuple[str, Pixels]:
    try:
        return sources[file.path], decode_png(read_bytes(out / file.path))
    except KeyError:
        raise DatasetDamaged(f"{file.path} belongs to no row") from None
    except OSError as error:
        raise DatasetDamaged(f"{file.path} cannot be read: {describe(error)}") from None


def _from_tfrecord(path: Place) -> Iterator[tuple[str, Pixels]]:
    try:
        for record in read_records(path):
            yield example_image(record)
    except OSError as error:
        raise DatasetDamaged(f"{path.name} cannot be read: {describe(error)}") from None


def _from_parquet(path: Place) -> Iterator[tuple[str, Pixels]]:
    for row in read_shard(path):
        yield row_image(row)


def example_image(record: bytes) -> tuple[str, Pixels]:
    """Source and pixels of a serialised Example. Raises DatasetDamaged."""
    example = decode_example(record)
    try:
        source, encoding = (_bytes(example, name).decode() for name in ("source", "image/format"))
    except UnicodeDecodeError:
        raise DatasetDamaged("a record's text is not UTF-8") from None
    size = (_int(example, f"image/{name}") for name in ("height", "width", "bits"))
    return source, decode(_bytes(example, "image/encoded"), encoding, *size)


def row_image(row: dict[str, ParquetValue]) -> tuple[str, Pixels]:
    """Source and pixels of a Parquet shard's row. Raises DatasetDamaged."""
    image = cast(dict[str, bytes], row["image"])
    height, width, bits = (cast(int, row[name]) for name in ("height", "width", "bits"))
    return str(row["source"]), decode(image["bytes"], str(row["format"]), height, width, bits)


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
