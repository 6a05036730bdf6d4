"""How a box of the original fits into the prepared image.

In:  the breast box in full-size coordinates, the size of the prepared image, the shape of a pixel.
Out: Geometry, all integers; `Geometry.to_prepared` and `to_original` are exact inverses.
"""

from __future__ import annotations

from fractions import Fraction
from math import inf

from preprocess.config import Orientation, ResultConfig
from preprocess.records import BreastBox, Geometry, ImageHeader

_SPACING_NOISE = Fraction(1, 1000)
"""Row and column spacings that differ by less are one number, written or computed twice."""


def fit(
    box: BreastBox, height: int, width: int, orientation: Orientation, aspect: Fraction = Fraction(1)
) -> Geometry:
    """Fit the box into height × width with its shape kept, as large as it goes, enlarging if need be.

    aspect: height of an original pixel over its width. The side that limits is filled; the other has
    floor(x + ½) pixels, at least 1. The content lies at the left edge (where the chest wall is brought)
    or, if orientation is KEEP, in the middle; its rows lie in the middle. Odd remainders go below and right.
    """
    tall = box.rows * aspect
    if tall * width >= box.columns * height:
        rows, columns = height, _rounded(box.columns * height / tall, width)
    else:
        rows, columns = _rounded(tall * width / box.columns, height), width
    return Geometry(
        box=box,
        height=height,
        width=width,
        content_row=(height - rows) // 2,
        content_column=0 if orientation is Orientation.LEFT else (width - columns) // 2,
        content_rows=rows,
        content_columns=columns,
    )


def is_full_certain(image: ImageHeader, config: ResultConfig) -> bool:
    """Whether `roi.choose_level` gives 0 whatever box is found.

    A box fills the picture along one axis: where not even the whole frame has twice decode_margin times the
    picture's size along either, no box has.
    """
    if config.decode != "auto":
        return config.decodes_fully
    least = 2 * Fraction(str(config.decode_margin))
    return image.rows < least * config.height and image.columns < least * config.width


def pixel_aspect(image: ImageHeader) -> Fraction:
    """Height of a pixel over its width: 1 unless both spacings are known, positive and really differ."""
    row, column = image.pixel_spacing_row_mm, image.pixel_spacing_column_mm
    if row is None or column is None or not (0 < row < inf and 0 < column < inf):
        return Fraction(1)
    aspect = Fraction(row) / Fraction(column)
    return aspect if abs(aspect - 1) >= _SPACING_NOISE else Fraction(1)


def _rounded(size: Fraction, limit: int) -> int:
    return min(max(int(size + Fraction(1, 2)), 1), limit)
