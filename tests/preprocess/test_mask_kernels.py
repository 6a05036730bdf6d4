"""Mask kernels against SciPy, brute force and hand-made cases; all results are integers or masks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

SEEDS = st.integers(0, 2**32 - 1)


def speckle(seed: int, rows: int, columns: int, share: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, columns)) < share


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_shift_mean_is_the_rounded_mean_of_blocks_with_repeated_edges(kernels, seed, rows, columns, shift):
    pixels = np.random.default_rng(seed).integers(-32768, 32768, (rows, columns)).astype(np.int16)
    step = 1 << shift
    padded = np.pad(pixels, ((0, -rows % step), (0, -columns % step)), mode="edge").tolist()
    means = kernels.shift_mean(pixels, shift)
    assert means.dtype == np.int32
    for r in range(means.shape[0]):
        for c in range(means.shape[1]):
            block = [padded[r * step + i][c * step + j] for i in range(step) for j in range(step)]
            assert means[r, c] == (sum(block) + (step * step >> 1)) >> (2 * shift)


def test_shift_mean_holds_the_largest_sum_in_32_bits(kernels):
    assert kernels.shift_mean(np.full((128, 128), 65535, np.uint16), 7).tolist() == [[65535]]
    assert kernels.shift_mean(np.full((128, 128), -32768, np.int16), 7).tolist() == [[-32768]]
    with pytest.raises(ValueError, match="shift"):
        kernels.shift_mean(np.zeros((2, 2), np.uint16), 8)


def test_shift_mean_equals_the_rendering_kernel_on_unsigned_pixels(kernels):
    pixels = np.random.default_rng(0).integers(0, 65536, (37, 50), dtype=np.uint16)
    for shift in (0, 1, 3):
        assert np.array_equal(kernels.shift_mean(pixels, shift), kernels.block_mean(pixels, shift))


def test_histogram_bins_by_shift_and_leaves_out_what_is_excluded(kernels):
    values = np.array([[-5, -4, -1, 3], [4094, 4095, 9000, -900]], np.int32)
    include = np.array([[True, True, True, True], [True, False, True, True]])
    counts = kernels.histogram(values, include, low=-5, shift=2)
    assert counts.size == 1024
    assert counts.sum() == 7
    assert (counts[0], counts[1], counts[2], counts[1023]) == (3, 1, 1, 2)  # −900 and 9000 at the ends


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=30))
def test_otsu_is_the_first_maximum_of_the_exact_between_class_variance(kernels, bins):
    def variance(threshold: int) -> Fraction:
        low, high = bins[: threshold + 1], bins[threshold + 1 :]
        if not sum(low) or not sum(high):
            return Fraction(0)
        mean_low = Fraction(sum(i * n for i, n in enumerate(low)), sum(low))
        mean_high = Fraction(sum((i + threshold + 1) * n for i, n in enumerate(high)), sum(high))
        return sum(low) * sum(high) * (mean_high - mean_low) ** 2

    variances = [variance(t) for t in range(len(bins))]
    expected = variances.index(max(variances)) if max(variances) else -1
    assert kernels.otsu(np.array(bins)) == expected


def test_otsu_takes_the_lowest_threshold_where_a_gap_ties(kernels):
    counts = np.zeros(1024, np.int64)
    counts[[10, 900]] = 5
    assert kernels.otsu(counts) == 10


def test_otsu_of_a_flat_image_finds_no_threshold(kernels):
    counts = np.zeros(1024, np.int64)
    counts[700] = 99
    assert kernels.otsu(counts) == -1
    assert kernels.otsu(np.zeros(1024, np.int64)) == -1


def test_otsu_is_exact_where_float64_is_not(kernels):
    # Two thresholds whose variances differ by less than 1 part in 10^16: the larger, later one wins.
    n = 10**9
    counts = np.zeros(1024, np.int64)
    counts[[0, 1, 2]] = n, 1, n + 1
    low = kernels.otsu(counts)
    counts[[0, 1, 2]] = n + 1, 1, n
    assert (low, kernels.otsu(counts)) == (1, 0)


def test_triangle_stops_at_the_foot_of_the_peak_whatever_lies_far_right(kernels):
    counts = np.zeros(1024, np.int64)
    counts[:8] = 1000, 5000, 20000, 9000, 2000, 300, 40, 10
    counts[200:600] = 50
    alone = kernels.triangle(counts, 2)
    counts[1020:] = 900
    assert alone in (5, 6, 7)
    assert kernels.triangle(counts, 2) in (5, 6, 7)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(1, 30), st.integers(1, 30), st.integers(0, 4), st.integers(0, 4))
def test_morphology_is_scipys_with_border_0(kernels, seed, rows, columns, row_radius, column_radius):
    mask = speckle(seed, rows, columns, 0.8)
    box = np.ones((2 * row_radius + 1, 2 * column_radius + 1))
    eroded = kernels.erode(mask, row_radius, column_radius)
    assert np.array_equal(eroded, ndimage.binary_erosion(mask, box, border_value=0))
    dilated = kernels.dilate(mask, row_radius, column_radius)
    assert np.array_equal(dilated, ndimage.binary_dilation(mask, box, border_value=0))
    opened = kernels.opened(mask, row_radius, column_radius)
    assert np.array_equal(opened, ndimage.binary_opening(mask, box))


def test_opening_keeps_a_straight_edge_at_the_border_and_drops_a_line(kernels):
    mask = np.zeros((60, 60), bool)
    mask[10:50, :30] = True
    expected = mask.copy()
    mask[:, 45:48] = True
    assert np.array_equal(kernels.opened(mask, 3, 3), expected)


def test_the_largest_component_joins_diagonals(kernels):
    mask = np.eye(5, dtype=bool)
    mask[0, 3:] = True
    assert np.array_equal(kernels.largest_component(mask), np.eye(5, dtype=bool))


@pytest.mark.parametrize("turn", [lambda m: m, np.flipud, np.fliplr, lambda m: m[::-1, ::-1]])
def test_of_equal_components_the_first_in_raster_order_is_taken(kernels, turn):
    mask = np.zeros((9, 9), bool)
    mask[1:3, 5:8] = mask[5:8, 1:3] = True
    mask = turn(mask)
    chosen = kernels.largest_component(mask)
    assert chosen.sum() == 6
    assert np.flatnonzero(chosen)[0] == np.flatnonzero(mask)[0]


def test_the_component_does_not_depend_on_label_numbers(kernels, monkeypatch):
    mask = speckle(4, 40, 40, 0.35)
    expected = kernels.largest_component(mask)
    label = ndimage.label

    def renumbered(array, structure):
        labels, count = label(array, structure=structure)
        return np.where(labels, count + 1 - labels, 0), count

    monkeypatch.setattr(ndimage, "label", renumbered)
    assert np.array_equal(kernels.largest_component(mask), expected)


def test_an_empty_mask_has_an_empty_component_and_empty_bounds(kernels):
    nothing = np.zeros((4, 6), bool)
    assert not kernels.largest_component(nothing).any()
    assert kernels.bounds(nothing) == (0, 0, 0, 0)
    assert not kernels.border_connected(nothing).any()


def test_border_connected_keeps_what_reaches_the_frame_even_by_a_corner(kernels):
    mask = np.zeros((7, 7), bool)
    mask[[0, 1, 2], [0, 1, 2]] = True
    mask[4:6, 4:6] = True
    kept = kernels.border_connected(mask)
    assert kept.sum() == 3
    assert kept[2, 2]


def test_holes_are_filled_up_to_a_size_and_bays_never(kernels):
    mask = np.zeros((20, 20), bool)
    mask[2:18, 2:18] = True
    mask[4:6, 4:6] = False
    mask[8:14, 8:14] = False
    mask[9:12, 0:4] = False
    small = kernels.fill_holes(mask, 4)
    assert small[4:6, 4:6].all()
    assert not small[8:14, 8:14].any()
    everything = kernels.fill_holes(mask, mask.size)
    assert everything[8:14, 8:14].all()
    assert not everything[9:12, 0:4].any()


def test_within_takes_bounds_beyond_the_dtype(kernels):
    values = np.array([[0, 7, 255]], np.uint8)
    assert kernels.within(values, -3, 7).tolist() == [[True, True, False]]
    assert kernels.within(values, 8, 4000).tolist() == [[False, False, True]]
    assert not kernels.within(values, 256, 300).any()
    assert not kernels.within(values, -9, -1).any()


def test_an_odd_middle_column_has_no_side(kernels):
    mask = np.ones((2, 5), bool)
    assert kernels.side_masses(mask) == (4, 4)
    mask[:, 4] = False
    assert kernels.side_masses(mask) == (4, 2)
    assert kernels.side_masses(np.ones((3, 1), bool)) == (0, 0)


def test_bounds_are_half_open(kernels):
    mask = np.zeros((10, 12), bool)
    mask[3, 4] = mask[6, 9] = True
    assert kernels.bounds(mask) == (3, 7, 4, 10)


def test_brightest_of_nine_follows_the_polarity(kernels):
    values = np.array([[5, 1, 1], [1, 1, 1], [1, 1, 9]], np.uint16)
    assert kernels.brightest_of_nine(values, inverted=False).tolist() == [[5, 5, 1], [5, 9, 9], [1, 9, 9]]
    assert kernels.brightest_of_nine(values, inverted=True).tolist() == [[1, 1, 1]] * 3
