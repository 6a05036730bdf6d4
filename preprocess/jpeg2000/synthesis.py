"""The inverse 5/3 wavelet transform (ITU-T T.800 Annex F.3), rows before columns, in integers.

In:  the four sub-bands of one resolution.
Out: the next finer resolution's samples, within a range.

Rows are inverted into a few lines that stay in the cache; columns are then lifted line by line.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocess.compiled import compiled

Band = npt.NDArray[np.int32]


@compiled
def synthesised(
    ll: Band, hl: Band, lh: Band, hh: Band, least: int, most: int, out: npt.NDArray[np.integer]
) -> None:
    """Merge sub-bands of an image at origin 0.

    Args:
        ll: int32 (ceil(rows / 2), ceil(columns / 2)).
        hl: int32 (ceil(rows / 2), floor(columns / 2)): details of columns.
        lh: int32 (floor(rows / 2), ceil(columns / 2)): details of rows.
        hh: int32 (floor(rows / 2), floor(columns / 2)).
        least: samples are clamped to this,
        most: and to this.
        out: (rows, columns), written.
    """
    rows, columns = out.shape
    low, high, smooth = np.empty(columns, np.int32), np.empty(columns, np.int32), np.empty(columns, np.int32)
    detail, before = np.empty(columns, np.int32), np.empty(columns, np.int32)
    if rows == 1:
        _row(ll[0], hl[0], low)
        _store(low, least, most, out[0])
        return
    for i in range(ll.shape[0]):
        _row(ll[i], hl[i], low)
        if i < lh.shape[0]:
            _row(lh[i], hh[i], high)
            if i == 0:
                _copy(high, detail)  # above the first row lies the same as below it
        else:
            _copy(detail, high)
        for x in range(columns):
            smooth[x] = low[x] - ((detail[x] + high[x] + np.int32(2)) >> np.int32(2))
        if i > 0:
            _between(before, detail, smooth, least, most, out[2 * i - 1])
        _store(smooth, least, most, out[2 * i])
        detail, high = high, detail
        before, smooth = smooth, before
    if rows % 2 == 0:
        _between(before, detail, before, least, most, out[rows - 1])


@compiled
def clamp(samples: Band, least: int, most: int, out: npt.NDArray[np.integer]) -> None:
    """Write samples clamped to a range, in the type of `out`, of the same shape."""
    for row in range(samples.shape[0]):
        _store(samples[row], least, most, out[row])


@compiled
def _copy(line: Band, out: Band) -> None:
    for x in range(out.size):
        out[x] = line[x]


@compiled
def _row(low: Band, high: Band, out: Band) -> None:
    """One row (F.3.8.2.1): even samples, then odd ones between them."""
    size, odd = out.size, high.size
    if size == 1:
        out[0] = low[0]
        return
    out[0] = low[0] - ((np.int32(2) * high[0] + np.int32(2)) >> np.int32(2))
    for i in range(1, odd):
        out[2 * i] = low[i] - ((high[i - 1] + high[i] + np.int32(2)) >> np.int32(2))
    if size % 2:
        out[size - 1] = low[odd] - ((np.int32(2) * high[odd - 1] + np.int32(2)) >> np.int32(2))
    for i in range(odd - 1 if size % 2 == 0 else odd):
        out[2 * i + 1] = high[i] + ((out[2 * i] + out[2 * i + 2]) >> np.int32(1))
    if size % 2 == 0:
        out[size - 1] = high[odd - 1] + out[size - 2]


@compiled
def _between(
    above: Band, detail: Band, below: Band, least: int, most: int, out: npt.NDArray[np.integer]
) -> None:
    """An odd row, stored."""
    lowest, highest = np.int32(least), np.int32(most)
    for x in range(out.size):
        value = detail[x] + ((above[x] + below[x]) >> np.int32(1))
        out[x] = min(max(np.int32(value), lowest), highest)


@compiled
def _store(line: Band, least: int, most: int, out: npt.NDArray[np.integer]) -> None:
    lowest, highest = np.int32(least), np.int32(most)
    for x in range(out.size):
        out[x] = min(max(line[x], lowest), highest)
