"""The breast mask: which part of a thumbnail is the breast. Integers only, so every device finds the same.

In:  a thumbnail of values that grow with displayed brightness, and where it may look (bright padding is out).
Out: a Mask, or None where nothing looks like a breast on a background.

Otsu finds the dark class, but where a label or an implant is far brighter than the breast its threshold lies
inside the breast. So the background's peak is looked for in the dark class, and the threshold is put at the
peak's foot (triangle). What is left is opened against lines, letters and film edges, and the largest
component is taken. If that is a rectangle, it is the exposed field, not the breast, and the search goes on
inside it; or, if all of it is bright, a shutter or a block of label, and the search goes on without it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocess.kernels import seam as kernels

Values = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_SMOOTH = np.ones(5, dtype=np.int64)
_PASSES = 4
_BLUR = 2
"""Pixels that an edge is blurred over by thumbnail or wavelet."""
_AREA_DIVISOR = 64
"""A breast covers at least 1/64 of the frame; in RSNA's most padded pictures it is 10 %."""
_SIDE_DIVISOR = 16
"""Its box's sides are at least 1/16 of the frame's."""


def find(display: Values, field: Mask) -> Mask | None:
    """The breast in `field`, or None. Both of the same shape; `display` grows with displayed brightness."""
    found = None
    for _ in range(_PASSES):
        limits = _thresholds(display, field)
        if limits is None:
            break
        component, foreground = _component(display, field, *limits)
        if not _plausible(component, foreground):
            break
        if not _rectangular(component):
            return component
        area = np.count_nonzero(component)
        if 20 * np.count_nonzero(display[component] > limits[1]) >= 19 * area:
            field = field & ~kernels.dilate(component, _BLUR, _BLUR)
            continue
        found = component
        if 50 * area >= 49 * np.count_nonzero(field):
            break
        field = component
    return found


def _thresholds(display: Values, field: Mask) -> tuple[int, int] | None:
    """(foreground, bright): values above them are not background, and brighter than most tissue.

    None where the field has one value only, or its dark class is no background: too wide for its distance.
    """
    values = display[field]
    if values.size == 0:
        return None
    low, high = int(values.min()), int(values.max())
    shift = max(0, (high - low).bit_length() - 10)
    counts = kernels.histogram(display, field, low, shift)
    split = kernels.otsu(counts)
    if split < 0:
        return None
    smooth = np.convolve(counts, _SMOOTH, mode="same")
    foot = kernels.triangle(smooth, int(np.argmax(smooth[: split + 1])))
    if not _separated(counts, foot):
        return None
    above = counts.copy()
    above[: foot + 1] = 0
    bright = max(kernels.otsu(above), foot)
    return low + ((foot + 1) << shift) - 1, low + ((bright + 1) << shift) - 1


def _separated(counts: npt.NDArray[np.int64], threshold: int) -> bool:
    """Whether the bins up to the threshold are a background: the means are at least 4 of its σ apart."""
    index = np.arange(counts.size)
    dark, light = counts[: threshold + 1], counts[threshold + 1 :]
    n, total = int(dark.sum()), int((dark * index[: threshold + 1]).sum())
    squares = int((dark * index[: threshold + 1] ** 2).sum())
    other_n, other_total = int(light.sum()), int((light * index[threshold + 1 :]).sum())
    if n == 0 or other_n == 0:
        return False
    return bool(16 * (squares * n - total**2) * other_n**2 <= (other_total * n - total * other_n) ** 2)


def _component(display: Values, field: Mask, foreground: int, bright: int) -> tuple[Mask, int]:
    """The largest compact foreground component, its holes filled; and the pixels of all compact foreground.

    Compact: what is left without bands along the sides, lines and letters. Small holes are filled first, for
    fatty tissue may be as dark as the background; large ones last, for a line and a band that meet the breast
    enclose background. Empty where there is no background, for then everything may be tissue.
    """
    mask = field & (display > foreground)
    top = int(display[field].max())
    near_top = top - ((top - foreground) >> 3)
    for level in (bright, near_top):
        mask &= ~_film_edges(display > level)
    mask = kernels.fill_holes(mask, mask.size // _AREA_DIVISOR)
    longer = max(mask.shape)
    reach = (longer >> 6, longer >> 7)
    compact = kernels.opened(mask, *reach)
    core = kernels.largest_component(compact)
    component = np.zeros_like(core)
    if not core.any() or not _has_background(field & (display <= foreground), *reach):
        return component, 0
    window = _window(core, *reach)
    regrown = mask[window] & kernels.dilate(core[window], *reach)
    component[window] = kernels.fill_holes(kernels.largest_component(regrown), mask.size)
    return component, int(np.count_nonzero(compact))


def _has_background(dark: Mask, row_reach: int, column_reach: int) -> bool:
    """Whether there is a patch of nothing but background; dark pixels of noise or tissue are scattered."""
    return bool(kernels.erode(dark, row_reach >> 1, column_reach >> 1).any())


def _window(mask: Mask, row_reach: int, column_reach: int) -> tuple[slice, slice]:
    """The part of the frame within reach of the mask's box."""
    top, bottom, left, right = kernels.bounds(mask)
    rows = slice(max(top - row_reach, 0), bottom + row_reach)
    return rows, slice(max(left - column_reach, 0), right + column_reach)


def _film_edges(bright: Mask) -> Mask:
    """Straight bright bands along the sides of the frame that end within 1/8 of it, with 2 pixels of blur."""
    edges = np.zeros_like(bright)
    for axis in (0, 1):
        counts = kernels.to_host(np.count_nonzero(bright, axis=1 - axis))
        length = bright.shape[1 - axis]
        for reverse in (False, True):
            thickness = _band(counts[::-1] if reverse else counts, length)
            lines = slice(len(counts) - thickness, None) if reverse else slice(0, thickness)
            edges[(lines, slice(None)) if axis == 0 else (slice(None), lines)] = True
    return edges


def _band(counts: npt.NDArray[np.intp], length: int) -> int:
    """Lines of a bright band: all but 1/20 of each is bright, and of what follows less than half."""
    full = 20 * counts >= 19 * length
    thickness = int(np.argmin(full)) if not full.all() else len(full)
    inside = thickness + _BLUR
    if thickness == 0 or 8 * thickness > len(counts) or inside >= len(counts):
        return 0
    return inside if 2 * int(counts[inside]) < length else 0


def _plausible(component: Mask, foreground: int) -> bool:
    """Whether it may be a breast: large, no line, half of all foreground, a quarter of its box."""
    area = int(np.count_nonzero(component))
    top, bottom, left, right = kernels.bounds(component)
    rows, columns = component.shape
    return (
        _AREA_DIVISOR * area >= rows * columns
        and _SIDE_DIVISOR * min(bottom - top, right - left) >= min(rows, columns)
        and 2 * area >= foreground
        and 4 * area >= (bottom - top) * (right - left)
    )


def _rectangular(component: Mask) -> bool:
    """Whether it fills 97 % of its box: an exposed field. A breast's outline leaves more."""
    top, bottom, left, right = kernels.bounds(component)
    return bool(100 * np.count_nonzero(component) >= 97 * (bottom - top) * (right - left))
