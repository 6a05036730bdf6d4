"""Any image of a dataset's shards, in any order, from any thread: verified on every read.

In:  where the dataset lies, its manifest, the format to read.
Out: (source, pixels) of one shard row, or DatasetDamaged with the place.

TFRecord: a first look at a shard reads the lengths only, whose CRCs are verified; after that an image is one
`pread`, one CRC-32C, one PNG. Parquet: an image is read with its row group, page checksums verified; page
headers and the footer have no checksum, so the pixels are compared with `pixels_sha256` by the caller.
Nothing stays open between reads of TFRecord, and Parquet readers belong to one thread each.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.config import Format
from preprocess.errors import DatasetDamaged, DatasetUnreadable
from preprocess.failures import describe
from preprocess.manifest import Manifest
from preprocess.parquet import ParquetValue, reading
from preprocess.places import Place, open_bytes, size_of
from preprocess.reading import Pixels, example_image, row_image
from preprocess.results import ShardFile
from preprocess.tfrecord import Spans, read_span, record_spans

_CHUNK = 1 << 20
_OPEN_FILES = 16
_GROUPS = 2
_COLUMNS = ["image", "format", "height", "width", "bits", "source"]


class ShardFiles:
    """Shards' files on this machine: those of a folder where they are, those of a store fetched once.

    A fetched file lies in a temporary folder that goes with this value; its sha256 is compared on the way.
    """

    def __init__(self, out: Place, manifest: Manifest, kind: Format) -> None:
        self._out = out
        self._files: dict[str, ShardFile] = {
            shard.name: file for shard in manifest.shards for file in shard.files if file.format == kind
        }
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._fetched: dict[str, Path] = {}
        self._folder: Path | None = None

    def check_sizes(self) -> None:
        """Compare the sizes of a folder's files with the manifest's; a store's are compared when fetched.

        Raises:
            DatasetDamaged: a file is missing or has another size.
        """
        if isinstance(self._out, Path):
            for file in self._files.values():
                _check_size(file, size_of(self._out / file.path))

    def path(self, shard: str) -> Path:
        """Where a shard's file lies on this machine. Raises DatasetDamaged."""
        file = self._files.get(shard)
        if file is None:
            raise DatasetDamaged(f"{shard} is not in the manifest")
        if isinstance(self._out, Path):
            return self._out / file.path
        with self._lock_of(shard):
            if shard not in self._fetched:
                self._fetched[shard] = self._fetch(file)
            return self._fetched[shard]

    def _lock_of(self, shard: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(shard, threading.Lock())

    def _fetch(self, file: ShardFile) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="bcd-train-"))
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            target = self._folder / hashlib.sha256(file.path.encode()).hexdigest()
        digest, size = hashlib.sha256(), 0
        try:
            with open_bytes(self._out / file.path) as stream, target.open("wb") as copy:
                while block := stream.read(_CHUNK):
                    digest.update(block)
                    size += copy.write(block)
        except FileNotFoundError:
            raise DatasetDamaged(f"{file.path} is missing") from None
        except OSError as error:
            raise DatasetUnreadable(f"{file.path} cannot be fetched: {describe(error)}") from None
        _check_size(file, size)
        if digest.hexdigest() != file.sha256:
            raise DatasetDamaged(f"{file.path} has another sha256 than the manifest")
        return target


def _check_size(file: ShardFile, size: int | None) -> None:
    if size is None:
        raise DatasetDamaged(f"{file.path} is missing")
    if size != file.bytes:
        raise DatasetDamaged(f"{file.path} has {size} bytes instead of {file.bytes}")


class Shards(ABC):
    """Random access to shards of one format."""

    def __init__(self, files: ShardFiles) -> None:
        self._files = files

    @abstractmethod
    def read(self, shard: str, number: int) -> tuple[str, Pixels]:
        """The source and pixels of one row of a shard. Raises DatasetDamaged."""


class TFRecordShards(Shards):
    """Records by their offset."""

    def __init__(self, files: ShardFiles) -> None:
        super().__init__(files)
        self._spans: dict[str, Spans] = {}

    def read(self, shard: str, number: int) -> tuple[str, Pixels]:
        """One `pread`; both CRCs of a record have been verified when this returns."""
        path = self._files.path(shard)
        spans = self._spans.get(shard)
        if spans is None:  # two threads may both look: they find the same
            spans = self._spans[shard] = record_spans(path)
        if number >= len(spans):
            raise DatasetDamaged(f"{shard}: there are {len(spans)} records only")
        return example_image(read_span(path, *spans[number]))


class ParquetShards(Shards):
    """Rows by their row group."""

    def __init__(self, files: ShardFiles) -> None:
        super().__init__(files)
        self._threads = threading.local()

    def read(self, shard: str, number: int) -> tuple[str, Pixels]:
        """One row group, or none where this thread has just read it."""
        if not hasattr(self._threads, "groups"):
            self._threads.groups = _Groups()
        groups: _Groups = self._threads.groups
        return row_image(groups.row(self._files.path(shard), number))


class _Groups:
    """One thread's open files and last row groups."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, int], pa.Table] = OrderedDict()

    def row(self, path: Path, number: int) -> dict[str, ParquetValue]:
        with reading(path):
            file = self._file(path)
            group, first = _group_of(file.metadata, number)
            table = self._groups.get((path, group))
            if table is None:
                table = file.read_row_group(group, columns=_COLUMNS, use_threads=False)
                self._groups[path, group] = table
            self._groups.move_to_end((path, group))
            while len(self._groups) > _GROUPS:
                self._groups.popitem(last=False)
            return cast(dict[str, ParquetValue], table.slice(number - first, 1).to_pylist()[0])

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = pq.ParquetFile(path, page_checksum_verification=True)
        self._open.move_to_end(path)
        while len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return self._open[path]


def _group_of(metadata: Any, number: int) -> tuple[int, int]:
    """(row group, its first row) of a row. Raises ValueError if there are fewer rows."""
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if number < first + rows:
            return group, first
        first += rows
    raise ValueError("fewer rows than the manifest says")


def shards_of(files: ShardFiles, kind: Format) -> Shards:
    """The reader of a format."""
    return TFRecordShards(files) if kind is Format.TFRECORD else ParquetShards(files)
