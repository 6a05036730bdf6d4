"""Integer kernels of the breast mask: thumbnail, histogram, thresholds, morphology, components (NumPy).

In:  2-D integer arrays of stored values, boolean masks of the same shape.
Out: integers and boolean masks. No floating point anywhere, so a CUDA version can be equal to the byte.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

BINS = 1024
"""Bins of the histogram that thresholds are found on."""

_EIGHT = np.ones((3, 3), dtype=np.int8)


def shift_mean(pixels: npt.NDArray[np.integer], shift: int) -> Values:
    """Shrink by the means of 2^shift × 2^shift blocks: (sum + half) >> 2·shift, an arithmetic shift.

    Blocks at the far edges are completed by repeating the last row and column. Result: int32,
    (ceil(rows / 2^shift), ceil(columns / 2^shift)). 0 ≤ shift ≤ 7, so that sums of 16-bit values fit.
    """
    if shift == 0:
        return pixels.astype(np.int32)
    if not 0 < shift <= 7:
        raise ValueError("shift must be from 0 to 7")
    step, (rows, columns) = 1 << shift, pixels.shape
    summed = np.empty((-(-rows // step), columns), dtype=np.int32)
    for index, line in enumerate(summed):  # block by block, so that a block's int32 copy stays in the cache
        block = pixels[index * step : (index + 1) * step].astype(np.int32)
        np.add.reduce(block, axis=0, out=line)
        if len(block) < step:
            line += block[-1] * (step - len(block))
    if columns % step:
        summed = np.pad(summed, ((0, 0), (0, step - columns % step)), mode="edge")
    total = summed[:, ::step].copy()
    for offset in range(1, step):
        total += summed[:, offset::step]
    means: Values = (total + np.int32(1 << (2 * shift - 1))) >> np.int32(2 * shift)
    return means


def histogram(values: Values, include: Mask, low: int, shift: int) -> Counts:
    """Count the included values in BINS bins: bin = (value − low) >> shift, clipped to the first and last."""
    bins = np.clip((values[include] - np.int32(low)) >> shift, 0, BINS - 1)
    return np.bincount(bins, minlength=BINS)


def otsu(counts: Counts) -> int:
    """Otsu's threshold bin: bins > t are foreground; the lowest t on ties; −1 where fewer than two are used.

    Compares between-class variances (N·s0 − w0·S)² / (w0·w1) as exact fractions by cross-multiplication.
    N. Otsu, IEEE Trans. SMC 9 (1979) 62-66.
    """
    bins: list[int] = counts.tolist()
    total = sum(bins)
    moment = sum(index * count for index, count in enumerate(bins))
    best, best_numerator, best_denominator = -1, 0, 1
    weight = first = 0
    for index, count in enumerate(bins):
        weight += count
        first += index * count
        if count == 0 or weight == total:
            continue
        numerator = (total * first - weight * moment) ** 2
        denominator = weight * (total - weight)
        if numerator * best_denominator > best_numerator * denominator:
            best, best_numerator, best_denominator = index, numerator, denominator
    return best


def triangle(counts: Counts, peak: int) -> int:
    """The bin right of `peak` that lies farthest below the line from the peak to the last used bin.

    The distance is h_p·(e − b) − h_b·(e − p) up to a constant factor: integers. The lowest bin on ties.
    G. W. Zack, J. Histochem. Cytochem. 25 (1977) 741-753.
    """
    bins: list[int] = counts.tolist()
    last = max((index for index, count in enumerate(bins) if count), default=peak)
    best, best_distance = peak, -1
    for index in range(peak, last + 1):
        distance = bins[peak] * (last - index) - bins[index] * (last - peak)
        if distance > best_distance:
            best, best_distance = index, distance
    return best


def _shifted_and(mask: Mask, radius: int, axis: int) -> Mask:
    """AND of the mask shifted by −radius…radius along one axis; False beyond the border."""
    if radius == 0:
        return mask
    pad = [(0, 0), (0, 0)]
    pad[axis] = (radius, radius)
    window = np.pad(mask, pad)
    reach, size = 1, mask.shape[axis]
    while reach < 2 * radius + 1:
        step = min(reach, 2 * radius + 1 - reach)
        length = window.shape[axis] - step
        ahead = window[step:] if axis == 0 else window[:, step:]
        window = (window[:length] if axis == 0 else window[:, :length]) & ahead
        reach += step
    return window[:size] if axis == 0 else window[:, :size]


def erode(mask: Mask, row_radius: int, column_radius: int) -> Mask:
    """Binary erosion by a (2·row_radius+1) × (2·column_radius+1) box; beyond the border is 0."""
    return _shifted_and(_shifted_and(mask, row_radius, 0), column_radius, 1)


def dilate(mask: Mask, row_radius: int, column_radius: int) -> Mask:
    """Binary dilation by a (2·row_radius+1) × (2·column_radius+1) box; beyond the border is 0."""
    ring = ((row_radius, row_radius), (column_radius, column_radius))
    eroded = erode(np.pad(~mask, ring, constant_values=True), row_radius, column_radius)
    rows, columns = mask.shape
    return ~eroded[row_radius : row_radius + rows, column_radius : column_radius + columns]


def opened(mask: Mask, row_radius: int, column_radius: int) -> Mask:
    """Erosion, then dilation: what is narrower than the box goes; straight edges at the border stay."""
    return dilate(erode(mask, row_radius, column_radius), row_radius, column_radius)


def largest_component(mask: Mask) -> Mask:
    """The 8-connected component with most pixels; of equals, the one that comes first in raster order.

    Chosen by its first pixel's raster index, never by label number, which differs between libraries.
    All False if the mask is empty.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=_EIGHT)
    if count == 0:
        return np.zeros_like(mask)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    ties = np.flatnonzero(areas == areas.max())
    flat = labels.ravel()
    first = min(ties.tolist(), key=lambda label: int(np.argmax(flat == label)))
    chosen: Mask = labels == first
    return chosen


