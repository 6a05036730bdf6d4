"""Crop, orient, resample, look up: Mammogram + Findings → Prepared.

In:  decoded stored values at one wavelet level; the breast box and what to do with padding.
Out: pixels (height, width), uint8 or uint16, MONOCHROME2, little more than the box ever converted.

Everything up to the look-up happens on stored values, in integers (docs/numerics.md); the table is the
same bytes on every device (voi.py), so the picture is too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocess import background, padding, voi
from preprocess.config import ResultConfig
from preprocess.decode import decoded_sha256
from preprocess.geometry import fit, pixel_aspect
from preprocess.kernels import seam as kernels
from preprocess.records import Geometry, IndexPixels, Mammogram, Prepared, StoredPixels, VoiChoice
from preprocess.roi import Findings
from preprocess.weights import AxisWeights, Grid, axis_weights, shift_needed

__all__ = ["fit", "render"]


def render(mammogram: Mammogram, findings: Findings, config: ResultConfig) -> Prepared:
    """Render the breast box into a height × width picture of the config's bits.

    The letterbox takes the darkest display value of the whole decoded image (after padding is replaced,
    where it must be): padding that stays is darker than everything else, and the two must not show a seam.
    With --background blank so does what lies beside the breast (background.py).
    Raises RejectedInput invalid_voi, or blank_image where a range is asked for and there is none.
    """
    instance = mammogram.instance
    pixels = without_bright_padding(mammogram, findings)
    geometry = fit(findings.box, config.height, config.width, config.orient, pixel_aspect(instance.image))
    choice, table = window(mammogram, findings, config)
    content = kernels.look_up(_resampled(pixels, geometry, mammogram.level), table)
    fill = _darkest(pixels, mammogram, table)
    kept = background.kept_of_content(findings, geometry, instance.image, config)
    if kept is not None:
        kept.blank(content, fill)
    picture = np.full((config.height, config.width), fill, np.uint8 if config.bits == 8 else np.uint16)
    _content_of(picture, geometry)[...] = kernels.to_host(content)
    return Prepared(
        mammogram=mammogram,
        geometry=geometry,
        voi=choice,
        pixels=picture,
        bits=config.bits,
        decoded_sha256=decoded_sha256(kernels.to_host(mammogram.pixels)),
        pixels_sha256=decoded_sha256(picture),
        background_blanked=kept is not None,
    )


def without_bright_padding(mammogram: Mammogram, findings: Findings) -> StoredPixels:
    """The decoded pixels, with padding replaced where it must be."""
    if findings.padding is None or findings.padding_replacement is None:
        return mammogram.pixels
    if mammogram.level:
        raise ValueError("padding that must be replaced is already mixed into a wavelet level")
    pixels, rule = mammogram.pixels, findings.padding
    value = padding.replacement(pixels, rule, padding.mask(pixels, rule), findings.inverted, mixed=False)
    return pixels if value is None else padding.replace(pixels, rule, value)


def window(mammogram: Mammogram, findings: Findings, config: ResultConfig) -> tuple[VoiChoice, voi.Table]:
    """The choice with its window, and its table; ranges come from the decoded level without its padding."""
    instance = mammogram.instance
    image, transform = instance.image, instance.modality_transform
    choice, stored = voi.choose(instance.voi, image, config), None
    if voi.needs_histogram(choice):
        rule = findings.padding
        include = None if rule is None else ~padding.mask(mammogram.pixels, rule)
        counts = kernels.count_values(mammogram.pixels, include)
        stored = voi.stored_range(counts, choice, image, config)
    choice = voi.resolve(choice, transform, image, stored)
    return choice, voi.build_table(choice, transform, image, config.bits)


def _resampled(pixels: StoredPixels, geometry: Geometry, level: int) -> IndexPixels:
    """The box at its size in the picture, as table indices; only its samples are read."""
    rows, columns, shift = axes(pixels.shape, geometry, level)
    part = pixels[_samples(rows, shift), _samples(columns, shift)]
    index = kernels.block_mean(kernels.to_index(part), shift)
    return kernels.resample(index, columns.moved(columns.used.start), rows.moved(rows.used.start))


def axes(shape: tuple[int, ...], geometry: Geometry, level: int) -> tuple[AxisWeights, AxisWeights, int]:
    """Weights of rows and columns from an image of this shape, after block means by the shift."""
    box = geometry.box
    row_grid, column_grid = (Grid.of_level(level, size) for size in shape)
    shift = max(
        shift_needed(box.rows, geometry.content_rows, row_grid),
        shift_needed(box.columns, geometry.content_columns, column_grid),
    )
    rows = axis_weights(box.row, box.rows, geometry.content_rows, row_grid.shifted(shift))
    columns = axis_weights(
        box.column, box.columns, geometry.content_columns, column_grid.shifted(shift), box.flipped
    )
    return rows, columns, shift


def _samples(weights: AxisWeights, shift: int) -> slice:
    """The samples before `block_mean` that make those in use; a slice ends at the edge by itself."""
    return slice(weights.used.start << shift, weights.used.stop << shift)


def _darkest(pixels: StoredPixels, mammogram: Mammogram, table: voi.Table) -> int:
    """Smallest display value among the pixels; a monotonic table needs only the extremes."""
    steps = np.diff(table.astype(np.int32))
    if (steps >= 0).all() or (steps <= 0).all():
        ours = pixels is mammogram.pixels
        low, high = mammogram.extremes() if ours else (int(pixels.min()), int(pixels.max()))
        ends = np.array([[low, high]], pixels.dtype)
        return int(table[kernels.to_index(ends)].min())
    return int(table[kernels.count_values(pixels) > 0].min())


def _content_of(picture: npt.NDArray[np.integer], geometry: Geometry) -> npt.NDArray[np.integer]:
    row, column = geometry.content_row, geometry.content_column
    return picture[row : row + geometry.content_rows, column : column + geometry.content_columns]
