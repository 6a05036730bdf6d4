"""The three kinds of task that a run hands to its executor: scan, probe, shard.

In:  sources and the result config (picklable values).
Out: per-source outcomes. Running a task twice gives the same result; a blamed item becomes a Reject.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, Self, TypeVar, cast

import numpy as np

from preprocess import dicom, pipeline
from preprocess.background import blanked_coarse
from preprocess.config import Identifiers, ResultConfig
from preprocess.decode import CpuDecoder, Decoder, decoded_sha256
from preprocess.errors import REJECT_CODES, Stage
from preprocess.executors.base import Heartbeat, Task
from preprocess.identifiers import Pseudonyms
from preprocess.images import encode
from preprocess.output import STATE, THUMBNAILS
from preprocess.places import Place
from preprocess.plan import ShardPlan
from preprocess.records import LabelColumn, Prepared, Reject, ScannedFile, SourceFile
from preprocess.shards import Packed, ShardResult, ShardWriter
from preprocess.thumbnails import make_thumbnail, save

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Blame:
    """An item that killed, hung or starved its worker, or a fault of ours on it: rejected unread."""

    index: int
    code: str
    message: str


@dataclass(frozen=True)
class _SourceTask(Generic[K]):
    """What all tasks share: sources to go through one by one, and what came of some of them already."""

    sources: tuple[SourceFile, ...]
    config: ResultConfig
    blames: tuple[Blame, ...] = ()
    known: tuple[tuple[int, K], ...] = ()
    lone: bool = False
    """One source alone in a fresh process: reaching the memory limit is its own doing."""

    @property
    def size(self) -> int:
        """How many sources it has."""
        return len(self.sources)

    def alone(self, index: int) -> Task[object]:
        """One source as a task of its own."""
        return cast(
            Task[object],
            dataclasses.replace(self, sources=(self.sources[index],), blames=(), known=(), lone=True),
        )

    def knowing(self, index: int, outcome: object) -> Self:
        """The same task, with what its `alone(index)` gave."""
        [only] = cast(tuple[K, ...], outcome)
        return dataclasses.replace(self, known=(*self.known, (index, only)))

    def blamed(self, index: int, code: str, message: str) -> Self:
        """The same task with one source to be rejected unread; twice: not even its file is looked at."""
        return dataclasses.replace(self, blames=(*self.blames, Blame(index, code, message)))

    def _outcomes(
        self, beat: Heartbeat, work: Callable[[SourceFile], K], of: Callable[[Reject], K]
    ) -> Iterator[K]:
        """What came of each source, one by one: blamed (as `of` makes it), known, or worked on now."""
        known = dict(self.known)
        for index, source in enumerate(self.sources):
            beat(index)
            blames = [blame for blame in self.blames if blame.index == index]
            if blames:
                yield of(self._reject(source, blames))
            else:
                yield known[index] if index in known else work(source)
        beat(None)

    def _reject(self, source: SourceFile, blames: Sequence[Blame]) -> Reject:
        code = blames[0].code
        reject = Reject(source, REJECT_CODES[code].stage, code, blames[0].message)
        return pipeline.with_file_facts(reject, self.config) if len(blames) == 1 else reject

    def _own_doing(self, reject: Reject) -> Reject:
        """The reject, unless earlier images may be why memory ran out: the executor tries it alone then."""
        if reject.code == "out_of_memory" and not self.lone:
            raise MemoryError
        return reject


@dataclass(frozen=True)
class ScanTask(_SourceTask[ScannedFile | Reject]):
    """Headers only: what planning needs."""

    def run(self, beat: Heartbeat) -> tuple[ScannedFile | Reject, ...]:
        """One ScannedFile or Reject per source."""
        return tuple(self._outcomes(beat, self._scan, lambda reject: reject))

    def _scan(self, source: SourceFile) -> ScannedFile | Reject:
        trace = pipeline.Trace()
        scanned = pipeline.guarded(trace, source, self.config, partial(dicom.scan, source, self.config))
        return scanned or self._own_doing(trace.outcome_reject())


@dataclass(frozen=True, slots=True)
class Probe:
    """What tells duplicates from conflicts: the file's hash and the decoded pixels' (None if rejected)."""

    source: SourceFile
    file_sha256: str
    pixels: str | None
    reject: Reject | None = None


@dataclass(frozen=True)
class ProbeTask(_SourceTask[Probe]):
    """Full decode of inputs that share a SOP Instance UID."""

    def run(self, beat: Heartbeat) -> tuple[Probe, ...]:
        """One Probe per source."""
        return tuple(self._outcomes(beat, self._probe, _rejected_probe))

    def _probe(self, source: SourceFile) -> Probe:
        trace = pipeline.Trace(stage=Stage.DECODE)
        probe = pipeline.guarded(trace, source, self.config, partial(self._decode, source))
        if probe is not None:
            return probe
        reject = self._own_doing(trace.outcome_reject())
        return _rejected_probe(pipeline.with_file_facts(reject, self.config))

    def _decode(self, source: SourceFile) -> Probe:
        instance = dicom.parse(source, self.config)
        pixels = CpuDecoder().decode(instance).pixels
        assert instance.file_sha256 is not None
        digest = f"{pixels.shape} {pixels.dtype} {decoded_sha256(pixels)}"
        return Probe(source, instance.file_sha256, digest)


def _rejected_probe(reject: Reject) -> Probe:
    return Probe(reject.source, reject.file_sha256 or "", None, reject)


Outcome = Prepared | Packed | Reject


def add_up(clock: pipeline.Trace, trace: pipeline.Trace) -> None:
    """Add a trace's seconds and bytes to a shard's."""
    clock.bytes_read += trace.bytes_read
    for stage, seconds in trace.seconds.items():
        clock.seconds[stage] = clock.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True)
class _ImagesTask(_SourceTask[Outcome]):
    """What is needed to prepare images of a dataset."""

    out: Place = Path()
    pseudonyms: Pseudonyms = field(default_factory=Pseudonyms)
    contact: frozenset[str] = frozenset()
    """Sources whose originals the report's contact sheet shows."""

    def _prepare(self, source: SourceFile, decoder: Decoder, clock: pipeline.Trace) -> Outcome:
        trace = pipeline.steps(source, self.config, decoder)
        add_up(clock, trace)
        return self.outcome_of(trace)

    def outcome_of(self, trace: pipeline.Trace) -> Prepared | Reject:
        """What came of an image; keeps a small original where the contact sheet wants one."""
        if trace.prepared is None:
            return self._own_doing(trace.outcome_reject())
        if trace.prepared.mammogram.instance.source.source in self.contact:
            self._save_original(trace, trace.prepared)
        return trace.prepared

    def _save_original(self, trace: pipeline.Trace, prepared: Prepared) -> None:
        """Keep a small original for the contact sheet, with the name and the parts that OUT may show."""
        assert trace.coarse is not None
        assert trace.findings is not None
        instance = prepared.mammogram.instance
        hashed = self.config.identifiers is Identifiers.HASH
        if hashed and instance.image.burned_in_annotation == "YES":
            return
        coarse = blanked_coarse(trace.coarse, trace.findings, self.config)
        name = self.pseudonyms.source(instance.source.source)
        save(make_thumbnail(coarse, prepared.geometry.box, source=name), self.out / STATE / THUMBNAILS)


