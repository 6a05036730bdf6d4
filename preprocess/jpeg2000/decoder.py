"""Codestream → samples at a wavelet level: what OpenJPEG gives, in little more than half of its time.

In:  a bare, complete codestream of one component and one tile, 5/3 transform, one quality layer; a level.
Out: the samples that OpenJPEG gives; or None: another kind of stream, or one of which a packet or a
     code-block does not end where it should. Then it is OpenJPEG's turn, and what it says counts.

Which streams are decoded here is a function of the stream alone. Every code-block is held to the rule by
which OpenJPEG finds damage (`with_termination_check`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess._j2k import COD, SIZ, SOT, segments
from preprocess._tile import COM, TLM, Short, Style, Unordered, grid, resolution_size, sub_bands, tile
from preprocess.jpeg2000.code_blocks import Samples, decode_blocks
from preprocess.jpeg2000.headers import read_table
from preprocess.jpeg2000.synthesis import clamp, synthesised
from preprocess.openjpeg import MAX_PIXELS
from preprocess.records import CodestreamFacts, Compression
from preprocess.stored import stored_range

_QCD = 0xFF5C
_PREDICTABLE_TERMINATION = 0x10
"""The only code-block style that changes nothing here."""
_MARKERS = frozenset((SIZ, COD, _QCD, TLM, COM, SOT))
"""Of the main header; the others change how packets are read, or are not known."""
_SCOD_BITS = 0x07
_MOST_BLOCK_SIDE, _MOST_BLOCK_SAMPLES = 10, 12
"""Exponents (T.800 table A.18)."""
_MOST_LEVELS = 32
_MOST_BLOCKS = 1 << 20
_MOST_PRECINCTS = 1 << 17
_MOST_PRECISION = 16

Pixels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Low:
    """A level of a stream before anything was clamped: finer levels are made from it."""

    level: int
    samples: Samples
    """int32, the level shift (T.800 G.1) undone."""


def decode(codestream: bytes, facts: CodestreamFacts, level: int = 0) -> Pixels | None:
    """Decode at a wavelet level, on this thread, mostly without the GIL.

    Args:
        codestream: bare and complete, EOC included.
        facts: what `read_facts` says of it.
        level: wavelet levels to leave out, at most the codestream's own.

    Returns:
        (ceil(rows / 2^level), ceil(columns / 2^level)), clamped to SIZ's range; uint16, int32 if signed.
    """
    decoded = decode_from(None, codestream, facts, level)
    return None if decoded is None else decoded[0]


def decode_from(
    low: Low | None, codestream: bytes, facts: CodestreamFacts, level: int
) -> tuple[Pixels, Low | None] | None:
    """As `decode`, going on from a coarser level of the same stream.

    Args:
        low: what decoding a coarser level gave; another level is of no use, and None is always right.
        codestream: bare and complete, EOC included.
        facts: what `read_facts` says of it.
        level: wavelet levels to leave out.

    Returns:
        The pixels; what to go on from, at level 0 nothing.
    """
    stream = _opened(codestream, facts)
    if stream is None:
        return None
    if low is not None and low.level <= level:
        low = None
    levels = stream.style.levels
    bands = _decoded(stream, levels - low.level + 1 if low else 0, levels - level)
    if bands is None:
        return None
    if low is None:
        low = Low(levels, bands.pop(0))
        if not facts.signed:  # to no detail it makes a difference whether it is undone before or after
            low.samples[...] += 1 << (facts.precision - 1)
    return _merged(low, bands, stream.style, facts, level)


@dataclass(frozen=True, slots=True)
class _Stream:
    """What is needed of a codestream's headers, and its packets."""

    style: Style
    packets: npt.NDArray[np.uint8]
    planes: list[int]
    """Bit-planes of each sub-band, coarsest first."""


def _opened(codestream: bytes, facts: CodestreamFacts) -> _Stream | None:
    """None for a stream of another kind."""
    if not _fits(facts):
        return None
    try:
        style, packets = tile(codestream)
    except (Unordered, Short):
        return None
    planes = _planes(codestream, style) if _is_known(style) else None
    return None if planes is None else _Stream(style, np.frombuffer(packets, np.uint8), planes)


def _is_known(style: Style) -> bool:
    """Whether code-blocks are of the kind, and of an allowed size: others do not fit their room."""
    return (
        style.layers == 1
        and not style.block_style & ~_PREDICTABLE_TERMINATION
        and max(style.block_width, style.block_height) <= _MOST_BLOCK_SIDE
        and style.block_width + style.block_height <= _MOST_BLOCK_SAMPLES
        and style.levels <= _MOST_LEVELS
    )


