"""Shards: written image by image, committed whole, journalled.

In:  Prepared and Reject values of one ShardPlan.
Out: its files under their final names and, last of all, its journal `OUT/.bcd/shards/<name>.json`, whose
     presence says that the shard is finished. Anything short of that leaves nothing but temporary files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Self

from preprocess.atomic import aborting_on_io_error, clean_leftovers, sync_directory
from preprocess.config import Encoding, Format, ResultConfig
from preprocess.identifiers import Pseudonyms
from preprocess.images import encode
from preprocess.journal import load_finished, shard_key
from preprocess.manifest import write_journal
from preprocess.places import Place
from preprocess.plan import ShardPlan
from preprocess.records import LabelColumn, Prepared, Reject
from preprocess.results import PixelStatistics, ShardFile, ShardResult, storable
from preprocess.schema import InstanceRow, prepared_row, rejected_row
from preprocess.sinks import Sink, open_sinks

__all__ = [
    "PixelStatistics",
    "ShardFile",
    "ShardResult",
    "ShardWriter",
    "clean_leftovers",
    "load_finished",
]


@dataclass(frozen=True, slots=True)
class Packed:
    """A prepared image, and what its shard's files will hold of it: made where there is a core to spare."""

    prepared: Prepared
    encoded: dict[Encoding, bytes] = field(repr=False)
    statistics: PixelStatistics


def pack(prepared: Prepared, config: ResultConfig) -> Packed:
    """Encode an image for every format of the config."""
    encodings = {Encoding.PNG if kind is Format.PNG else config.encoding for kind in config.formats}
    encoded = {encoding: encode(prepared.pixels, encoding) for encoding in encodings}
    return Packed(prepared, encoded, PixelStatistics.of(prepared.pixels, prepared.geometry))


class ShardWriter:
    """Context manager that writes one shard; left without `commit()`, it leaves no files.

    Outcomes come in the plan's order, exactly one for each of its sources: ValueError otherwise. A full disk
    or a vanished OUT raises RunAborted. A shard without a prepared image has no files, but a journal.
    """

    def __init__(
        self,
        out: Place,
        plan: ShardPlan,
        config: ResultConfig,
        label_columns: tuple[LabelColumn, ...] = (),
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        self._out = out
        self._plan = plan
        self._config = config
        self._label_columns = tuple(label_columns)
        self._pseudonyms = pseudonyms or Pseudonyms()
        self._sinks: tuple[Sink, ...] = ()
        self._rows: list[InstanceRow] = []
        self._statistics: list[PixelStatistics] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove every temporary file of this shard."""
        for sink in self._sinks:
            sink.discard()

    def add(self, image: Prepared | Packed) -> InstanceRow:
        """Write one image to every format; returns its row."""
        packed = image if isinstance(image, Packed) else pack(image, self._config)
        prepared = packed.prepared
        self._expect(prepared.mammogram.instance.source.source)
        self._check_pixels(prepared)
        row = prepared_row(
            prepared, fold=self._plan.fold, shard=self._plan.name, shard_row=len(self._statistics)
        )
        row = self._pseudonyms.row(storable(row))
        if not self._sinks:
            self._sinks = open_sinks(self._out, self._plan.name, self._config, self._label_columns)
        for sink in self._sinks:
            sink.add(row, packed.encoded[sink.encoding])
        self._statistics.append(packed.statistics)
        self._rows.append(row)
        return row

    def reject(self, reject: Reject) -> InstanceRow:
        """Note an input that could not be prepared; returns its row."""
        self._expect(reject.source.source)
        row = self._pseudonyms.row(storable(rejected_row(reject)))
        self._rows.append(row)
        return row

    def commit(self) -> ShardResult:
        """Make all files durable under their final names, then write the journal."""
        if len(self._rows) != len(self._plan.sources):
            raise ValueError(
                f"{len(self._plan.sources) - len(self._rows)} inputs of the shard have no outcome"
            )
        for sink in self._sinks:
            sink.finish()
        pairs = [pair for sink in self._sinks for pair in sink.files()]
        for temporary, _ in pairs:
            temporary.commit()
        files = tuple(file for _, file in pairs)
        self._sync_parents(files)
        result = ShardResult(
            name=self._plan.name,
            fold=self._plan.fold,
            key=shard_key(self._plan, self._config, self._pseudonyms),
            rows=tuple(self._rows),
            files=files,
            statistics=PixelStatistics.total(self._statistics),
            stamp=self._plan.stamp(),
        )
        write_journal(self._out, result)
        return result

    def _expect(self, source: str) -> None:
        at = len(self._rows)
        if at >= len(self._plan.sources) or self._plan.sources[at].source != source:
            raise ValueError(f"outcome {at} of {self._plan.name} is not that of the plan's source {at}")

    def _check_pixels(self, prepared: Prepared) -> None:
        config, pixels = self._config, prepared.pixels
        if pixels.shape != (config.height, config.width) or pixels.dtype.name != f"uint{config.bits}":
            asked = f"{config.height}x{config.width} uint{config.bits}"
            raise ValueError(f"prepared pixels are {pixels.shape} {pixels.dtype}, not {asked}")

    def _sync_parents(self, files: tuple[ShardFile, ...]) -> None:
        """New folders must survive power loss too."""
        folders = {str(parent) for file in files for parent in PurePosixPath(file.path).parents}
        with aborting_on_io_error(self._out):
            for folder in sorted(folders):
                sync_directory(self._out / folder)
