"""What `--background blank` keeps: the breast, with a margin; whatever lies beside it becomes fill.

In:  Findings (the breast on the coarse grid), Geometry, the result config.
Out: Kept: a mask and, for each row and column of a picture, the mask's sample that says whether it stays.

Labels, side markers, rulers and patient data that a machine burned in beside the breast go. What overlaps the
breast, or touches it so that the mask takes both for one, stays: this is no proof that no text is left.

Only integers: each pixel asks the coarse sample nearest to its centre, exactly (ties: the later one), and the
mask is dilated before, by the crop's margin or 1/64 of the longer side, whichever is more. So no tissue goes
that the mask has missed at the skin, where it fades into the background.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from preprocess.config import Background, ResultConfig
from preprocess.kernels import seam as kernels
from preprocess.records import Geometry, ImageHeader, Mammogram
from preprocess.roi import CoarseGrid, Findings, margin_in_pixels

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int32]

_SHARE = 6
"""The mask grows by at least 1/2^6 of its longer side: what `breast.find` opens by."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Pixel (i, j) of a picture stays if mask[rows[i], columns[j]]."""

    mask: Mask = field(repr=False)
    rows: Index = field(repr=False)
    columns: Index = field(repr=False)

    def blank(self, picture: npt.NDArray[np.integer], fill: int) -> None:
        """Set what does not stay to `fill`, in place."""
        kernels.blank(picture, self.mask, self.rows, self.columns, fill)


def kept_of_content(
    findings: Findings, geometry: Geometry, image: ImageHeader, config: ResultConfig
) -> Kept | None:
    """What stays of the prepared content (the box, without the letterbox).

    None where nothing is blanked: it is not asked for, no breast was found, or a detector's box holds none
    of it.
    """
    mask = _grown(findings, image, config)
    if mask is None:
        return None
    mask = kernels.to_host(mask)
    box = geometry.box
    rows = _nearest(box.row, box.rows, geometry.content_rows, findings.grid, mask.shape[0])
    columns = _nearest(box.column, box.columns, geometry.content_columns, findings.grid, mask.shape[1])
    if not mask[np.unique(rows)][:, np.unique(columns)].any():
        return None
    return Kept(mask, rows, columns[::-1] if box.flipped else columns)


def blanked_coarse(coarse: Mammogram, findings: Findings, config: ResultConfig) -> Mammogram:
    """The coarse image with the same parts blanked, for thumbnails.

    Fill is its darkest-displaying value, or padding that stays, which a wavelet level may overshoot.
    """
    mask = _grown(findings, coarse.instance.image, config)
    if mask is None:
        return coarse
    pixels = coarse.pixels.copy()
    rows, columns = (np.arange(size, dtype=np.int32) >> findings.grid.shift for size in pixels.shape)
    fill = int(pixels.max() if findings.inverted else pixels.min())
    if findings.padding is not None and findings.padding_replacement is None:
        fill = min(max(fill, findings.padding.low), findings.padding.high)
    Kept(mask, rows, columns).blank(pixels, fill)
    return Mammogram(coarse.instance, pixels, coarse.level, coarse.decoder, coarse.above_bits_stored)


def _grown(findings: Findings, image: ImageHeader, config: ResultConfig) -> Mask | None:
    """The breast and its margin on the coarse grid; None if nothing is to be blanked."""
    component = findings.component
    if config.background is not Background.BLANK or component is None:
        return None
    least = max(component.shape) >> _SHARE
    spacings = (image.pixel_spacing_row_mm, image.pixel_spacing_column_mm)
    step = findings.grid.level + findings.grid.shift
    radii = (max(least, -(-margin_in_pixels(spacing, config) >> step)) for spacing in spacings)
    row_radius, column_radius = (min(radius, max(component.shape)) for radius in radii)
    return kernels.dilate(component, row_radius, column_radius)


def _nearest(start: int, size: int, outputs: int, grid: CoarseGrid, samples: int) -> Index:
    """For each of `outputs` equal parts of [start, start + size): the sample nearest to its centre.

    Sample n is centred on n·step + first/2: the mean of 2^shift samples whose own centres begin at ½
    (roi.CoarseGrid). So n = floor((centre − first/2) / step + ½), here over one denominator.
    """
    step, first = 1 << grid.level + grid.shift, 1 + (((1 << grid.shift) - 1) << grid.level)
    twice_centre = 2 * outputs * start + (2 * np.arange(outputs, dtype=np.int64) + 1) * size
    nearest = (twice_centre + outputs * (step - first)) // (2 * outputs * step)
    return nearest.clip(0, samples - 1).astype(np.int32)
