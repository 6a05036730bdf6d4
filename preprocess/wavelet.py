"""The integer 5/3 wavelet's low-pass band in NumPy: what level r of a reversible JPEG 2000 stream must be.

In:  full-size stored values.
Out: the LL band of level r, before any clamping. An oracle for `verify --source` and tests: it shares no code
     with a decoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer[Any]]


def low_pass_53(
    pixels: IntArray, level: int, tile_size: tuple[int, int] | None = None
) -> npt.NDArray[np.int32]:
    """LL band after `level` forward 5/3 decompositions, origin 0, symmetric extension (T.800 Annex F.4).

    Sample n lies on full-size sample 2^level * n. Values may overshoot the range of `pixels`; a decoder
    clamps them to SIZ's range once, at the end. A level shift before the transform changes nothing: low-pass
    coefficients sum to one in integers too.

    Args:
        pixels: 2-D integers of at most 26 bits.
        level: decompositions, 0 returns the input as int32.
        tile_size: (rows, columns) of tiles that are transformed each by itself; None for one tile.

    Returns:
        int32 (ceil(rows / 2^level), ceil(columns / 2^level)).

    Raises:
        ValueError: 2^level does not divide the size of a tile of which there are several.
    """
    band = np.asarray(pixels, dtype=np.int32)
    if tile_size is None:
        return _low_pass(band, level)
    rows, columns = tile_size
    for size, tile in zip(band.shape, tile_size, strict=True):
        if size > tile and tile % (1 << level):
            raise ValueError(f"tiles of {tile} have no common grid at level {level}")
    return np.block(
        [
            [_low_pass(band[r : r + rows, c : c + columns], level) for c in range(0, band.shape[1], columns)]
            for r in range(0, band.shape[0], rows)
        ]
    )


def _low_pass(band: npt.NDArray[np.int32], level: int) -> npt.NDArray[np.int32]:
    for _ in range(level):
        # Columns before rows, as the standard's forward transform: integer rounding makes the order matter.
        band = _along_first_axis(_along_first_axis(band).T).T
    return band


def _along_first_axis(x: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """One low-pass lifting step (T.800 F-9, F-10).

    d = odd - floor((left + right) / 2), s = even + floor((d_left + d_right + 2) / 4).
    """
    if x.shape[0] == 1:
        return x
    even, odd = x[0::2], x[1::2]
    right = even[1:]
    if x.shape[0] % 2 == 0:  # the sample after the last is the one before it
        right = np.concatenate([right, even[-1:]])
    high = odd - ((even[: len(odd)] + right) >> 1)
    before = np.concatenate([high[:1], high])[: len(even)]
    after = high if len(high) == len(even) else np.concatenate([high, high[-1:]])
    low: npt.NDArray[np.int32] = even + ((before + after + 2) >> 2)
    return low
