"""Breast mask → BreastBox; which wavelet level is then enough.

In:  the coarse Mammogram (a wavelet level, or the full image where there is none) and the result config.
Out: Findings: the box in full-size coordinates, the padding that must be replaced, the coarse mask itself.

Everything is a pure function of file and result config: header laterality is never used, for it is sometimes
wrong; the side of the chest wall is where the mass is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from importlib import import_module
from math import ceil, isfinite

import numpy as np
import numpy.typing as npt

from preprocess import breast, padding, voi
from preprocess.codestream import deepest_level
from preprocess.config import Orientation, ResultConfig, RoiPolicy
from preprocess.errors import RejectedInput, UsageError
from preprocess.geometry import fit, pixel_aspect
from preprocess.kernels import seam as kernels
from preprocess.padding import PaddingRule
from preprocess.records import BreastBox, ImageHeader, Instance, Mammogram, RoiMethod

Values = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

THUMBNAIL = 1024
"""The longer side of what the mask is found on is smaller than this."""

Detector = Callable[[Values, ImageHeader], tuple[int, int, int, int] | None]
"""(thumbnail of stored values, header) → (row, column, rows, columns) in full-size pixels, or None."""


@dataclass(frozen=True, slots=True)
class CoarseGrid:
    """Where the samples of a coarse array lie in the full-size image (docs/numerics.md, Wavelet levels).

    Sample n is the mean of 2^shift wavelet samples a side, from n·2^shift on. Wavelet sample k of level r ≥ 1
    is centred on full-size 2^r·k + ½ and reaches half a step to each side; of level 0, it is pixel k.
    """

    level: int = 0
    shift: int = 0

    def start(self, sample: int) -> int:
        """First full-size pixel that the sample covers any part of (floor); may be negative."""
        return (sample << self.shift << self.level) - (1 << self.level >> 1)

    def stop(self, sample: int) -> int:
        """One past the last full-size pixel that the sample covers any part of (ceil)."""
        last = ((sample + 1) << self.shift) - 1
        return (last << self.level) + (1 << self.level >> 1) + 1


@dataclass(frozen=True, slots=True)
class Findings:
    """What the coarse image says: the box, the padding, the mask."""

    box: BreastBox
    padding_replacement: int | None = None
    """Stored value that replaces padding; then only level 0 may be rendered. None: leave padding as it is."""
    padding: PaddingRule | None = None
    """What is padding, at any level (`padding.mask`); None if the image has none."""
    grid: CoarseGrid = CoarseGrid()
    """Where the samples of `component` lie."""
    component: Mask | None = field(default=None, repr=False, compare=False)
    """The breast on the coarse grid; None if nothing plausible was found."""
    inverted: bool = False
    """Whether larger stored values display darker, by polarity, rescale slope and LUTs together."""


def find(coarse: Mammogram, config: ResultConfig) -> Findings:
    """Find the breast. Raises RejectedInput blank_image where all pixels are equal or all are padding."""
    instance = coarse.instance
    inverted = displays_inverted(instance, config)
    _check_not_blank(coarse)
    pad = padding.rule(instance.padding, instance.image)
    replaced = _padding_replacement(coarse, pad, inverted)
    values, grid = _thumbnail(coarse)
    allowed = np.ones_like(values, dtype=np.bool_)
    if pad is not None and replaced is not None:
        allowed = ~padding.rim(padding.mask(values, pad))
    component = breast.find(-values if inverted else values, allowed)
    return Findings(
        box=_box(values, component, grid, instance.image, config),
        padding_replacement=replaced,
        padding=pad,
        grid=grid,
        component=component,
        inverted=inverted,
    )


def choose_level(instance: Instance, findings: Findings, config: ResultConfig) -> int:
    """The wavelet level to decode for the final image (docs/numerics.md, Wavelet levels).

    `full`: 0. A number: that level, or the deepest there is. `auto`: the coarsest level on which the box is
    still decode_margin times its size in the prepared image, along both axes, in exact rationals. Always 0
    where padding must be replaced, for a level has already mixed it.
    """
    if config.decode == "full" or findings.padding_replacement is not None:
        return 0
    level = deepest_level(instance.image, instance.codestream)
    if config.decode != "auto":
        return min(int(config.decode), level)
    box, margin = findings.box, Fraction(str(config.decode_margin))
    content = fit(box, config.height, config.width, config.orient, pixel_aspect(instance.image))
    wanted_rows, wanted_columns = margin * content.content_rows, margin * content.content_columns
    while level and (box.rows < wanted_rows * (1 << level) or box.columns < wanted_columns * (1 << level)):
        level -= 1
    return level


def displays_inverted(instance: Instance, config: ResultConfig) -> bool:
    """Whether larger stored values display darker.

    MONOCHROME1 or PresentationLUTShape INVERSE; a negative rescale slope, a falling modality LUT and, if one
    applies, a falling VOI LUT each turn it round. Windows always rise (PS3.3 C.11.2.1.2).
    """
    transform = instance.modality_transform
    lut = voi.choose(instance.voi, instance.image, config).lut
    falling = transform.slope < 0 if transform.lut is None else _falls(transform.lut.entries)
    return instance.image.inverted ^ falling ^ (lut is not None and _falls(lut.entries))


def _falls(entries: tuple[int, ...]) -> bool:
    return entries[-1] < entries[0]


def _check_not_blank(coarse: Mammogram) -> None:
    low, high = coarse.extremes()
    if low == high:
        raise RejectedInput("blank_image", f"all pixels have the value {low} at level {coarse.level}")
    pad = coarse.instance.padding
    if pad is not None and pad.low <= low and high <= pad.high:
        raise RejectedInput("blank_image", f"all pixels lie in the padding range {pad.low} to {pad.high}")


def _padding_replacement(coarse: Mammogram, pad: PaddingRule | None, inverted: bool) -> int | None:
    """See padding.replacement; makes no mask where nothing is darker than the padding."""
    pixels, (low, high) = coarse.pixels, coarse.extremes()
    if pad is None:
        return None
    darker = high > pad.high + pad.tolerance if inverted else low < pad.low - pad.tolerance
    if not darker:
        return None
    return padding.replacement(pixels, pad, padding.mask(pixels, pad), inverted, coarse.level > 0)


def _thumbnail(coarse: Mammogram) -> tuple[Values, CoarseGrid]:
    """The coarse values, shrunk by block means until they are smaller than THUMBNAIL; on the host.

    The mask is found there wherever the pixels lie: it asks after every step what to do next, and a GPU would
    be waited for thirty times an image, by threads that all want the interpreter.
    """
    longer, shift = max(coarse.pixels.shape), 0
    while -(-longer >> shift) >= THUMBNAIL and shift < 7:
        shift += 1
    values = kernels.to_host(kernels.shift_mean(coarse.pixels, shift))
    return values, CoarseGrid(coarse.level, shift)


def _box(
    values: Values, component: Mask | None, grid: CoarseGrid, image: ImageHeader, config: ResultConfig
) -> BreastBox:
    """The detector's box, the component's with its margin, or the whole frame."""
    flipped = False
    if component is not None and config.orient is Orientation.LEFT:
        left, right = kernels.side_masses(component)
        flipped = right > left
    whole = BreastBox(RoiMethod.WHOLE_FRAME, 0, 0, image.rows, image.columns, flipped)
    if config.roi is RoiPolicy.NONE:
        return whole
    if config.roi_detector is not None:
        detected = detector_of(config.roi_detector)(kernels.to_host(values), image)
        if detected is not None:
            row, column, rows, columns = detected
            return _clipped(whole, RoiMethod.DETECTOR, (row, row + rows), (column, column + columns))
    if component is None:
        return whole
    top, bottom, first, last = kernels.bounds(component)
    row_margin = margin_in_pixels(image.pixel_spacing_row_mm, config)
    column_margin = margin_in_pixels(image.pixel_spacing_column_mm, config)
    return _clipped(
        whole,
        RoiMethod.BREAST,
        (grid.start(top) - row_margin, grid.stop(bottom - 1) + row_margin),
        (grid.start(first) - column_margin, grid.stop(last - 1) + column_margin),
    )


def _clipped(
    whole: BreastBox, method: RoiMethod, row_span: tuple[int, int], column_span: tuple[int, int]
) -> BreastBox:
    """The part of the box inside the frame; the whole frame if none is."""
    top, bottom = max(int(row_span[0]), 0), min(int(row_span[1]), whole.rows)
    left, right = max(int(column_span[0]), 0), min(int(column_span[1]), whole.columns)
    if top >= bottom or left >= right:
        return whole
    return BreastBox(method, top, left, bottom - top, right - left, whole.flipped)


def margin_in_pixels(spacing_mm: float | None, config: ResultConfig) -> int:
    """Margin in full-size pixels, rounded up: margin_mm where the spacing is known, margin_px where not."""
    if spacing_mm is None or not isfinite(spacing_mm) or spacing_mm <= 0:
        return config.margin_px
    return ceil(Fraction(str(config.margin_mm)) / Fraction(str(spacing_mm)))


@lru_cache(maxsize=8)
def detector_of(name: str) -> Detector:
    """Import `module:function`. Raises UsageError where there is no such thing."""
    module, _, function = name.partition(":")
    try:
        detector = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"roi_detector {name!r} is not an importable module:function") from error
    if not callable(detector):
        raise UsageError(f"roi_detector {name!r} is not a function: module:function is needed")
    found: Detector = detector
    return found
