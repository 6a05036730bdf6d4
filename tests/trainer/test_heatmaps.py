from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.config import Orientation
from preprocess.geometry import fit
from preprocess.records import BreastBox, Geometry, RoiMethod
from trainer.heatmaps import LONGEST_PX, blend, to_original


def geometry(flipped: bool, box: tuple[int, int, int, int] = (300, 200, 2400, 1100)) -> Geometry:
    return fit(BreastBox(RoiMethod.BREAST, *box, flipped), 256, 128, Orientation.LEFT)


@given(st.booleans(), st.integers(320, 2650), st.integers(220, 1280))
def test_a_dot_comes_back_to_where_it_was_in_the_original(flipped: bool, row: int, column: int) -> None:
    place = geometry(flipped)
    down, across = place.to_prepared(Fraction(row), Fraction(column))
    prepared = np.zeros((256, 128), np.float32)
    rows, columns = np.indices(prepared.shape) + 0.5
    prepared[:] = np.exp(-(((rows - float(down)) ** 2 + (columns - float(across)) ** 2) / 8))
    found = to_original(prepared, place, (2776, 2082))
    peak = found.peak()
    pixel = 2400 / 256  # full-size pixels of one prepared pixel
    assert peak == pytest.approx((row, column), abs=pixel + found.step_px)


def test_nothing_shines_outside_the_breast_box() -> None:
    found = to_original(np.ones((256, 128), np.float32), geometry(True), (2776, 2082))
    step = found.step_px
    rows, columns = np.nonzero(found.values)
    assert max(found.values.shape) <= LONGEST_PX
    assert rows.min() * step + step // 2 >= 300
    assert rows.max() * step + step // 2 < 2700
    assert columns.min() * step + step // 2 >= 200
    assert columns.max() * step + step // 2 < 1300
    inside = found.values[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (inside == 1).all()


@pytest.mark.parametrize("size", [(100, 80), (1024, 700), (5355, 4915), (4915, 5355)])
def test_blocks_cover_the_original(size: tuple[int, int]) -> None:
    place = geometry(False, (0, 0, *size))
    found = to_original(np.ones((256, 128), np.float32), place, size)
    for blocks, length in zip(found.values.shape, size, strict=True):
        assert (blocks - 1) * found.step_px < length <= blocks * found.step_px


def test_for_is_red_against_is_blue_and_nothing_stays_gray() -> None:
    gray = np.full((1, 3), 0.5, np.float32)
    picture = blend(gray, np.array([[1.0, -1.0, 0.0]], np.float32))
    (red, blue, plain) = picture[0].astype(int)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert plain.tolist() == [128, 128, 128]


def test_a_few_outliers_leave_the_rest_of_a_map_visible() -> None:
    """Integrated gradients are so distributed: nearly all of a map is a tenth of its largest values."""
    gray, heat = np.full((20, 20), 0.5, np.float32), np.full((20, 20), 0.1, np.float32)
    heat[0, :3] = 1.0
    red, _, blue = blend(gray, heat)[10, 10].astype(int)
    assert red - blue > 100
    assert (blend(gray, heat) == blend(gray, 5 * heat)).all()


def test_a_map_of_zeros_leaves_the_picture_alone() -> None:
    gray = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    picture = blend(gray, np.zeros((3, 4), np.float32))
    np.testing.assert_array_equal(picture[..., 0], picture[..., 2])
    np.testing.assert_allclose(picture[..., 1], gray * 255, atol=0.51)


def test_a_map_of_nothing_has_no_peak() -> None:
    empty = to_original(np.zeros((256, 128), np.float32), geometry(False), (2776, 2082))
    assert empty.peak() is None
    against = to_original(np.full((256, 128), -1, np.float32), geometry(False), (2776, 2082))
    assert against.peak() is None, "0 outside the breast box is not what raised the answer"


def test_a_map_with_a_scale_of_its_own_stays_faint_where_it_is_small() -> None:
    gray = np.full((4, 4), 0.5, np.float32)
    faint, sure = (np.full((4, 4), value, np.float32) for value in (0.02, 1.0))
    assert (np.abs(blend(gray, faint, 1.0).astype(int) - 128) < 10).all()
    assert (blend(gray, sure, 1.0) == blend(gray, 3 * sure, 1.0)).all()
    assert (blend(gray, sure, 1.0) == blend(gray, faint)).all(), "without one, the largest is opaque"
