"""Compiled kernels for pixels: counting, resampling, look-up.

In and out: as in _resample.py. All sums are exact in int32, so their order does not matter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import uint32

from preprocess.compiled import compiled
from preprocess.kernels import _resample
from preprocess.kernels._resample import TABLE_ENTRIES, to_index
from preprocess.records import IndexPixels, StoredPixels
from preprocess.weights import WEIGHT_BITS, AxisWeights

_HALF = 1 << (WEIGHT_BITS - 1)


def count_values(pixels: StoredPixels, include: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """As in reference.py."""
    if include is not None:
        return _resample.count_values(pixels, include)
    return _counted(to_index(np.ascontiguousarray(pixels)))


def look_up(pixels: IndexPixels, table: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """As in reference.py."""
    return _looked_up(np.ascontiguousarray(pixels), table)


def resample(pixels: IndexPixels, columns: AxisWeights, rows: AxisWeights) -> IndexPixels:
    """As in reference.py."""
    _check(rows, pixels.shape[0])
    _check(columns, pixels.shape[1])
    used = np.ascontiguousarray(pixels[rows.used])
    narrow = np.empty((used.shape[0], columns.start.size), np.uint16)
    _weigh_rows(used, columns.start, columns.taps, narrow)
    return _weigh_columns(narrow, rows.start - np.int32(rows.used.start), rows.taps)


def _check(weights: AxisWeights, samples: int) -> None:
    used = weights.used
    if used.start < 0 or used.stop > samples:
        raise ValueError(f"weights for samples {used.start}…{used.stop - 1} of {samples}")


@compiled
def _counted(index: IndexPixels) -> npt.NDArray[np.int64]:
    counts = np.zeros(TABLE_ENTRIES, np.int64)
    for row in range(index.shape[0]):
        for column in range(index.shape[1]):
            counts[index[row, column]] += 1
    return counts


@compiled
def _looked_up(pixels: IndexPixels, table: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    values = np.empty(pixels.shape, np.uint16)
    for row in range(pixels.shape[0]):
        for column in range(pixels.shape[1]):
            values[row, column] = table[pixels[row, column]]
    return values


@compiled
def _weigh_rows(
    pixels: IndexPixels, start: npt.NDArray[np.int32], taps: npt.NDArray[np.int32], out: IndexPixels
) -> None:
    """One pass along the rows, four at a time: each weight is read once for all. The last rows may repeat."""
    last = pixels.shape[0] - 1
    for top in range(0, last + 1, 4):
        i = max(min(top, last - 3), 0)
        j, k, m = min(i + 1, last), min(i + 2, last), min(i + 3, last)
        a, b, c, d = pixels[i], pixels[j], pixels[k], pixels[m]
        for output in range(start.size):
            first = start[output]
            of_a = of_b = of_c = of_d = uint32(_HALF)
            for tap in range(taps.shape[1]):
                weight, sample = uint32(taps[output, tap]), first + tap
                of_a = uint32(of_a + weight * uint32(a[sample]))
                of_b = uint32(of_b + weight * uint32(b[sample]))
                of_c = uint32(of_c + weight * uint32(c[sample]))
                of_d = uint32(of_d + weight * uint32(d[sample]))
            out[i, output] = of_a >> uint32(WEIGHT_BITS)
            out[j, output] = of_b >> uint32(WEIGHT_BITS)
            out[k, output] = of_c >> uint32(WEIGHT_BITS)
            out[m, output] = of_d >> uint32(WEIGHT_BITS)


@compiled
def _weigh_columns(
    pixels: IndexPixels, start: npt.NDArray[np.int32], taps: npt.NDArray[np.int32]
) -> IndexPixels:
    """One pass down the columns."""
    columns = pixels.shape[1]
    out = np.empty((start.size, columns), np.uint16)
    sums = np.empty(columns, np.int32)
    for output in range(start.size):
        sums[:] = _HALF
        for tap in range(taps.shape[1]):
            weight, line = taps[output, tap], pixels[start[output] + tap]
            if weight:
                for column in range(columns):
                    sums[column] += weight * np.int32(line[column])
        for column in range(columns):
            out[output, column] = sums[column] >> WEIGHT_BITS
    return out