def within(values: npt.NDArray[np.integer], low: int, high: int) -> Mask:
    """Where low ≤ value ≤ high; bounds outside the dtype's range are fine."""
    limits = np.iinfo(values.dtype)
    if low > limits.max or high < limits.min:
        return np.zeros(values.shape, dtype=np.bool_)
    above = values >= values.dtype.type(max(low, limits.min))
    inside: Mask = above & (values <= values.dtype.type(min(high, limits.max)))
    return inside


def border_connected(mask: Mask) -> Mask:
    """The 8-connected components of the mask that touch the frame's border."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=_EIGHT)
    keep = np.zeros(count + 1, dtype=np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        keep[edge] = True
    keep[0] = False
    chosen: Mask = keep[labels]
    return chosen


def fill_holes(mask: Mask, largest: int) -> Mask:
    """Fill the holes of at most `largest` pixels: 8-connected background that does not touch the border."""
    from scipy import ndimage

    labels, count = ndimage.label(~mask, structure=_EIGHT)
    fill = np.bincount(labels.ravel(), minlength=count + 1) <= largest
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        fill[edge] = False
    fill[0] = False
    filled: Mask = mask | fill[labels]
    return filled


def brightest_of_nine(values: npt.NDArray[np.integer], inverted: bool) -> npt.NDArray[np.integer]:
    """Each value replaced by the brightest-displaying of its 3 × 3 neighbourhood; the edge is repeated."""
    from scipy import ndimage

    nine: npt.NDArray[np.integer] = (ndimage.minimum_filter if inverted else ndimage.maximum_filter)(
        values, size=3, mode="nearest"
    )
    return nine


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    """Half-open (row start, row stop, column start, column stop) of the True pixels; 0s if none."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def side_masses(mask: Mask) -> tuple[int, int]:
    """Pixels in the left and in the right half of the frame; an odd middle column counts for neither."""
    half = mask.shape[1] // 2
    return int(np.count_nonzero(mask[:, :half])), int(np.count_nonzero(mask[:, mask.shape[1] - half :]))
