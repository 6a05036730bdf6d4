"""How near one picture is to another (PSNR, SSIM), and the two ways of making a picture smaller.

In:  2-D uint16 stored values. Out: decibels, an index, or the box at its size in the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from preprocess.kernels import reference as kernels
from preprocess.records import IndexPixels
from preprocess.weights import Grid, axis_weights

_Floats = npt.NDArray[np.float64]
_SIGMA, _RADIUS = 1.5, 5
"""SSIM's Gaussian window: 11 × 11, as in the paper."""


@dataclass(frozen=True, slots=True)
class Target:
    """A box in full-size pixels and its size in the output: `Target.of` keeps the ratio."""

    row: int
    column: int
    rows: int
    columns: int
    out_rows: int
    out_columns: int

    @classmethod
    def of(cls, box: tuple[int, int, int, int], ratio: float) -> Target:
        """The box (row, column, rows, columns), `ratio` times smaller; exactly so where ratio is whole.

        Up to `ratio` pixels are cut off its lower and right ends.
        """
        row, column, rows, columns = box
        out_rows, out_columns = int(rows / ratio), int(columns / ratio)
        return cls(row, column, int(out_rows * ratio), int(out_columns * ratio), out_rows, out_columns)

    def area(self, samples: IndexPixels, level: int) -> IndexPixels:
        """What bcd-prep makes of the samples of a wavelet level; level 0 is the exact area mean."""
        grid_rows, grid_columns = (Grid.of_level(level, size) for size in samples.shape)
        rows = axis_weights(self.row, self.rows, self.out_rows, grid_rows)
        columns = axis_weights(self.column, self.columns, self.out_columns, grid_columns)
        part = samples[rows.used, columns.used]
        return kernels.resample(part, columns.moved(columns.used.start), rows.moved(rows.used.start))

    def bilinear(self, full: IndexPixels) -> IndexPixels:
        """What peers do: crop, then cv2.resize with INTER_LINEAR, which looks at 2 × 2 pixels only."""
        part = full[self.row : self.row + self.rows, self.column : self.column + self.columns]
        first, after = _neighbours(self.rows, self.out_rows)
        rows = part[first] * (1 - after)[:, None] + part[first + 1] * after[:, None]
        first, after = _neighbours(self.columns, self.out_columns)
        return np.rint(rows[:, first] * (1 - after) + rows[:, first + 1] * after).astype(np.uint16)


def _neighbours(size: int, outputs: int) -> tuple[npt.NDArray[np.int64], _Floats]:
    """The pixel before each output's centre, and how far the centre lies behind that pixel's."""
    centre = np.clip((np.arange(outputs) + 0.5) * (size / outputs) - 0.5, 0, size - 1)
    first = np.minimum(centre.astype(np.int64), size - 2)
    return first, centre - first


def psnr(ideal: IndexPixels, other: IndexPixels, peak: float) -> float:
    """Peak signal-to-noise ratio in dB: 10·log10(peak² / mean squared difference); inf where equal."""
    error = float(np.mean((ideal.astype(np.float64) - other) ** 2))
    return float(10 * np.log10(peak**2 / error)) if error else inf


def ssim(ideal: IndexPixels, other: IndexPixels, peak: float) -> float:
    """Mean structural similarity (Wang et al., IEEE TIP 13, 2004): Gaussian window of 11, σ = 1.5.

    K1 = 0.01 and K2 = 0.03 of `peak`; biased moments; the mean over all whole windows. The picture must be
    at least 11 pixels a side.
    """
    x, y = ideal.astype(np.float64), other.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x, variance_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    index /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(index.mean())


def _blurred(values: _Floats) -> _Floats:
    whole = slice(_RADIUS, -_RADIUS)
    blurred: _Floats = ndimage.gaussian_filter(values, _SIGMA, radius=_RADIUS)[whole, whole]
    return blurred
