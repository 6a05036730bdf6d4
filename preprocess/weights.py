"""Where each output pixel takes its value from: integer weights of one axis, exact by construction.

In:  a stretch of one axis in full-size pixels, the number of output pixels, and the grid of the samples.
Out: AxisWeights: per output pixel the first sample and non-negative weights that sum to 2^14.

Everything is integer arithmetic in half full-size pixels, so there is one right answer (docs/numerics.md,
"Resampling") and every device gets the same weights: they are built once on the host.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

WEIGHT_BITS = 14
MAX_TAPS = 64
"""More taps than this in a pass are avoided by an integer shift-mean first."""

_Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Samples of one axis: sample n covers [origin + step·n, origin + step·(n+1)) / 2 full-size pixels."""

    origin: int
    """Lower edge of sample 0, in half full-size pixels."""
    step: int
    """Extent of a sample, in half full-size pixels; even."""
    size: int
    """Number of samples."""

    @classmethod
    def of_level(cls, level: int, size: int) -> Grid:
        """Grid of a 5/3 low-pass: sample n is centred on full-size sample 2^level·n, at 2^level·n + ½."""
        return cls(origin=1 - 2**level, step=2 ** (level + 1), size=size)

    def shifted(self, shift: int) -> Grid:
        """Grid after `block_mean`: blocks of 2^shift samples become one."""
        return Grid(self.origin, self.step << shift, -(-self.size >> shift))


@dataclass(frozen=True, slots=True)
class AxisWeights:
    """Weights of one axis: output o is Σ taps[o, j] · sample[start[o] + j], over 2^14.

    start: int32 (outputs,), taps: int32 (outputs, k ≤ 64). start + k never exceeds the samples, so a kernel
    needs no bounds check: coverage beyond the ends is given to the end samples (edges replicate).
    """

    start: npt.NDArray[np.int32] = field(repr=False)
    taps: npt.NDArray[np.int32] = field(repr=False)

    @property
    def used(self) -> slice:
        """The samples that are read: everything outside may be left out."""
        return slice(int(self.start.min()), int(self.start.max()) + self.taps.shape[1])

    def moved(self, by: int) -> AxisWeights:
        """The same weights for samples counted from `by`."""
        return AxisWeights(self.start - np.int32(by), self.taps)


def axis_weights(
    box_start: int, box_size: int, outputs: int, grid: Grid, flipped: bool = False
) -> AxisWeights:
    """Weights that bring full-size pixels [box_start, box_start + box_size) onto `outputs` pixels.

    Output o covers a stretch of exactly box_size/outputs full-size pixels. Where that is at least a sample's
    step, the filter is the box (area) filter; where it is less, the triangle between sample centres. Equal
    and in phase is a copy. Weight k is R(C_{k+1}) − R(C_k), where C is the exact cumulative coverage and
    R(c) = floor(c·2^14 + ½). A flip reverses the outputs: the result is the exact mirror image.
    """
    if min(box_size, outputs, grid.size) < 1:
        raise ValueError(f"empty axis: box {box_size}, outputs {outputs}, samples {grid.size}")
    area = 2 * box_size >= outputs * grid.step
    find, rule = (_area_start, _area_coverage) if area else (_triangle_start, _triangle_coverage)
    first, taps = find(box_start, box_size, outputs, grid)
    start = np.clip(first, 0, grid.size - taps)
    index = start[:, None] + np.arange(taps + 1)
    covered, whole = rule(index, box_start, box_size, outputs, grid)
    covered = np.where(index <= 0, 0, np.where(index >= grid.size, whole, covered))
    rounded = ((covered << (WEIGHT_BITS + 1)) + whole) // (2 * whole)
    order = slice(None, None, -1) if flipped else slice(None)
    return AxisWeights(
        np.ascontiguousarray(start[order], np.int32),
        np.ascontiguousarray(np.diff(rounded, axis=1)[order], np.int32),
    )


def shift_needed(box_size: int, outputs: int, grid: Grid) -> int:
    """Smallest shift of `block_mean` after which a pass over this axis has at most 64 taps."""
    shift = 0
    while -(-2 * box_size // (outputs * grid.step << shift)) + 1 > MAX_TAPS:
        shift += 1
    return shift


# Below, positions are in units of 1/(2·outputs) full-size pixels: all edges and centres are integers.


def _area_start(box_start: int, box_size: int, outputs: int, grid: Grid) -> tuple[_Int64, int]:
    """Sample that holds each output's lower edge, and the most samples that an output touches."""
    lower = 2 * box_start * outputs + 2 * box_size * np.arange(outputs, dtype=np.int64)
    origin, step = grid.origin * outputs, grid.step * outputs
    first = np.clip((lower - origin) // step, 0, grid.size - 1)
    last = np.clip((lower + 2 * box_size - 1 - origin) // step, 0, grid.size - 1)
    return first, int((last - first).max()) + 1


def _area_coverage(
    index: _Int64, box_start: int, box_size: int, outputs: int, grid: Grid
) -> tuple[_Int64, int]:
    """How much of each output lies below the lower edge of sample `index`, and the whole."""
    lower = 2 * box_start * outputs + 2 * box_size * np.arange(outputs, dtype=np.int64)
    edge = (grid.origin + grid.step * index) * outputs
    return np.clip(edge - lower[:, None], 0, 2 * box_size), 2 * box_size


def _triangle_position(box_start: int, box_size: int, outputs: int, grid: Grid) -> tuple[_Int64, _Int64]:
    """Sample whose centre is at or below each output's centre, and how far below."""
    centre = 2 * box_start * outputs + box_size * (2 * np.arange(outputs, dtype=np.int64) + 1)
    return np.divmod(centre - (grid.origin + grid.step // 2) * outputs, grid.step * outputs)


def _triangle_start(box_start: int, box_size: int, outputs: int, grid: Grid) -> tuple[_Int64, int]:
    """The lower of the two samples, and their number."""
    return _triangle_position(box_start, box_size, outputs, grid)[0], min(2, grid.size)


def _triangle_coverage(
    index: _Int64, box_start: int, box_size: int, outputs: int, grid: Grid
) -> tuple[_Int64, int]:
    """Weight of all samples below `index`, and the whole."""
    below, past = _triangle_position(box_start, box_size, outputs, grid)
    ahead = index - below[:, None]
    whole = grid.step * outputs
    return np.where(ahead <= 0, 0, np.where(ahead == 1, whole - past[:, None], whole)), whole
