"""Our own stages as Work values: reading, decoding at each level, the whole of preparation.

In:  DICOM paths and a result config.
Out: passes for `measure.interleaved`; parts of `Preparation` are the pipeline's stages and the writing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

from bench.measure import Measurement, Parts, Work
from preprocess import dicom, pipeline
from preprocess.codestream import deepest_level
from preprocess.config import ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.discover import discover
from preprocess.heap import keep_freed_memory
from preprocess.images import encode
from preprocess.records import Instance, Mammogram, SourceFile

DEEPEST = 4
"""The deepest level measured: a 5,355-pixel image has 335 rows there."""


def dicom_paths(inputs: Sequence[str]) -> tuple[str, ...]:
    """Every DICOM file behind paths, folders and globs, sorted."""
    return tuple(sorted(source.path for source in discover(inputs).sources if source.member is None))


def source(path: str) -> SourceFile:
    """A file as the pipeline takes it."""
    return SourceFile(source=Path(path).name, path=path, explicit=True)


def by_syntax(paths: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The paths of each transfer syntax (by the last parts of its UID), most files first."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        uid = dicom.parse(source(path), ResultConfig()).image.transfer_syntax_uid
        groups[short_syntax(uid)].append(path)
    return tuple(
        sorted(((name, tuple(some)) for name, some in groups.items()), key=lambda g: (-len(g[1]), g))
    )


def short_syntax(uid: str) -> str:
    """`.90` for 1.2.840.10008.1.2.4.90, and so on."""
    return "." + uid.removeprefix("1.2.840.10008.1.2").removeprefix(".4").lstrip(".")


def spread_out(paths: Sequence[str], count: int) -> tuple[str, ...]:
    """At most `count` paths, evenly spaced."""
    if len(paths) <= count:
        return tuple(paths)
    return tuple(paths[index * len(paths) // count] for index in range(count))


@dataclass(frozen=True, slots=True)
class _OfPaths:
    """What all these have: files, dealt out like cards to several processes."""

    name: str
    paths: tuple[str, ...]

    @property
    def items(self) -> int:
        """Images in one pass."""
        return len(self.paths)

    def share(self, index: int, of: int) -> Self:
        """Every `of`-th file, from `index` on."""
        return replace(self, paths=self.paths[index::of])


@dataclass(frozen=True, slots=True)
class Reading(_OfPaths):
    """Read the files, nothing else: what the disk (or the page cache) gives."""

    def open(self) -> Callable[[], Parts]:
        """One pass reads every byte."""
        return self._read

    def _read(self) -> Parts:
        for path in self.paths:
            Path(path).read_bytes()
        return ()


@dataclass(frozen=True, slots=True)
class LevelDecoding(_OfPaths):
    """Decode every file at one wavelet level; headers are parsed before."""

    level: int = 0

    def open(self) -> Callable[[], Parts]:
        """One pass decodes every file."""
        jobs = [(dicom.parse(source(path), ResultConfig()), self.level) for path in self.paths]
        return partial(_decode, jobs)


@dataclass(frozen=True, slots=True)
class NeededDecoding(_OfPaths):
    """Decode what preparation decodes (the coarse level, then the chosen one), and do nothing else."""

    config: ResultConfig = field(default_factory=ResultConfig)

    def open(self) -> Callable[[], Parts]:
        """One pass decodes every file as often as preparation does."""
        jobs: list[tuple[Instance, int]] = []
        for path in self.paths:
            recorder = _Recorder()
            trace = pipeline.steps(source(path), self.config, recorder)
            if trace.instance is not None:
                jobs += [(trace.instance, level) for level in recorder.levels]
        return partial(_decode, jobs)


class _Recorder(CpuDecoder):
    """Notes which levels preparation asks for."""

    def __init__(self) -> None:
        self.levels: list[int] = []

    def decode(self, instance: Instance, level: int = 0) -> Mammogram:
        """Decode, and remember."""
        self.levels.append(level)
        return super().decode(instance, level)


def _decode(jobs: Sequence[tuple[Instance, int]]) -> Parts:
    decoder = CpuDecoder()
    for instance, level in jobs:
        decoder.decode(instance, level)
    return ()


def picture_name(path: str) -> str:
    """What a prepared picture is called: files of one name in two folders are two."""
    return hashlib.sha256(os.path.abspath(path).encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Preparation(_OfPaths):
    """DICOM → stored image, through the product's pipeline; parts: its stages, encoding, writing."""

    config: ResultConfig = field(default_factory=ResultConfig)
    out: str | None = None
    """Where pictures are kept, by `picture_name`; None: a folder that goes with the process."""

    def open(self) -> Callable[[], Parts]:
        """One pass prepares and stores every file, as a worker does; a reject is stored as nothing."""
        keep_freed_memory()
        if self.out is not None:
            return partial(self._prepare, Path(self.out))
        holder = tempfile.TemporaryDirectory(prefix="bcd-bench-")
        return partial(self._prepare, Path(holder.name), holder)

    def _prepare(self, out: Path, _: object = None) -> Parts:
        decoder, seconds = CpuDecoder(), defaultdict[str, float](float)
        for path in self.paths:
            trace = pipeline.steps(source(path), self.config, decoder)
            for stage, spent in trace.seconds.items():
                seconds[stage.value] += spent
            if trace.prepared is None:
                continue
            start = time.perf_counter()
            data = encode(trace.prepared.pixels, self.config.encoding)
            encoded = time.perf_counter()
            (out / f"{picture_name(path)}.png").write_bytes(data)
            seconds["encode"] += encoded - start
            seconds["write"] += time.perf_counter() - encoded
        return tuple(sorted(seconds.items()))


def decode_works(paths: Sequence[str]) -> list[Work]:
    """Per syntax × level, the decoding of all files of that syntax."""
    works: list[Work] = []
    for syntax, some in by_syntax(paths):
        instances = [dicom.parse(source(path), ResultConfig()) for path in some]
        deepest = min(deepest_level(one.image, one.codestream) for one in instances)
        for level in range(min(deepest, DEEPEST) + 1):
            works.append(LevelDecoding(f"{syntax} level {level}", some, level))
    return works


def prep_works(paths: Sequence[str], size: tuple[int, int], decode: str = "auto") -> tuple[Work, Work, Work]:
    """Disk, needed decoding, everything, at one size of the prepared image."""
    height, width = size
    config = ResultConfig(height=height, width=width, decode=decode)
    some = tuple(paths)
    return (
        Reading("disk", some),
        NeededDecoding("decode", some, config),
        Preparation("prep", some, config),
    )


@dataclass(frozen=True, slots=True)
class Roof:
    """Images per second of one core's time: what each part alone would allow, and what the whole reaches."""

    disk: float
    decode: float
    rest: float
    limit: float
    """If everything but reading and decoding were free."""
    whole: float

    @property
    def rest_share(self) -> float:
        """Share of the time that is neither reading nor decoding."""
        return max(1 - self.whole / self.limit, 0.0)


def roof(disk: Measurement, decode: Measurement, prep: Measurement) -> Roof:
    """The roofline-like picture of one size, from three measurements in turns; rest = what is left over.

    In processor time: the difference of two wall times on a busy machine is noise.
    """
    reading, decoding, whole = (one.cpu.median / one.items for one in (disk, decode, prep))
    rest = max(whole - reading - decoding, 1e-9)
    return Roof(1 / max(reading, 1e-9), 1 / decoding, 1 / rest, 1 / (reading + decoding), 1 / whole)
