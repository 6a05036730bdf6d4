"""A map in prepared coordinates, brought back to the original DICOM's, and drawn over it.

In:  a map (height, width), the Geometry of its image, a coarse decode of the original.
Out: the map on a grid of s × s blocks of original pixels; where it peaks, in full-size rows and columns;
     RGB pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from preprocess.records import Geometry, Mammogram
from preprocess.thumbnails import to_gray
from trainer.records import Floats

LONGEST_PX = 1024
"""Blocks along the longer side of the original, at most."""
OPAQUE = 99.0
"""Percentile, of the absolute values that are not 0, from which on a map is opaque: the few largest pixels of
integrated gradients are ten times the others, and would leave them invisible."""

Rgb = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class OriginalMap:
    """Values of blocks of the original: values[i, j] is of rows [i·s, (i+1)·s) and columns [j·s, (j+1)·s)."""

    values: Floats = field(repr=False)
    step_px: int
    """s, in full-size pixels."""

    def peak(self) -> tuple[int, int] | None:
        """Full-size row and column of the largest block's middle; of equals, the first in raster order.

        None for a map that is positive nowhere: nothing in the image raised the answer.
        """
        if not (self.values > 0).any():
            return None
        row, column = np.unravel_index(int(np.argmax(self.values)), self.values.shape)
        half = self.step_px // 2
        return int(row) * self.step_px + half, int(column) * self.step_px + half


def to_original(prepared: Floats, geometry: Geometry, size: tuple[int, int]) -> OriginalMap:
    """Sample a prepared map (height, width) at the middle of each block; 0 outside the breast box.

    size: rows and columns of the original.
    """
    step = -(-max(size) // LONGEST_PX)
    box = geometry.box
    rows, columns = (np.arange(-(-length // step)) * step + step / 2 for length in size)
    down = geometry.content_row + (rows - box.row) * (geometry.content_rows / box.rows)
    along = (columns - box.column) * (geometry.content_columns / box.columns)
    across = geometry.content_column + (geometry.content_columns - along if box.flipped else along)
    inside = (
        ((rows >= box.row) & (rows < box.row + box.rows))[:, None]
        & ((columns >= box.column) & (columns < box.column + box.columns))[None, :]
    )  # fmt: skip
    grid = np.meshgrid(down - 0.5, across - 0.5, indexing="ij")  # pixel n has its middle at n + ½
    values = ndimage.map_coordinates(prepared, grid, order=1, mode="nearest")
    return OriginalMap(np.where(inside, values, 0).astype(np.float32), step)


def overlay(original: Mammogram, heat: OriginalMap, opaque: float | None = None) -> Rgb:
    """The original in gray under the map in colour, (r, c, 3) of the map's grid; larger is redder.

    opaque: as in `blend`.
    """
    gray = to_gray(original, heat.values.shape[0])
    down, across = (length / of for length, of in zip(gray.shape, heat.values.shape, strict=True))
    if gray.shape != heat.values.shape:
        places = np.meshgrid(
            (np.arange(heat.values.shape[0]) + 0.5) * down - 0.5,
            (np.arange(heat.values.shape[1]) + 0.5) * across - 0.5,
            indexing="ij",
        )
        gray = ndimage.map_coordinates(gray, places, order=1, mode="nearest")
    return blend((gray / 255).astype(np.float32), heat.values, opaque)


def blend(gray: Floats, heat: Floats, opaque: float | None = None) -> Rgb:
    """A gray picture (r, c) in [0, 1] under a map of the same shape.

    opaque: absolute value from which on the map hides the picture; None: its own largest 1 %. Negative values
    (against the target) are blue.
    """
    size = np.abs(heat)
    if opaque is None:
        opaque = float(np.percentile(size[size > 0], OPAQUE)) if size.any() else 1.0
    strength = np.clip(size / np.float32(opaque), 0, 1)
    warm = np.stack([np.ones_like(strength), 1 - strength, np.zeros_like(strength)], axis=-1)
    cold = np.stack([np.zeros_like(strength), 1 - strength, np.ones_like(strength)], axis=-1)
    colour = np.where((heat >= 0)[..., None], warm, cold)
    alpha = (0.65 * strength**0.8)[..., None]
    mixed = gray[..., None] * (1 - alpha) + colour * alpha
    return np.clip(mixed * 255 + 0.5, 0, 255).astype(np.uint8)
