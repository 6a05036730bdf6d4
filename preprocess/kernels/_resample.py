"""Reference kernels for pixels: table index, shift-mean, resampling, look-up (NumPy: the specification).

In:  2-D stored values, AxisWeights, a table of 65,536 entries.
Out: 2-D uint16 (indices) or the table's values. Any other implementation must return the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from preprocess.records import IndexPixels, StoredPixels
from preprocess.weights import WEIGHT_BITS, AxisWeights

if TYPE_CHECKING:
    from scipy import sparse

SIGNED_OFFSET = 32768
TABLE_ENTRIES = 65536
_HALF = 1 << (WEIGHT_BITS - 1)
_BLOCK_ROWS = 32


def to_index(pixels: StoredPixels) -> IndexPixels:
    """Turn stored values (uint8, int8, uint16, int16) into table indices: v, or v + 32768 where signed."""
    if np.issubdtype(pixels.dtype, np.signedinteger):
        return pixels.astype(np.int16).view(np.uint16) ^ np.uint16(SIGNED_OFFSET)
    return pixels.astype(np.uint16, copy=False)


def count_values(pixels: StoredPixels, include: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """Count the (included) pixels of each table index: int64 (65536,)."""
    counts = np.zeros(TABLE_ENTRIES, np.int64)
    for row in range(0, pixels.shape[0], _BLOCK_ROWS):
        block = slice(row, row + _BLOCK_ROWS)
        index = to_index(pixels[block])
        counts += np.bincount(
            index.ravel() if include is None else index[include[block]], minlength=TABLE_ENTRIES
        )
    return counts


def block_mean(pixels: IndexPixels, shift: int) -> IndexPixels:
    """Average blocks of 2^shift × 2^shift: (sum + half) >> 2·shift; the last row and column replicate."""
    if shift == 0:
        return pixels
    side = 1 << shift
    rows, columns = (-(-n // side) for n in pixels.shape)
    padding = [(0, rows * side - pixels.shape[0]), (0, columns * side - pixels.shape[1])]
    blocks = np.pad(pixels, padding, mode="edge").reshape(rows, side, columns, side)
    total: npt.NDArray[np.int64] = blocks.sum(axis=(1, 3), dtype=np.int64)
    return ((total + (1 << (2 * shift - 1))) >> (2 * shift)).astype(np.uint16)


def resample(pixels: IndexPixels, columns: AxisWeights, rows: AxisWeights) -> IndexPixels:
    """Resample to (rows.outputs, columns.outputs): along the rows first, then along the columns.

    Each pass is (Σ w·v + 8192) >> 14 in 32-bit signed integers, stored as uint16 in between. Weights are
    non-negative and sum to 2^14, so the largest sum is 1,073,733,632 and the clamp to 0…65535 cannot bite.
    """
    return _weigh(rows, _weigh_transposed(columns, pixels))


def look_up(pixels: IndexPixels, table: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """table[pixels]; table: uint16 (65536,)."""
    return np.take(table, pixels)


def _weigh(weights: AxisWeights, samples: IndexPixels) -> IndexPixels:
    """One pass down the columns of `samples`."""
    return _pass(_matrix(weights, samples.shape[0]), samples)


def _weigh_transposed(weights: AxisWeights, samples: IndexPixels) -> IndexPixels:
    """One pass along the rows of `samples`, by blocks of rows that stay in the cache while transposed."""
    matrix = _matrix(weights, samples.shape[1])
    result = np.empty((samples.shape[0], weights.start.size), np.uint16)
    for row in range(0, samples.shape[0], _BLOCK_ROWS):
        block = slice(row, row + _BLOCK_ROWS)
        result[block] = _pass(matrix, samples[block].T).T
    return result


def _pass(matrix: sparse.csr_array, samples: IndexPixels) -> IndexPixels:
    # The sums are exact in int32, so the order of summation does not matter.
    total: npt.NDArray[np.int32] = matrix @ np.ascontiguousarray(samples, np.int32)
    total += _HALF
    total >>= WEIGHT_BITS
    return total.astype(np.uint16)


def _matrix(weights: AxisWeights, samples: int) -> sparse.csr_array:
    from scipy import sparse

    outputs, taps = weights.taps.shape
    index = weights.start[:, None] + np.arange(taps, dtype=np.int32)
    if index.min() < 0 or index.max() >= samples:
        raise ValueError(f"weights for samples {index.min()}…{index.max()} of {samples}")
    present = weights.taps != 0
    ends = np.concatenate(([0], np.cumsum(present.sum(axis=1)))).astype(np.int32)
    return sparse.csr_array((weights.taps[present], index[present], ends), shape=(outputs, samples))