@dataclass(frozen=True)
class ImageTask(_ImagesTask):
    """Prepare images, write none: what a shard's image goes through when it is tried alone."""

    def run(self, beat: Heartbeat) -> tuple[Outcome, ...]:
        """Outcomes without what no row needs of them: compressed frames and stored values."""
        decoder, clock = CpuDecoder(), pipeline.Trace()
        work = partial(self._prepare, decoder=decoder, clock=clock)
        return tuple(map(self._tried, self._outcomes(beat, work, lambda reject: reject)))

    def _tried(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Reject):
            bare = outcome.instance and outcome.instance.bare()
            return dataclasses.replace(outcome, instance=bare)
        assert isinstance(outcome, Prepared)
        encode(outcome.pixels, self.config.encoding)  # may be what kills or starves
        mammogram = outcome.mammogram
        mammogram = dataclasses.replace(
            mammogram,
            pixels=np.empty((0, 0), mammogram.pixels.dtype),
            instance=mammogram.instance.bare(),
        )
        return dataclasses.replace(outcome, mammogram=mammogram)


@dataclass(frozen=True, slots=True)
class ShardOutcome:
    """A committed shard, the seconds its stages took, and the bytes of inputs that they read."""

    result: ShardResult
    seconds: tuple[tuple[str, float], ...]
    bytes_read: int = 0


@dataclass(frozen=True)
class ShardTask(_ImagesTask):
    """Prepare a shard's images one by one and commit it."""

    plan: ShardPlan | None = None
    label_columns: tuple[LabelColumn, ...] = ()

    def alone(self, index: int) -> Task[object]:
        """One image as a task of its own, which writes nothing."""
        source = self.sources[index]
        return ImageTask(
            (source,),
            self.config,
            lone=True,
            out=self.out,
            pseudonyms=self.pseudonyms,
            contact=self.contact & {source.source},
        )

    def before(self, following: Self) -> Self:
        """The same shard, with a hint of the one that its worker will probably be given next."""
        return self

    def run(self, beat: Heartbeat) -> ShardOutcome:
        """Write the shard atomically; OSError if the disk does not take it."""
        decoder, clock = CpuDecoder(), pipeline.Trace()
        return self.written(beat, partial(self._prepare, decoder=decoder, clock=clock), clock)

    def written(
        self, beat: Heartbeat, work: Callable[[SourceFile], Outcome], clock: pipeline.Trace
    ) -> ShardOutcome:
        """Write the shard of what `work` makes of its sources, in their order."""
        assert self.plan is not None
        with ShardWriter(self.out, self.plan, self.config, self.label_columns, self.pseudonyms) as writer:
            for outcome in self._outcomes(beat, work, lambda reject: reject):
                with clock.timed(Stage.WRITE):
                    writer.reject(outcome) if isinstance(outcome, Reject) else writer.add(outcome)
            with clock.timed(Stage.WRITE):
                result = writer.commit()
        seconds = tuple(sorted((k.value, v) for k, v in clock.seconds.items()))
        return ShardOutcome(result, seconds, clock.bytes_read)
