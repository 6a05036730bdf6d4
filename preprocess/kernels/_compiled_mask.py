"""Compiled kernels of the breast mask: thumbnail, histogram; thresholds in a few array operations.

In and out: as in _mask.py.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocess.compiled import compiled
from preprocess.kernels import _mask
from preprocess.kernels._mask import BINS, Counts, Mask, Values

_EXACT_TOTAL = 1 << 26
"""Up to so many pixels Otsu's numerators before squaring fit in 64 bits: total² · BINS < 2^63."""
_NEAR = 1e-9
"""Relative error of a ratio of float64 is far below this: whatever is farther from the largest is smaller."""


def shift_mean(pixels: npt.NDArray[np.integer], shift: int) -> Values:
    """As in reference.py."""
    if not 0 < shift <= 7:
        return _mask.shift_mean(pixels, shift)
    return _block_means(np.ascontiguousarray(pixels), shift)


def histogram(values: Values, include: Mask, low: int, shift: int) -> Counts:
    """As in reference.py."""
    return _counted(np.ascontiguousarray(values), np.ascontiguousarray(include), low, shift)


def otsu(counts: Counts) -> int:
    """As in reference.py: float64 finds the candidates, integers decide between them."""
    total = int(counts.sum())
    if total > _EXACT_TOTAL or counts.size > BINS:
        return _mask.otsu(counts)
    index = np.arange(counts.size, dtype=np.int64)
    weight, first = np.cumsum(counts, dtype=np.int64), np.cumsum(counts * index, dtype=np.int64)
    numerator = total * first - weight * (first[-1] if counts.size else 0)
    denominator = weight * (total - weight)
    split = np.flatnonzero((counts != 0) & (denominator != 0))
    if split.size == 0:
        return -1
    variance = numerator[split].astype(np.float64) ** 2 / denominator[split]
    candidates = split[variance >= variance.max() * (1 - _NEAR)].tolist()
    best = candidates[0]
    for one in candidates[1:]:
        left = int(numerator[one]) ** 2 * int(denominator[best])
        if left > int(numerator[best]) ** 2 * int(denominator[one]):
            best = one
    return int(best) if variance.max() > 0 else -1


def triangle(counts: Counts, peak: int) -> int:
    """As in reference.py."""
    used = np.flatnonzero(counts)
    last = int(used[-1]) if used.size else peak
    if last < peak:
        return peak
    index = np.arange(peak, last + 1, dtype=np.int64)
    heights = counts[peak : last + 1].astype(np.int64)
    return peak + int(np.argmax(heights[0] * (last - index) - heights * (last - peak)))


def brightest_of_nine(values: npt.NDArray[np.integer], inverted: bool) -> npt.NDArray[np.integer]:
    """As in reference.py; the smallest is the largest of the complements."""
    if inverted:
        return ~_largest_of_nine(np.ascontiguousarray(~values))
    return _largest_of_nine(np.ascontiguousarray(values))


@compiled
def _largest_of_nine(values: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Of three rows first, then of three columns; edges are repeated."""
    rows, columns = values.shape
    result = np.empty_like(values)
    of_three = np.empty_like(values[0])
    for row in range(rows):
        above, here, below = values[max(row - 1, 0)], values[row], values[min(row + 1, rows - 1)]
        for column in range(columns):
            of_three[column] = max(max(above[column], here[column]), below[column])
        for column in range(1, columns - 1):
            result[row, column] = max(max(of_three[column - 1], of_three[column]), of_three[column + 1])
        result[row, 0] = max(of_three[0], of_three[min(1, columns - 1)])
        result[row, columns - 1] = max(of_three[columns - 1], of_three[max(columns - 2, 0)])
    return result


@compiled
def _block_means(pixels: npt.NDArray[np.integer], shift: int) -> Values:
    """Means of 2^shift × 2^shift blocks: whole columns of a block are summed first."""
    step, columns = 1 << shift, pixels.shape[1]
    means = np.empty((-(-pixels.shape[0] // step), -(-columns // step)), np.int32)
    sums = np.empty(columns, np.int32)
    for block in range(means.shape[0]):
        _sum_columns(pixels[block * step : (block + 1) * step], step, sums)
        for out in range(means.shape[1]):
            total = 1 << (2 * shift - 1)
            for column in range(out * step, min((out + 1) * step, columns)):
                total += sums[column]
            total += sums[columns - 1] * max((out + 1) * step - columns, 0)
            means[block, out] = total >> (2 * shift)
    return means


@compiled
def _sum_columns(rows: npt.NDArray[np.integer], step: int, sums: npt.NDArray[np.int32]) -> None:
    """Sums of `step` rows; where there are fewer, the last one is repeated."""
    sums[:] = 0
    for row in range(rows.shape[0]):
        line = rows[row]
        for column in range(line.size):
            sums[column] += line[column]
    for _ in range(rows.shape[0], step):
        for column in range(rows.shape[1]):
            sums[column] += rows[-1, column]


@compiled
def _counted(values: Values, include: Mask, low: int, shift: int) -> Counts:
    counts = np.zeros(BINS, np.int64)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            if include[row, column]:
                counts[min(max((values[row, column] - low) >> shift, 0), BINS - 1)] += 1
    return counts
