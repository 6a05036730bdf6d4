"""Compiled kernel of the wavelet.

In and out: as in _wavelet.py.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocess.compiled import compiled


def low_pass(pixels: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """As in reference.py."""
    return _low_pass(np.ascontiguousarray(pixels))


@compiled
def _low_pass(x: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """Columns before rows. A row of the result needs the details above and below it: the last one is kept."""
    rows, columns = x.shape
    low = np.empty(((rows + 1) // 2, (columns + 1) // 2), np.int32)
    above, below = np.empty(columns, np.int32), np.empty(columns, np.int32)
    line = np.empty(columns, np.int32)
    for row in range(low.shape[0]):
        if 2 * row + 1 < rows:
            _detail(x[2 * row], x[2 * row + 1], x[min(2 * row + 2, rows - 1 - (rows & 1 ^ 1))], below)
        if row == 0:
            above[:] = below
        if rows == 1:
            for column in range(columns):
                line[column] = x[0, column]
        else:
            _smooth(x[2 * row], above, below if 2 * row + 1 < rows else above, line)
        _along(line, low[row])
        above, below = below, above
    return low


@compiled
def _detail(
    before: npt.NDArray[np.integer],
    odd: npt.NDArray[np.integer],
    after: npt.NDArray[np.integer],
    out: npt.NDArray[np.int32],
) -> None:
    for i in range(out.size):
        out[i] = np.int32(odd[i]) - ((np.int32(before[i]) + np.int32(after[i])) >> np.int32(1))


@compiled
def _smooth(
    even: npt.NDArray[np.integer],
    before: npt.NDArray[np.int32],
    after: npt.NDArray[np.int32],
    out: npt.NDArray[np.int32],
) -> None:
    for i in range(out.size):
        out[i] = np.int32(even[i]) + ((before[i] + after[i] + np.int32(2)) >> np.int32(2))


@compiled
def _along(line: npt.NDArray[np.int32], out: npt.NDArray[np.int32]) -> None:
    """The same step along one row."""
    size = line.size
    if size == 1:
        out[0] = line[0]
        return
    before = line[1] - ((line[0] + line[2 if size > 2 else 0]) >> np.int32(1))
    for i in range(out.size):
        after = before
        if 2 * i + 1 < size:
            right = line[2 * i + 2] if 2 * i + 2 < size else line[2 * i]
            after = line[2 * i + 1] - ((line[2 * i] + right) >> np.int32(1))
        out[i] = line[2 * i] + ((before + after + np.int32(2)) >> np.int32(2))
        before = after
