"""One sink per format: where a shard's images go, one by one.

In:  rows and their encoded images.
Out: new files that ShardWriter commits or discards.
"""

from __future__ import annotations

from typing import BinaryIO, Protocol, cast

from preprocess.atomic import NewFile, new_file
from preprocess.config import Encoding, Format, ResultConfig
from preprocess.images import picture_path, shard_values
from preprocess.parquet import ParquetShard, ParquetValue
from preprocess.places import Place
from preprocess.records import LabelColumn
from preprocess.results import ShardFile
from preprocess.schema import InstanceRow
from preprocess.tfrecord import FeatureValue, encode_example, frame_record

IMAGES = "images"
"""Folder of --format png."""


class Sink(Protocol):
    """Takes a shard's images in order; `encoding` says how it wants them."""

    encoding: Encoding

    def add(self, row: InstanceRow, image: bytes) -> None:
        """Write one image."""

    def finish(self) -> None:
        """Write what comes after the last image."""

    def files(self) -> tuple[tuple[NewFile, ShardFile], ...]:
        """New files, and what they are once committed."""

    def discard(self) -> None:
        """Remove all files that were not committed."""


class TfRecordSink:
    """`<name>.tfrecord`: one tf.train.Example per image."""

    def __init__(self, out: Place, name: str, config: ResultConfig) -> None:
        self.encoding = config.encoding
        self._path = f"{name}.tfrecord"
        self._file = new_file(out / self._path)
        self._rows = 0

    def add(self, row: InstanceRow, image: bytes) -> None:
        """Write one image."""
        features: dict[str, FeatureValue] = {
            "image/encoded": image,
            "image/format": self.encoding.value,
            "image/height": row.height,
            "image/width": row.width,
            "image/bits": row.bits,
        }
        self._file.write(frame_record(encode_example({**features, **shard_values(row)})))
        self._rows += 1

    def finish(self) -> None:
        """Nothing comes after the last record."""

    def files(self) -> tuple[tuple[NewFile, ShardFile], ...]:
        """The one file."""
        return ((self._file, _shard_file(self._file, self._path, Format.TFRECORD, self._rows)),)

    def discard(self) -> None:
        """Remove the file if it was not committed."""
        self._file.discard()


class ParquetSink:
    """`<name>.parquet`: one row per image."""

    def __init__(
        self, out: Place, name: str, config: ResultConfig, label_columns: tuple[LabelColumn, ...]
    ) -> None:
        self.encoding = config.encoding
        self._path = f"{name}.parquet"
        self._file = new_file(out / self._path)
        try:
            self._shard = ParquetShard(cast(BinaryIO, self._file), config, label_columns)
        except BaseException:  # raised again: an interrupt, too, must leave no file
            self._file.discard()
            raise
        self._rows = 0

    def add(self, row: InstanceRow, image: bytes) -> None:
        """Write one image."""
        path = picture_path(row).removesuffix(".png") + f".{self.encoding.value}"
        about: dict[str, ParquetValue] = {
            "image": {"bytes": image, "path": path},
            "format": self.encoding.value,
            "height": row.height,
            "width": row.width,
            "bits": row.bits,
        }
        self._shard.add({**about, **shard_values(row)})
        self._rows += 1

    def finish(self) -> None:
        """Write the last row group and the footer."""
        self._shard.close()

    def files(self) -> tuple[tuple[NewFile, ShardFile], ...]:
        """The one file."""
        return ((self._file, _shard_file(self._file, self._path, Format.PARQUET, self._rows)),)

    def discard(self) -> None:
        """Remove the file if it was not committed."""
        self._file.discard()
        self._shard.abandon()


class PngSink:
    """`images/<patient_id>/<image_id>.png`: always PNG, whatever --encoding says."""

    encoding = Encoding.PNG

    def __init__(self, out: Place) -> None:
        self._out = out
        self._files: list[tuple[NewFile, ShardFile]] = []

    def add(self, row: InstanceRow, image: bytes) -> None:
        """Write one image."""
        path = f"{IMAGES}/{picture_path(row)}"
        file = new_file(self._out / path)
        try:
            file.write(image)
            file.park()
        except BaseException:  # raised again
            file.discard()
            raise
        self._files.append((file, _shard_file(file, path, Format.PNG, 1)))

    def finish(self) -> None:
        """Nothing comes after the last picture."""

    def files(self) -> tuple[tuple[NewFile, ShardFile], ...]:
        """All pictures."""
        return tuple(self._files)

    def discard(self) -> None:
        """Remove pictures that were not committed."""
        for file, _ in self._files:
            file.discard()


def _shard_file(file: NewFile, path: str, kind: Format, rows: int) -> ShardFile:
    return ShardFile(path=path, format=kind.value, bytes=file.size, sha256=file.sha256(), rows=rows)


def open_sinks(
    out: Place, name: str, config: ResultConfig, label_columns: tuple[LabelColumn, ...]
) -> tuple[Sink, ...]:
    """One sink per format of the config, in its order. Raises RunAborted."""
    sinks: list[Sink] = []
    try:
        for kind in config.formats:
            if kind is Format.TFRECORD:
                sinks.append(TfRecordSink(out, name, config))
            elif kind is Format.PARQUET:
                sinks.append(ParquetSink(out, name, config, label_columns))
            else:
                sinks.append(PngSink(out))
    except BaseException:  # raised again
        for sink in sinks:
            sink.discard()
        raise
    return tuple(sinks)
