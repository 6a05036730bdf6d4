"""Parquet shards and instances.parquet: explicit schema, fixed sizes, page checksums.

In:  rows one by one (shards) or all together (instances.parquet).
Out: the same bytes for the same rows and library, and back with page checksums verified.

Arrow's own schema and pandas' metadata are left out. The one thing that shards' metadata say is which column
is a picture, in the words of Hugging Face `datasets`, so that load_dataset shows it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.config import Encoding, ResultConfig
from preprocess.errors import DatasetDamaged, DatasetUnreadable, RunAborted
from preprocess.failures import describe
from preprocess.images import SHARD_COLUMNS
from preprocess.places import Place, open_bytes
from preprocess.records import LabelColumn, LabelValue
from preprocess.schema import COLUMN_NAMES, InstanceRow, arrow_schema

ParquetValue = LabelValue | dict[str, bytes | str]

_GROUP_IMAGES = 8
_GROUP_PIXELS = 1 << 22
_INSTANCE_ROWS = 4096
_PAGES = {"data_page_size": 1 << 20, "write_batch_size": 1024, "data_page_version": "1.0"}
_WRITER = re.compile(r"parquet-cpp-arrow version \d+\.\d+\.\d+")
_IMAGE_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


def group_images(config: ResultConfig) -> int:
    """Images in a row group: 8 up to 1024x512, fewer of larger ones, so that a group stays small."""
    return max(1, min(_GROUP_IMAGES, _GROUP_PIXELS // (config.height * config.width)))


def shard_schema(label_columns: Sequence[LabelColumn]) -> pa.Schema:
    """Schema of a Parquet shard: image, format, height, width, bits, then the table's columns and labels."""
    table = arrow_schema(label_columns)
    names = [*SHARD_COLUMNS, *(column.name for column in label_columns)]
    first = [pa.field("image", _IMAGE_TYPE), pa.field("format", pa.string())]
    first += [pa.field(name, pa.int64()) for name in ("height", "width", "bits")]
    return pa.schema(first + [table.field(name) for name in names])


def shard_metadata(schema: pa.Schema) -> dict[str, str]:
    """Feature types in Hugging Face's words: deterministic JSON."""
    kinds = {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool"}
    features = {f.name: {"_type": "Value", "dtype": kinds[f.type]} for f in schema if f.name != "image"}
    document = {"info": {"features": {"image": {"_type": "Image"}} | features}}
    return {"huggingface": json.dumps(document, separators=(",", ":"))}


class ParquetShard:
    """Writes a shard to an open file, one row group at a time; never more than a group in memory."""

    def __init__(self, file: BinaryIO, config: ResultConfig, label_columns: Sequence[LabelColumn]) -> None:
        self._schema = shard_schema(label_columns)
        self._group = group_images(config)
        self._rows: list[dict[str, ParquetValue]] = []
        self._writer = pq.ParquetWriter(
            file,
            self._schema,
            version="2.6",
            compression="NONE",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
            store_schema=False,
            **_PAGES,
        )
        if config.encoding is Encoding.PNG:
            self._writer.add_key_value_metadata(shard_metadata(self._schema))

    def add(self, row: dict[str, ParquetValue]) -> None:
        """Append one row, by column name."""
        self._rows.append(row)
        if len(self._rows) == self._group:
            self._flush()

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Let go of a file that was discarded: Arrow would otherwise write its footer when collected."""
        with contextlib.suppress(pa.ArrowException, OSError, RunAborted):
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def read_shard(path: Place) -> Iterator[dict[str, ParquetValue]]:
    """Yield a Parquet shard's rows by column name, page checksums verified, one row group in memory.

    Raises:
        DatasetDamaged: a checksum does not match or the file cannot be parsed.
        DatasetUnreadable: the disk or store does not give it.
    """
    with (
        reading(path),
        open_bytes(path) as stream,
        pq.ParquetFile(stream, page_checksum_verification=True) as file,
    ):
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, use_threads=False).to_pylist()


@contextlib.contextmanager
def reading(path: Place) -> Iterator[None]:
    """Tell a file that is not what was written from a disk that fails: Arrow's own OSErrors have no errno."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        failed = isinstance(error, OSError) and error.errno and not isinstance(error, FileNotFoundError)
        kind = DatasetUnreadable if failed else DatasetDamaged
        raise kind(f"{path.name} cannot be read: {describe(error)}") from None


def write_instances(
    file: BinaryIO, rows: Iterable[InstanceRow], label_columns: Sequence[LabelColumn]
) -> None:
    """Write instances.parquet, rows as given: explicit schema, no metadata, page checksums.

    One row group is in memory at a time.
    """
    schema = arrow_schema(label_columns)
    writer = pq.ParquetWriter(
        file,
        schema,
        version="2.6",
        compression="zstd",
        compression_level=3,
        write_page_checksum=True,
        store_schema=False,
        **_PAGES,
    )
    with writer:
        remaining = iter(rows)
        group = list(islice(remaining, _INSTANCE_ROWS))
        writer.write_table(_instances(group, label_columns, schema))  # a table without rows has a group too
        while group := list(islice(remaining, _INSTANCE_ROWS)):
            writer.write_table(_instances(group, label_columns, schema))


def _instances(rows: list[InstanceRow], label_columns: Sequence[LabelColumn], schema: pa.Schema) -> pa.Table:
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMN_NAMES}
    labels = [{label.name: label.value for label in row.labels} for row in rows]
    columns |= {column.name: [values.get(column.name) for values in labels] for column in label_columns}
    return pa.table(columns, schema=schema)


def read_instances(path: Place) -> Iterator[dict[str, LabelValue]]:
    """Yield the rows of instances.parquet by column name. Raises DatasetDamaged like read_shard."""
    return cast(Iterator[dict[str, LabelValue]], read_shard(path))


def read_sources(path: Place) -> Iterator[str]:
    """The column `source` of instances.parquet. Raises DatasetDamaged like read_shard."""
    with (
        reading(path),
        open_bytes(path) as stream,
        pq.ParquetFile(stream, page_checksum_verification=True) as file,
    ):
        for group in range(file.num_row_groups):
            column = file.read_row_group(group, columns=["source"], use_threads=False).column(0)
            yield from column.to_pylist()


def same_library(path: Place) -> bool:
    """True if this Arrow writes footers like the file's. Raises DatasetDamaged if it names none at all."""
    with reading(path), open_bytes(path) as stream:
        writer = str(pq.read_metadata(stream).created_by)
    if not _WRITER.fullmatch(writer):
        raise DatasetDamaged(f"{path.name} was not written by Arrow")
    return writer == f"parquet-cpp-arrow version {pa.__version__}"