def _decoded(stream: _Stream, coarsest: int, finest: int) -> list[Samples] | None:
    """All sub-bands of resolutions coarsest … finest; None where something does not end where it should."""
    style = stream.style
    layout = _layout(style, stream.planes, coarsest, finest)
    if layout is None:
        return None
    table = read_table(
        stream.packets, layout.bands, layout.grids, layout.blocks, sop=style.sop, eph=style.eph
    )
    if table is None:
        return None
    samples = np.zeros(layout.samples, np.int32)
    if not decode_blocks(stream.packets, table, samples):
        return None
    return [samples[first : first + r * c].reshape(r, c) for first, r, c in layout.shapes]


def _fits(facts: CodestreamFacts) -> bool:
    return (
        facts.compression is Compression.JPEG_2000
        and facts.lossless
        and facts.complete
        and facts.components == facts.tiles == facts.layers == 1
        and not (facts.offset or facts.subsampled or facts.has_roi)
        and facts.precision <= _MOST_PRECISION
        and facts.rows * facts.columns <= MAX_PIXELS
    )


def _planes(codestream: bytes, style: Style) -> list[int] | None:
    """Bit-planes of each sub-band, coarsest first (equation E-2); None where the header is another kind's."""
    found = None
    for marker, position in segments(codestream, 2):
        if marker not in _MARKERS or (marker == COD and codestream[position + 4] & ~_SCOD_BITS):
            return None
        if marker == _QCD:
            size = int.from_bytes(codestream[position + 2 : position + 4])
            found = codestream[position + 4 : position + 2 + size]
    if found is None or found[0] & 0x1F or len(found) < 2 + 3 * style.levels:
        return None
    return [(found[0] >> 5) + (byte >> 3) - 1 for byte in found[1 : 2 + 3 * style.levels]]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the sub-bands' samples go, one sub-band after the other."""

    bands: npt.NDArray[np.int64]
    """As `read_table` wants them: without empty ones."""
    grids: npt.NDArray[np.int64]
    blocks: int
    samples: int
    """Of all wanted sub-bands."""
    shapes: tuple[tuple[int, int, int], ...]
    """(first sample, rows, columns) of each wanted sub-band, empty ones too."""


def _layout(style: Style, planes: list[int], coarsest: int, finest: int) -> _Layout | None:
    """For resolutions coarsest … finest; None where a stream claims more than any image of its size has."""
    bands, grids, shapes = [], [], []
    blocks = samples = precincts = 0
    depths = iter(planes)
    for resolution in range(style.levels + 1):
        wanted = coarsest <= resolution <= finest
        across, down = grid(style, resolution)
        coarser = 1 if resolution else 0
        wide, high = (exponent - coarser for exponent in style.precincts[resolution])
        block = min(style.block_width, wide), min(style.block_height, high)
        grids.append((across, down, wide, high, *block))
        precincts += across * down
        for orientation, columns, rows in sub_bands(style, resolution):
            if wanted:
                shapes.append((samples, rows, columns))
            depth = next(depths)
            if columns and rows:
                first = samples if wanted else -1
                bands.append((resolution, orientation, columns, rows, depth, first, columns))
                blocks += (-(-columns >> block[0])) * (-(-rows >> block[1]))
            samples += rows * columns if wanted else 0
    if blocks > _MOST_BLOCKS or precincts > _MOST_PRECINCTS:
        return None
    return _Layout(np.array(bands, np.int64), np.array(grids, np.int64), blocks, samples, tuple(shapes))


def _merged(
    low: Low, bands: list[Samples], style: Style, facts: CodestreamFacts, level: int
) -> tuple[Pixels, Low | None]:
    """Sub-bands of ever finer resolutions, three each, merged with what lies below them."""
    least, most = stored_range(facts.precision, facts.signed)
    dtype: type[np.integer[Any]] = np.int32 if facts.signed else np.uint16
    everything = np.iinfo(np.int32)
    samples = low.samples
    for reached in range(low.level - 1, max(level, 1) - 1, -1):
        (hl, lh, hh), bands = bands[:3], bands[3:]
        out = np.empty(resolution_size(style, style.levels - reached)[::-1], np.int32)
        synthesised(samples, hl, lh, hh, everything.min, everything.max, out)
        samples = out
    pixels = np.empty(resolution_size(style, style.levels - level)[::-1], dtype)
    if level or not bands:
        clamp(samples, least, most, pixels)
        return pixels, Low(level, samples) if level else None
    hl, lh, hh = bands
    synthesised(samples, hl, lh, hh, least, most, pixels)
    return pixels, None
