"""The three kinds of task that a run hands to its executor: scan, probe, shard.

In:  sources and the result config (picklable values).
Out: per-source outcomes. Running a task twice gives the same result; a blamed item becomes a Reject.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from preprocess import dicom, pipeline
from preprocess.background import blanked_coarse
from preprocess.config import Identifiers, ResultConfig
from preprocess.decode import CpuDecoder, Decoder, decoded_sha256
from preprocess.errors import REJECT_CODES, Stage
from preprocess.executors.base import Heartbeat
from preprocess.identifiers import Pseudonyms
from preprocess.output import STATE, THUMBNAILS
from preprocess.plan import ShardPlan
from preprocess.records import LabelColumn, Prepared, Reject, ScannedFile, SourceFile
from preprocess.shards import ShardResult, ShardWriter
from preprocess.thumbnails import make_thumbnail, save


@dataclass(frozen=True, slots=True)
class Blame:
    """An item that killed, hung or starved its worker: rejected unread."""

    index: int
    code: str
    message: str


@dataclass(frozen=True)
class _SourceTask:
    """What all tasks share: sources to go through one by one, and those already blamed."""

    sources: tuple[SourceFile, ...]
    config: ResultConfig
    blames: tuple[Blame, ...] = ()

    def blamed(self, index: int, code: str, message: str) -> Self:
        """The same task with one source to be rejected unread."""
        return dataclasses.replace(self, blames=(*self.blames, Blame(index, code, message)))

    def _items(self, beat: Heartbeat) -> Iterator[tuple[SourceFile, Reject | None]]:
        """Each source, with its Reject if it is to blame; the heartbeat precedes the others."""
        blames = {blame.index: blame for blame in self.blames}
        for index, source in enumerate(self.sources):
            if blame := blames.get(index):
                stage = REJECT_CODES[blame.code].stage
                reject = Reject(source, stage, blame.code, blame.message)
                yield source, pipeline.with_file_facts(reject, self.config)
            else:
                beat(index)
                yield source, None


@dataclass(frozen=True)
class ScanTask(_SourceTask):
    """Headers only: what planning needs."""

    def run(self, beat: Heartbeat) -> tuple[ScannedFile | Reject, ...]:
        """One ScannedFile or Reject per source."""
        return tuple(blame or self._scan(source) for source, blame in self._items(beat))

    def _scan(self, source: SourceFile) -> ScannedFile | Reject:
        trace = pipeline.Trace()
        scanned = pipeline.guarded(trace, source, self.config, partial(dicom.scan, source, self.config))
        return scanned or trace.outcome_reject()


@dataclass(frozen=True, slots=True)
class Probe:
    """What tells duplicates from conflicts: the file's hash and the decoded pixels' (None if rejected)."""

    source: SourceFile
    file_sha256: str
    pixels: str | None
    reject: Reject | None = None


@dataclass(frozen=True)
class ProbeTask(_SourceTask):
    """Full decode of inputs that share a SOP Instance UID."""

    def run(self, beat: Heartbeat) -> tuple[Probe, ...]:
        """One Probe per source."""
        return tuple(self._probe(source, blame) for source, blame in self._items(beat))

    def _probe(self, source: SourceFile, blame: Reject | None) -> Probe:
        if blame is not None:
            return Probe(source, blame.file_sha256 or "", None, blame)
        trace = pipeline.Trace(stage=Stage.DECODE)
        probe = pipeline.guarded(trace, source, self.config, partial(self._decode, source))
        if probe is not None:
            return probe
        reject = pipeline.with_file_facts(trace.outcome_reject(), self.config)
        return Probe(source, reject.file_sha256 or "", None, reject)

    def _decode(self, source: SourceFile) -> Probe:
        instance = dicom.parse(source, self.config)
        pixels = CpuDecoder().decode(instance).pixels
        digest = f"{pixels.shape} {pixels.dtype} {decoded_sha256(pixels)}"
        return Probe(source, instance.file_sha256, digest)


@dataclass(frozen=True, slots=True)
class ShardOutcome:
    """A committed shard, and the seconds its stages took."""

    result: ShardResult
    seconds: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ShardTask(_SourceTask):
    """Prepare a shard's images one by one and commit it."""

    out: Path = Path()
    plan: ShardPlan | None = None
    label_columns: tuple[LabelColumn, ...] = ()
    pseudonyms: Pseudonyms | None = None
    contact: frozenset[str] = frozenset()
    """Sources whose originals the report's contact sheet shows."""

    def run(self, beat: Heartbeat) -> ShardOutcome:
        """Write the shard atomically; OSError if the disk does not take it."""
        assert self.plan is not None
        assert self.pseudonyms is not None
        decoder, clock = CpuDecoder(), pipeline.Trace()
        with ShardWriter(self.out, self.plan, self.config, self.label_columns, self.pseudonyms) as writer:
            for source, blame in self._items(beat):
                outcome = blame or self._prepare(source, decoder, clock)
                with clock.timed(Stage.WRITE):
                    writer.reject(outcome) if isinstance(outcome, Reject) else writer.add(outcome)
            with clock.timed(Stage.WRITE):
                result = writer.commit()
        return ShardOutcome(result, tuple(sorted((k.value, v) for k, v in clock.seconds.items())))

    def _prepare(self, source: SourceFile, decoder: Decoder, clock: pipeline.Trace) -> Prepared | Reject:
        trace = pipeline.steps(source, self.config, decoder)
        for stage, seconds in trace.seconds.items():
            clock.seconds[stage] = clock.seconds.get(stage, 0.0) + seconds
        if source.source in self.contact and trace.prepared is not None:
            self._save_original(trace, trace.prepared)
        return trace.outcome()

    def _save_original(self, trace: pipeline.Trace, prepared: Prepared) -> None:
        """Keep a small original for the contact sheet, with the name and the parts that OUT may show."""
        assert self.pseudonyms is not None
        assert trace.coarse is not None
        assert trace.findings is not None
        instance = prepared.mammogram.instance
        hashed = self.config.identifiers is Identifiers.HASH
        if hashed and instance.image.burned_in_annotation == "YES":
            return
        coarse = blanked_coarse(trace.coarse, trace.findings, self.config)
        name = self.pseudonyms.source(instance.source.source)
        save(make_thumbnail(coarse, prepared.geometry.box, source=name), self.out / STATE / THUMBNAILS)
