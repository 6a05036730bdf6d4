"""Code-blocks of JPEG 2000, decoded (ITU-T T.800 Annex D).

In:  packets, and a table that says where each code-block's bytes are and where its samples belong.
Out: the sub-bands' samples; or False at the first code-block whose bytes end elsewhere than its passes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import int64, uint16, uint32, uint64

from preprocess.compiled import compiled
from preprocess.jpeg2000.mq import (
    CONTEXTS,
    FIRST_BITS,
    FIRST_SHIFT,
    HALF,
    INITIAL,
    SPARE_WORDS,
    States,
    Words,
    unstuffed,
)
from preprocess.jpeg2000.passes import REAL, Bitmaps, Magnitudes, Neighbours, clean_up, propagate, refine

Table = npt.NDArray[np.int64]
Samples = npt.NDArray[np.int32]

BAND, WIDTH, HEIGHT, PLANES, PASSES, START, LENGTH, TARGET, STRIDE = range(9)
"""Columns of the table: band 0 LL, 1 HL, 2 LH, 3 HH; size; bit-planes and passes that are coded; first byte
and number of bytes; index of the first sample in all sub-bands, below 0 if not wanted; samples per row."""
COLUMNS = 9

MOST_PLANES = 28
"""One more bit for the middle of what is not decoded, one for the sign."""
MOST_BYTES = 1 << 16
"""Of one code-block; 4,096 samples of 28 bits, the worst case, are 14,336 bytes."""
_MOST_POSITIONS = 3 * 4 * 1025 + 128
"""1,024 x 4 samples need most: three stripes of 1,025 columns."""

_ZERO, _ONE, _FOUR, _SIX, _EIGHT, _SIXTY_THREE = (uint64(n) for n in (0, 1, 4, 6, 8, 63))


def decode_blocks(data: npt.NDArray[np.uint8], table: Table, bands: Samples) -> bool:
    """Decode all code-blocks of `table` that are wanted into `bands`, without the GIL.

    Args:
        data: uint8, the packets.
        table: int64 (code-blocks, COLUMNS); bytes lie within data, samples within bands.
        bands: int32, zeros where code-blocks belong; of planes that are missing the middle is taken.

    Returns:
        Whether each code-block's bytes end where its passes do, to two bytes, as in what encoders write.
    """
    whole: bool = _decode_blocks(data, table, bands)
    return whole


@compiled
def _decode_blocks(
    data: npt.NDArray[np.uint8],
    table: Table,
    bands: Samples,
) -> bool:
    words = np.empty(MOST_BYTES // 4 + SPARE_WORDS + 1, np.uint32)
    maps = np.empty((5, _MOST_POSITIONS // 64 + 4), np.uint64)
    neighbours = np.empty(_MOST_POSITIONS, np.uint16)
    magnitudes = np.empty(_MOST_POSITIONS, np.uint32)
    states = np.empty(CONTEXTS, np.uint64)
    for at in range(table.shape[0]):
        row = table[at]
        if row[TARGET] < 0:
            continue
        planes, passes, length = row[PLANES], row[PASSES], row[LENGTH]
        if not 0 < planes <= MOST_PLANES or not 0 < passes <= 3 * planes - 2 or not 0 < length <= MOST_BYTES:
            return False
        last, least, most = unstuffed(data, row[START], length, words)
        if last < 0:
            return False
        for context in range(CONTEXTS):
            states[context] = INITIAL[context]
        used = _decode_block(
            words, last, row[WIDTH], row[HEIGHT], planes, passes,
            maps, neighbours, magnitudes, states, uint64(row[BAND]) << _EIGHT,
        )  # fmt: skip
        if not least <= used <= most:
            return False
        _place(magnitudes, row[WIDTH], row[HEIGHT], bands, row[TARGET], row[STRIDE])
    return True


@compiled
def _place(magnitudes: Magnitudes, width: int, height: int, bands: Samples, target: int, stride: int) -> None:
    """Write a code-block's samples, rows side by side."""
    for y in range(height):
        first = (y >> 2) * 4 * (width + 1) + (y & 3)
        to = target + y * stride
        for x in range(width):
            coded = magnitudes[uint64(first + 4 * x)]
            value = np.int32((coded & uint32(0x7FFF_FFFF)) >> uint32(1))
            bands[uint64(to + x)] = -value if coded >> uint32(31) else value


@compiled
def _decode_block(
    words: Words,
    last_word: int,
    width: int,
    height: int,
    planes: int,
    passes: int,
    maps: Bitmaps,
    neighbours: Neighbours,
    magnitudes: Magnitudes,
    states: States,
    band: int,
) -> int:
    """Decode the passes of one code-block; return how often its decoder doubled the interval.

    magnitudes: by position from the first sample's on; bit 31 negative, bit 0 half of what a plane is worth.
    """
    stripe = uint64(4 * (width + 1))
    origin = (stripe + _FOUR + _SIXTY_THREE) >> _SIX << _SIX
    end = origin + uint64((height + 3) >> 2) * stripe
    _clear(maps, neighbours, magnitudes, width, height, stripe, origin, end)
    span = int64(origin >> _SIX), int64((end + _SIXTY_THREE) >> _SIX), stripe
    last = uint64(last_word)
    coder = HALF, uint64(words[0]) << FIRST_SHIFT, int64(FIRST_BITS), uint64(1)
    plane, kind = planes - 1, 2
    for _ in range(passes):
        if kind == 0:
            coder = propagate(words, last, coder, span, plane, maps, neighbours, magnitudes, states, band)
        elif kind == 1:
            coder = refine(words, last, coder, span, plane, maps, neighbours, magnitudes, states)
        else:
            coder = clean_up(words, last, coder, span, plane, maps, neighbours, magnitudes, states, band)
        kind += 1
        if kind == 3:
            kind, plane = 0, plane - 1
    doubled: int = int64(coder[3]) * 32 - coder[2] - (32 - FIRST_BITS)
    return doubled


@compiled
def _clear(
    maps: Bitmaps,
    neighbours: Neighbours,
    magnitudes: Magnitudes,
    width: int,
    height: int,
    stripe: int,
    origin: int,
    end: int,
) -> None:
    """Nothing is known but which positions are samples."""
    maps[:, : int64((end + stripe) >> _SIX) + 2] = _ZERO
    neighbours[: int64(end + stripe) + 8] = uint16(0)
    magnitudes[: int64(end - origin)] = uint32(0)
    for top in range(0, height, 4):
        column = (_ONE << uint64(min(4, height - top))) - _ONE
        position = origin + uint64(top >> 2) * stripe
        for _ in range(width):
            maps[REAL, position >> _SIX] |= column << (position & _SIXTY_THREE)
            position += _FOUR
