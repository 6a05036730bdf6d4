"""How a box fits into the picture, and that points go there and back exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import Orientation
from preprocess.geometry import fit, pixel_aspect
from preprocess.records import BreastBox, Geometry, RoiMethod
from tests.instances import header

sizes = st.integers(1, 6000)


@st.composite
def boxes(draw: st.DrawFn) -> BreastBox:
    row, column = draw(st.integers(0, 3000)), draw(st.integers(0, 3000))
    return BreastBox(RoiMethod.BREAST, row, column, draw(sizes), draw(sizes), draw(st.booleans()))


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    aspect = draw(st.sampled_from([Fraction(1), Fraction(1), Fraction(3, 2), Fraction(7, 9)]))
    height, width = draw(st.integers(16, 3000)), draw(st.integers(16, 3000))
    return fit(draw(boxes()), height, width, draw(st.sampled_from(list(Orientation))), aspect)


points = st.fractions(-10_000, 10_000, max_denominator=997)


@given(geometries(), points, points)
@settings(max_examples=150, deadline=None)
def test_there_and_back_is_exact(geometry: Geometry, row: Fraction, column: Fraction) -> None:
    assert geometry.to_original(*geometry.to_prepared(row, column)) == (row, column)
    assert geometry.to_prepared(*geometry.to_original(row, column)) == (row, column)


@given(geometries())
@settings(max_examples=150, deadline=None)
def test_corners_of_the_box_are_corners_of_the_content(geometry: Geometry) -> None:
    box = geometry.box
    top, bottom = geometry.content_row, geometry.content_row + geometry.content_rows
    left, right = geometry.content_column, geometry.content_column + geometry.content_columns
    if box.flipped:
        left, right = right, left
    assert geometry.to_prepared(Fraction(box.row), Fraction(box.column)) == (top, left)
    far = geometry.to_prepared(Fraction(box.row + box.rows), Fraction(box.column + box.columns))
    assert far == (bottom, right)


@given(geometries())
@settings(max_examples=150, deadline=None)
def test_content_lies_inside_and_fills_one_side(geometry: Geometry) -> None:
    assert 0 <= geometry.content_row <= geometry.height - geometry.content_rows
    assert 0 <= geometry.content_column <= geometry.width - geometry.content_columns
    assert min(geometry.content_rows, geometry.content_columns) >= 1
    assert geometry.content_rows == geometry.height or geometry.content_columns == geometry.width


@given(boxes(), st.integers(16, 3000), st.integers(16, 3000), st.sampled_from([1, Fraction(3, 2)]))
@settings(max_examples=150, deadline=None)
def test_the_shape_is_kept_to_half_a_pixel(box: BreastBox, height: int, width: int, aspect: Fraction) -> None:
    geometry = fit(box, height, width, Orientation.LEFT, Fraction(aspect))
    scale = min(Fraction(height) / (box.rows * aspect), Fraction(width, box.columns))
    for size, exact in (
        (geometry.content_rows, box.rows * aspect * scale),
        (geometry.content_columns, box.columns * scale),
    ):
        assert abs(size - exact) <= Fraction(1, 2) or size == 1


def test_worked_example() -> None:
    # 2776×2082 into 1024×512: columns limit, 512/2082·2776 = 682.67 → 683 rows, 170 above and 171 below.
    box = BreastBox(RoiMethod.WHOLE_FRAME, 0, 0, 2776, 2082, flipped=False)
    left = fit(box, 1024, 512, Orientation.LEFT)
    assert (left.content_rows, left.content_columns, left.content_row, left.content_column) == (
        683,
        512,
        170,
        0,
    )
    # 2776×1000: rows limit, 1024/2776·1000 = 368.88 → 369 columns.
    narrow = BreastBox(RoiMethod.BREAST, 0, 5, 2776, 1000, flipped=True)
    assert fit(narrow, 1024, 512, Orientation.LEFT).content_column == 0
    kept = fit(narrow, 1024, 512, Orientation.KEEP)
    assert (kept.content_rows, kept.content_columns, kept.content_column) == (1024, 369, 71)


@pytest.mark.parametrize(
    ("row_mm", "column_mm", "aspect"),
    [
        (0.07, 0.07, 1),
        (0.1, 0.1 + 1e-12, 1),
        (0.0941, 0.094090909, 1),
        (0.25, 0.125, 2),
        (None, 0.1, 1),
        (0.0, 0.1, 1),
        (float("nan"), 0.1, 1),
        (float("inf"), 0.1, 1),
    ],
)
def test_pixels_are_square_unless_both_spacings_really_differ(
    row_mm: float | None, column_mm: float | None, aspect: int
) -> None:
    image = header((4, 4), "little", pixel_spacing_row_mm=row_mm, pixel_spacing_column_mm=column_mm)
    assert pixel_aspect(image) == aspect
