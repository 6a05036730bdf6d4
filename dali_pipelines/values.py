"""DALI's range multiplier, undone exactly: what a decoder gave → what the stream holds.

In:  2-D unsigned values of NumPy or CuPy, and the stream's precision (SIZ), carried beside its bytes.
Out: uint16 values of that precision, in the same array library: nothing here names one.

On a GPU DALI gives round(v · 65535 / (2^p − 1)) for p < 16 bits, on its CPU backend v itself for p ≥ 9.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
"""A NumPy or CuPy array. CuPy is untyped, and absent from a CPU-only install."""

TOP = 65535


def undo_range(scaled: Array, precision: int) -> Array:
    """(u · (2^p − 1) + 32767) / 65535 in unsigned 32-bit integers, exact for p = 9 … 16 (docs/numerics.md).

    scaled: 2-D uint16, of 0 … 65535. Returns 2-D uint16 in 0 … 2^p − 1. Raises ValueError for other p.
    """
    if not 9 <= precision <= 16:
        raise ValueError(f"the range multiplier of {precision} bits is not known to be undone exactly")
    wide = scaled.astype(np.uint32) * np.uint32((1 << precision) - 1) + np.uint32(TOP // 2)
    return (wide // np.uint32(TOP)).astype(np.uint16)


def redo_range(values: Array, precision: int) -> Array:
    """What DALI makes of `precision`-bit values on a GPU: the nearest of v · 65535 / (2^p − 1). For tests.

    values: 2-D, in 0 … 2^p − 1. Returns 2-D uint16.
    """
    top = (1 << precision) - 1
    wide = values.astype(np.uint64) * np.uint64(2 * TOP) + np.uint64(top)
    return (wide // np.uint64(2 * top)).astype(np.uint16)
