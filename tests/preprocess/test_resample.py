"""Weights against their definition in exact fractions; kernels against plain loops."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.weights import MAX_TAPS, AxisWeights, Grid, axis_weights, shift_needed


def dense(weights: AxisWeights, samples: int) -> np.ndarray:
    matrix = np.zeros((weights.start.size, samples), np.int64)
    for row, (start, taps) in enumerate(zip(weights.start.tolist(), weights.taps.tolist(), strict=True)):
        for offset, tap in enumerate(taps):
            matrix[row, start + offset] += tap
    return matrix


def by_definition(box_start: int, box_size: int, outputs: int, level: int, samples: int) -> np.ndarray:
    """docs/numerics.md, literally: cumulative coverage in fractions, rounded, differences."""
    step = Fraction(2**level)
    scale = Fraction(box_size, outputs)
    centres = [step * n + Fraction(1, 2) for n in range(samples)]
    rows = []
    for o in range(outputs):
        lower = box_start + o * scale
        if scale >= step:
            edges = [centre + step / 2 for centre in centres[:-1]]
            inside = [min(max((edge - lower) / scale, Fraction(0)), Fraction(1)) for edge in edges]
        else:
            inside = [triangle_below(lower + scale / 2, n, centres[0], step) for n in range(1, samples)]
        rounded = [0, *(floor(c * 2**14 + Fraction(1, 2)) for c in inside), 2**14]
        rows.append(np.diff(rounded))
    return np.array(rows)


def triangle_below(position: Fraction, n: int, first_centre: Fraction, step: Fraction) -> Fraction:
    """Weight of all samples before n, for linear interpolation at `position`."""
    distance = (position - (first_centre + step * (n - 1))) / step
    return min(max(1 - distance, Fraction(0)), Fraction(1))


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    level = draw(st.integers(0, 4))
    full = draw(st.integers(2, 400))
    start = draw(st.integers(0, full - 1))
    return start, draw(st.integers(1, full - start)), draw(st.integers(1, 60)), level, -(-full >> level)


@given(axes(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_weights_are_those_of_the_definition(axis: tuple[int, int, int, int, int], flipped: bool) -> None:
    start, size, outputs, level, samples = axis
    weights = axis_weights(start, size, outputs, Grid.of_level(level, samples), flipped)
    expected = by_definition(start, size, outputs, level, samples)
    np.testing.assert_array_equal(dense(weights, samples), expected[::-1] if flipped else expected)


@given(axes(), st.integers(0, 2), st.booleans())
@settings(max_examples=100, deadline=None)
def test_weights_are_non_negative_sum_to_one_and_stay_inside(
    axis: tuple[int, int, int, int, int], shift: int, flipped: bool
) -> None:
    start, size, outputs, level, samples = axis
    grid = Grid.of_level(level, samples).shifted(shift)
    weights = axis_weights(start, size, outputs, grid, flipped)
    assert weights.taps.min() >= 0
    assert set(weights.taps.sum(axis=1).tolist()) == {2**14}
    assert weights.start.min() >= 0
    assert weights.start.max() + weights.taps.shape[1] <= grid.size
    assert (weights.start.dtype, weights.taps.dtype) == (np.int32, np.int32)


@given(st.integers(1, 100_000), st.integers(1, 200), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_after_the_shift_no_pass_has_more_than_64_taps(size: int, outputs: int, level: int) -> None:
    grid = Grid.of_level(level, max(1, -(-size >> level)))
    shift = shift_needed(size, outputs, grid)
    assert axis_weights(0, size, outputs, grid.shifted(shift)).taps.shape[1] <= MAX_TAPS
    if shift:
        # One shift less could be too many: the bound is a sample more than the exact ratio, rounded up.
        assert Fraction(size, outputs) / Fraction(grid.step << (shift - 1), 2) > MAX_TAPS - 2


def test_a_shifted_grid_covers_whole_blocks() -> None:
    # Blocks of 4 level-0 pixels: sample 1 covers [4, 8), so box [2, 6) is half of sample 0, half of 1.
    weights = axis_weights(2, 4, 1, Grid.of_level(0, 8).shifted(2))
    assert dense(weights, 2).tolist() == [[8192, 8192]]


def test_a_level_sample_is_centred_on_its_full_size_sample() -> None:
    # Level 2: sample n covers [4n − 1.5, 4n + 2.5). Box [0, 4): 2.5 of sample 0, 1.5 of sample 1.
    weights = axis_weights(0, 4, 1, Grid.of_level(2, 3))
    assert dense(weights, 3).tolist() == [[10240, 6144, 0]]


def test_edges_replicate() -> None:
    # Level 3 of 9 pixels has samples 0 and 1, centred at 0.5 and 8.5; enlarging, both ends are flat.
    weights = axis_weights(0, 9, 9, Grid.of_level(3, 2))
    assert dense(weights, 2)[[0, 4, 8]].tolist() == [[16384, 0], [8192, 8192], [0, 16384]]


def test_empty_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="empty axis"):
        axis_weights(0, 0, 5, Grid.of_level(0, 5))


# --- kernels ---


def slow_pass(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.clip((pixels.astype(np.int64) @ matrix.T + 8192) >> 14, 0, 65535)


@given(axes(), axes(), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_resampling_is_two_rounded_passes_horizontal_first(
    kernels: Any,
    down: tuple[int, int, int, int, int],
    across: tuple[int, int, int, int, int],
    flipped: bool,
    seed: int,
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 65536, (down[4], across[4]), np.uint16)
    rows = axis_weights(*down[:3], Grid.of_level(*down[3:]))
    columns = axis_weights(*across[:3], Grid.of_level(*across[3:]), flipped)
    between = slow_pass(pixels, dense(columns, across[4]))
    expected = slow_pass(between.T, dense(rows, down[4])).T
    result = kernels.resample(pixels, columns, rows)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, expected)


def test_the_order_of_passes_shows_in_the_rounding(kernels: Any) -> None:
    # Horizontal first: 0.5 → 1 and 1.5 → 2, then 1.5 → 2. Vertical first would give 1 and 1, then 1.
    half = axis_weights(0, 2, 1, Grid.of_level(0, 2))
    assert kernels.resample(np.array([[0, 1], [2, 1]], np.uint16), half, half).tolist() == [[2]]
    assert kernels.resample(np.array([[0, 2], [1, 1]], np.uint16), half, half).tolist() == [[1]]


def test_the_largest_sum_fits_in_32_signed_bits(kernels: Any) -> None:
    assert 65535 * 2**14 + 8192 == 1_073_733_632 < 2**31
    white = np.full((300, 200), 65535, np.uint16)
    rows, columns = (
        axis_weights(3, 291, 77, Grid.of_level(0, 300)),
        axis_weights(1, 198, 50, Grid.of_level(0, 200)),
    )
    assert (kernels.resample(white, columns, rows) == 65535).all()


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_equal_sizes_are_a_copy_and_a_flip_is_a_mirror(
    kernels: Any, rows: int, columns: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 65536, (rows, columns), np.uint16)
    down, across = Grid.of_level(0, rows), Grid.of_level(0, columns)
    same = axis_weights(0, rows, rows, down)
    for flipped in (False, True):
        turned = kernels.resample(pixels, axis_weights(0, columns, columns, across, flipped), same)
        np.testing.assert_array_equal(turned, pixels[:, ::-1] if flipped else pixels)


@given(axes(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_flip_mirrors_every_result(kernels: Any, axis: tuple[int, int, int, int, int], seed: int) -> None:
    start, size, outputs, level, samples = axis
    pixels = np.random.default_rng(seed).integers(0, 65536, (3, samples), np.uint16)
    grid, rows = Grid.of_level(level, samples), axis_weights(0, 3, 3, Grid.of_level(0, 3))
    plain = kernels.resample(pixels, axis_weights(start, size, outputs, grid), rows)
    mirrored = kernels.resample(pixels, axis_weights(start, size, outputs, grid, True), rows)
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


@given(axes(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_only_the_samples_in_use_matter(
    kernels: Any, axis: tuple[int, int, int, int, int], seed: int
) -> None:
    start, size, outputs, level, samples = axis
    pixels = np.random.default_rng(seed).integers(0, 65536, (2, samples), np.uint16)
    weights, rows = (
        axis_weights(start, size, outputs, Grid.of_level(level, samples)),
        axis_weights(0, 2, 2, Grid.of_level(0, 2)),
    )
    whole = kernels.resample(pixels, weights, rows)
    part = kernels.resample(pixels[:, weights.used], weights.moved(weights.used.start), rows)
    np.testing.assert_array_equal(whole, part)


def test_weights_for_other_samples_are_refused(kernels: Any) -> None:
    rows = axis_weights(0, 5, 5, Grid.of_level(0, 5))
    with pytest.raises(ValueError, match="of 4"):
        kernels.resample(np.zeros((4, 5), np.uint16), rows, rows)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_block_mean_rounds_the_mean_of_blocks_with_replicated_edges(
    kernels: Any, rows: int, columns: int, shift: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 65536, (rows, columns), np.uint16)
    side, mean = 1 << shift, kernels.block_mean(pixels, shift)
    assert mean.shape == (-(-rows // side), -(-columns // side))
    for (i, j), value in np.ndenumerate(mean):
        block = [
            int(pixels[min(i * side + a, rows - 1), min(j * side + b, columns - 1)])
            for a in range(side)
            for b in range(side)
        ]
        assert value == floor(Fraction(sum(block), side * side) + Fraction(1, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_table_indices_are_the_value_or_the_value_from_32768(kernels: Any, dtype: type[np.integer]) -> None:
    limits = np.iinfo(dtype)
    values = np.array([[limits.min, 0, 1, limits.max]], dtype)
    expected = values.astype(int) + (32768 if limits.min < 0 else 0)
    index = kernels.to_index(values)
    assert index.dtype == np.uint16
    np.testing.assert_array_equal(index, expected)


def test_offset_indices_resample_as_signed_values_do(kernels: Any) -> None:
    signed = np.random.default_rng(1).integers(-2048, 2048, (40, 30)).astype(np.int16)
    rows, columns = axis_weights(0, 40, 9, Grid.of_level(0, 40)), axis_weights(0, 30, 7, Grid.of_level(0, 30))
    between = (signed.astype(np.int64) @ dense(columns, 30).T + 8192) >> 14
    expected = (dense(rows, 40) @ between + 8192) >> 14
    result = kernels.resample(kernels.to_index(signed), columns, rows)
    np.testing.assert_array_equal(result.astype(int) - 32768, expected)


def test_look_up_and_counts(kernels: Any) -> None:
    pixels = np.random.default_rng(2).integers(-300, 300, (100, 33)).astype(np.int16)
    include = pixels % 3 == 0
    index = pixels.astype(int) + 32768
    np.testing.assert_array_equal(kernels.count_values(pixels), np.bincount(index.ravel(), minlength=65536))
    np.testing.assert_array_equal(
        kernels.count_values(pixels, include), np.bincount(index[include], minlength=65536)
    )
    table = np.random.default_rng(3).integers(0, 65536, 65536, np.uint16)
    np.testing.assert_array_equal(kernels.look_up(kernels.to_index(pixels), table), table[index])
