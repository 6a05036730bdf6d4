"""Start-up self-test: what each engine does with vectors whose pixels are known. Unproven is unused.

In:  Engines of a device.
Out: a Proof: for engine, compression, precision and level whether values come as they are, or multiplied by
     DALI's range; nothing where they come otherwise, as from a library that wraps where it must clamp.

A vector holds noise, and checks of lowest and highest values whose low-pass samples overshoot both ends of
the range at every level. What a level must be is computed by an own 5/3 transform (preprocess/wavelet.py),
which shares no code with any decoder, clamped once, to SIZ's range (docs/numerics.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property

import imagecodecs
import numpy as np
import numpy.typing as npt

from dali_pipelines.engines import Encoded, Engine, Engines
from dali_pipelines.routes import MAX_PRECISION, MIN_PRECISION
from dali_pipelines.values import Array, redo_range, undo_range
from preprocess.codestream import level_size
from preprocess.records import Compression
from preprocess.wavelet import low_pass_53

DEEPEST = 5
"""Levels that are tried; RSNA's files have as many."""
_ROWS, _COLUMNS = 321, 257
"""Odd at every level, several code-blocks a side, and large enough for an encoder's five levels."""
_BAND, _BLOCKS = 40, (2, 4, 8, 16, 40)
"""Rows of a band of checks, the last to the end; and the checks' sides, one for each level."""
_ROUNDS = (
    (Compression.JPEG_2000, range(MIN_PRECISION, MAX_PRECISION + 1)),
    (Compression.HTJ2K, range(MAX_PRECISION, MIN_PRECISION - 1, -1)),
)
"""In another order the second time, so that an engine that hands out an earlier batch is found out."""
_SSIZ = 42
"""Where a bare codestream of one component says its precision − 1: SOC, SIZ's marker, T.800 Table A.9."""

Pixels = npt.NDArray[np.uint16]


class Range(StrEnum):
    """What an engine does to values."""

    RAW = "raw"
    SCALED = "scaled"


@dataclass(frozen=True, slots=True)
class Case:
    """What is tried of an engine."""

    engine: str
    compression: Compression
    precision: int
    level: int


@dataclass(frozen=True)
class Proof:
    """What was found right, and in which range."""

    proven: tuple[tuple[Case, Range], ...]
    tried: int

    def range_of(self, engine: Engine, job: Encoded) -> Range | None:
        """The range of the engine's values for a job; None: not proven, so not to be used."""
        case = Case(engine.name, job.compression, job.precision, job.level)
        return self._ranges.get(case)

    @cached_property
    def _ranges(self) -> dict[Case, Range]:
        return dict(self.proven)


def vector(precision: int) -> Pixels:
    """(321, 257) values of `precision` bits that overshoot and undershoot at levels 1 to 5."""
    random = np.random.default_rng(precision)
    top = (1 << precision) - 1
    noise = random.integers(0, top + 1, (_ROWS, _COLUMNS))
    row, column = np.mgrid[:_ROWS, :_COLUMNS]
    block = np.take(_BLOCKS, row // _BAND, mode="clip")
    checks = ((row // block + column // block) % 2) * top
    return np.where(column < _COLUMNS * 4 // 5, checks, noise).astype(np.uint16)


def expected(pixels: npt.NDArray[np.integer], precision: int, level: int) -> Pixels:
    """The level's samples, clamped to SIZ's range."""
    return low_pass_53(pixels, level).clip(0, (1 << precision) - 1).astype(np.uint16)


@cache
def encode(compression: Compression, precision: int) -> bytes:
    """The vector as a lossless codestream of DEEPEST levels, `precision` bits in SIZ."""
    pixels = vector(precision)
    if compression is Compression.HTJ2K:
        return _htj2k(pixels, precision)
    return bytes(
        imagecodecs.jpeg2k_encode(
            pixels,
            level=0,
            codecformat="j2k",
            bitspersample=precision,
            reversible=True,
            resolutions=DEEPEST + 1,
        )
    )


def _htj2k(pixels: Pixels, precision: int) -> bytes:
    """An HTJ2K stream. Its encoder (imagecodecs) writes 16 bits into SIZ, whatever the values are.

    All that precision changes is the level shift by half the range (T.800 G.1), which is made up for before.
    """
    shift = (1 << (MAX_PRECISION - 1)) - (1 << (precision - 1))
    data = bytearray(
        imagecodecs.htj2k_encode(pixels + np.uint16(shift), reversible=True, resolutions=DEEPEST)
    )
    data[_SSIZ] = precision - 1
    return bytes(data)


def jobs(compression: Compression, precision: int, levels: Sequence[int]) -> list[Encoded]:
    """The vector at each of the levels."""
    codestream = encode(compression, precision)
    return [
        Encoded(codestream, compression, precision, level, *level_size(_ROWS, _COLUMNS, level))
        for level in levels
    ]


def prove(engines: Engines) -> Proof:
    """Try every engine with every precision, compression and level that the router may ask it for."""
    proven: list[tuple[Case, Range]] = []
    tried = 0
    for engine, levels in (
        *((engine, (0,)) for engine in engines.full),
        *((engine, tuple(range(DEEPEST + 1))) for engine in engines.levels),
    ):
        for compression, precisions in _ROUNDS:
            asked = [job for precision in precisions for job in jobs(compression, precision, levels)]
            tried += len(asked)
            for job, values in zip(asked, _decoded(engine, asked), strict=True):
                kind = _range(None if values is None else engines.memory.to_host(values), job)
                if kind is not None:
                    proven.append((Case(engine.name, job.compression, job.precision, job.level), kind))
    return Proof(tuple(proven), tried)


def _decoded(engine: Engine, asked: Sequence[Encoded]) -> Sequence[Array | None]:
    try:
        results = engine.decode(asked)
    except (RuntimeError, MemoryError):
        engine.reset()
        return [None] * len(asked)
    return results if len(results) == len(asked) else [None] * len(asked)


def _range(values: Pixels | None, job: Encoded) -> Range | None:
    if values is None or values.dtype != np.uint16:
        return None
    truth = expected(vector(job.precision), job.precision, job.level)
    if np.array_equal(values, truth):
        return Range.RAW
    if values.shape == truth.shape and np.array_equal(undo_range(values, job.precision), truth):
        # a decoder that rounds otherwise than `redo_range` is as right, if undoing gives the truth
        near = np.abs(values.astype(np.int32) - redo_range(truth, job.precision)).max() <= 1
        return Range.SCALED if near else None
    return None
