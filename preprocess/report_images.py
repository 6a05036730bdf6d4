"""Prepared images as small pictures for the contact sheet, read back from whatever files OUT holds.

In:  rows of instances.parquet (their `shard` and `shard_row`).
Out: an 8-bit PNG per source; a shard that is missing or damaged leaves its pictures out (`verify` says why).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from preprocess import images
from preprocess.config import Encoding, Format
from preprocess.errors import DatasetDamaged
from preprocess.places import Place, open_bytes, read_bytes
from preprocess.report_data import Dataset
from preprocess.tfrecord import decode_example, read_records
from preprocess.thumbnails import THUMBNAIL_ROWS, encode, shrink

Pixels = npt.NDArray[Any]
Reader = Callable[[Place, frozenset[int]], Iterator[tuple[int, Pixels]]]


def prepared_pictures(dataset: Dataset, rows: pd.DataFrame) -> dict[str, bytes]:
    """Pictures of the given prepared rows by source, from PNG files, Parquet or TFRecord in that order."""
    preferred = (Format.PNG, Format.PARQUET, Format.TFRECORD)
    chosen = next(kind for kind in preferred if kind in dataset.config.formats)
    if chosen is Format.PNG:
        return _from_files(dataset.out, rows)
    read = _from_parquet if chosen is Format.PARQUET else _from_tfrecord
    pictures: dict[str, bytes] = {}
    for shard, group in rows.groupby("shard", sort=True):
        wanted = {
            int(row): str(source) for row, source in zip(group["shard_row"], group["source"], strict=True)
        }
        pictures |= _pictures(dataset.out / f"{shard}.{chosen.value}", wanted, read)
    return pictures


def _pictures(path: Place, wanted: dict[int, str], read: Reader) -> dict[str, bytes]:
    try:
        return {wanted[row]: encode(to_gray(pixels)) for row, pixels in read(path, frozenset(wanted))}
    except (OSError, KeyError, ValueError, DatasetDamaged, pa.ArrowException):
        return {}


def to_gray(pixels: Pixels, max_rows: int = THUMBNAIL_ROWS) -> npt.NDArray[np.uint8]:
    """The upper 8 bits of uint8 or uint16 pixels, shrunk to at most `max_rows`."""
    gray = pixels if pixels.dtype == np.uint8 else pixels >> 8
    return shrink(gray.astype(np.uint8), max_rows)


def _from_files(out: Place, rows: pd.DataFrame) -> dict[str, bytes]:
    pictures: dict[str, bytes] = {}
    for _, row in rows.iterrows():
        patient, image = (images.safe_component(str(row[name])) for name in ("patient_id", "image_id"))
        path = out / "images" / patient / f"{image}.png"
        try:
            pixels = images.decode(
                read_bytes(path), Encoding.PNG, int(row["height"]), int(row["width"]), int(row["bits"])
            )
        except (OSError, DatasetDamaged):
            continue
        pictures[str(row["source"])] = encode(to_gray(pixels))
    return pictures


def _from_parquet(path: Place, wanted: frozenset[int]) -> Iterator[tuple[int, Pixels]]:
    columns = ["image", "format", "height", "width", "bits"]
    with open_bytes(path) as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
        start = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            here = sorted(row - start for row in wanted if start <= row < start + count)
            values = file.read_row_group(group, columns=columns).take(here).to_pylist() if here else []
            for row, value in zip(here, values, strict=True):
                size = (value["height"], value["width"], value["bits"])
                yield start + row, images.decode(value["image"]["bytes"], value["format"], *size)
            start += count


def _from_tfrecord(path: Place, wanted: frozenset[int]) -> Iterator[tuple[int, Pixels]]:
    for row, record in enumerate(read_records(path)):
        if row > max(wanted):
            return
        if row in wanted:
            example = decode_example(record)
            size = (int(example[f"image/{name}"][0]) for name in ("height", "width", "bits"))
            (data,), (kind,) = example["image/encoded"], example["image/format"]
            assert isinstance(data, bytes)
            assert isinstance(kind, bytes)
            yield row, images.decode(data, kind.decode(), *size)
