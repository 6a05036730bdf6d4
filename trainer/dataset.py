"""A dataset of `bcd-prep` as the trainer sees it: rows in a fixed order, and any image at any time.

In:  where it lies: a folder, or the URL of a prefix in an object store.
Out: Dataset: manifest, rows of prepared images, `pixels(i)`. What is read is verified: the manifest's
     seal, the table against the manifest, sizes of shards, CRCs or page checksums of every record, its row.

A dataset that grows is another dataset after the next `open_dataset`: nothing is watched.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from preprocess.config import Format
from preprocess.errors import DatasetDamaged, DatasetUnreadable, UsageError
from preprocess.failures import describe
from preprocess.images import pixels_sha256
from preprocess.manifest import Manifest, read_manifest
from preprocess.places import Place, place
from preprocess.reading import Pixels, rows_by_shard, written_rows
from preprocess.schema import InstanceRow
from trainer.shards import ShardFiles, shards_of

FORMATS = (Format.TFRECORD, Format.PARQUET)
"""Formats that can be trained from, the one that is read first."""


class Dataset:
    """Rows and pixels of a dataset. Threads may share it; a pickled one opens its shards again."""

    def __init__(self, out: Place, manifest: Manifest, rows: tuple[InstanceRow, ...], kind: Format) -> None:
        self.place = out
        self.manifest = manifest
        self.rows = rows
        """Prepared images, in the order of the manifest's shards and of `shard_row`."""
        self.kind = kind
        files = ShardFiles(out, manifest, kind)
        files.check_sizes()
        self._shards = shards_of(files, kind)
        self._kept: dict[int, Pixels] = {}
        self._room = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (self.place, self.manifest, self.rows, self.kind)

    @property
    def height(self) -> int:
        """Rows of every image."""
        return self.manifest.config.height

    @property
    def width(self) -> int:
        """Columns of every image."""
        return self.manifest.config.width

    @property
    def bits(self) -> int:
        """8 or 16: pixels are at most 2^bits − 1."""
        return self.manifest.config.bits

    @property
    def sha256(self) -> str:
        """Hex sha256 of manifest.json: the dataset's fingerprint, since that names all of its contents."""
        return hashlib.sha256(self.manifest.to_bytes()).hexdigest()

    def keep(self, limit: int) -> None:
        """Keep images in memory from now on, up to `limit` bytes: those that are read first, read-only."""
        with self._lock:
            self._room = limit - sum(pixels.nbytes for pixels in self._kept.values())

    def pixels(self, index: int) -> Pixels:
        """The image of `rows[index]`: (height, width) uint8 or uint16.

        Raises:
            DatasetDamaged: it is not what was written; the message names shard and row.
            DatasetUnreadable: the disk or store did not give it, and may be gone with all the others.
        """
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        pixels = self._read(index)
        with self._lock:
            if index not in self._kept and pixels.nbytes <= self._room:
                pixels.flags.writeable = False
                self._kept[index] = pixels
                self._room -= pixels.nbytes
        return pixels

    def _read(self, index: int) -> Pixels:
        row = self.rows[index]
        shard, number = row.shard or "", row.shard_row or 0
        try:
            source, pixels = self._shards.read(shard, number)
        except OSError as error:
            raise DatasetUnreadable(f"{shard}: row {number}: cannot be read: {describe(error)}") from None
        except DatasetDamaged as error:
            raise type(error)(f"{shard}: row {number}: {error}") from None
        if source != row.source or pixels.shape != (self.height, self.width):
            raise DatasetDamaged(f"{shard}: row {number}: not the image of its row in instances.parquet")
        if self.kind is Format.PARQUET and pixels_sha256(pixels) != row.pixels_sha256:
            raise DatasetDamaged(f"{shard}: row {number}: other pixels than were written")
        return pixels


def open_dataset(where: Place | str) -> Dataset:
    """Open a complete dataset; TFRecord is read where it has both formats.

    Raises:
        UsageError: there is none, it is of another version, has no image, or neither TFRecord nor Parquet.
        DatasetDamaged: manifest, table or sizes are not those that were written.
    """
    out = place(where) if isinstance(where, str) else where
    manifest = read_manifest(out)
    kinds = [kind for kind in FORMATS if kind in manifest.config.formats]
    if not kinds:
        raise UsageError(f"{out} has no TFRecord or Parquet shards: run bcd-prep with --format tfrecord")
    by_shard = rows_by_shard(written_rows(out, manifest))
    rows = tuple(row for shard in manifest.shards for row in by_shard.get(shard.name, ()))
    if not rows:
        raise UsageError(f"{out} holds no prepared image: there is nothing to learn from")
    if len(rows) != manifest.counts.prepared:
        raise DatasetDamaged("a prepared image lies in a shard that the manifest does not know")
    return Dataset(out, manifest, rows, kinds[0])
