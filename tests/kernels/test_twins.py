"""Every kernel of reference.py against its twin, on drawn shapes, types and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.kernels import reference
from preprocess.weights import AxisWeights, Grid, axis_weights

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.one_of(st.integers(1, 12), st.sampled_from([31, 32, 33, 63, 64, 65, 100, 129, 200]))
STORED = st.sampled_from([np.uint8, np.int8, np.uint16, np.int16])
SHARES = st.sampled_from([0.0, 0.02, 0.35, 0.41, 0.5, 0.8, 0.98, 1.0])
"""Of set pixels; 8-connected components of speckle begin to span the frame at 0.41."""

checked = settings(deadline=None, max_examples=40)


def stored(seed: int, rows: int, columns: int, dtype: Any) -> np.ndarray:
    """Stored values: all of the range, or few values as in a background."""
    random, limits = np.random.default_rng(seed), np.iinfo(dtype)
    low, high = (limits.min, limits.max + 1) if seed % 2 else (0, 4)
    return random.integers(low, high, (rows, columns)).astype(dtype)


def speckle(seed: int, rows: int, columns: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, columns)) < share


def check(twin: Any, expected: Any) -> None:
    assert type(twin) is type(expected)
    if isinstance(expected, np.ndarray):
        assert twin.dtype == expected.dtype
        np.testing.assert_array_equal(twin, expected)
    else:
        assert twin == expected


@checked
@given(SEEDS, SIZES, SIZES, STORED, st.integers(0, 7))
def test_pixels(twins: Any, seed: int, rows: int, columns: int, dtype: Any, shift: int) -> None:
    pixels = stored(seed, rows, columns, dtype)
    index = reference.to_index(pixels)
    check(twins.to_index(pixels), index)
    check(twins.shift_mean(pixels, shift), reference.shift_mean(pixels, shift))
    check(twins.block_mean(index, shift), reference.block_mean(index, shift))
    table = np.random.default_rng(seed).integers(0, 256, 65536)
    for kind in (np.uint8, np.uint16):
        check(twins.look_up(index, table.astype(kind)), reference.look_up(index, table.astype(kind)))
    low = reference.low_pass(pixels)
    check(twins.low_pass(pixels), low)
    check(twins.low_pass(low), reference.low_pass(low))
    for inverted in (False, True):
        check(twins.brightest_of_nine(pixels, inverted), reference.brightest_of_nine(pixels, inverted))


@checked
@given(SEEDS, SIZES, SIZES, STORED, st.integers(-70000, 70000), st.integers(0, 90000))
def test_ranges_and_counts(
    twins: Any, seed: int, rows: int, columns: int, dtype: Any, low: int, width: int
) -> None:
    pixels, include = stored(seed, rows, columns, dtype), speckle(seed, rows, columns, 0.6)
    check(twins.within(pixels, low, low + width), reference.within(pixels, low, low + width))
    check(twins.count_values(pixels), reference.count_values(pixels))
    check(twins.count_values(pixels, include), reference.count_values(pixels, include))
    values = pixels.astype(np.int32)
    for shift in (0, 6):
        expected = reference.histogram(values, include, low, shift)
        check(twins.histogram(values, include, low, shift), expected)


@checked
@given(SEEDS, SIZES, SIZES, SHARES, st.integers(0, 9), st.integers(0, 9))
def test_masks(
    twins: Any, seed: int, rows: int, columns: int, share: float, row_radius: int, column_radius: int
) -> None:
    mask = speckle(seed, rows, columns, share)
    for name in ("erode", "dilate", "opened"):
        expected = getattr(reference, name)(mask, row_radius, column_radius)
        check(getattr(twins, name)(mask, row_radius, column_radius), expected)
    check(twins.bounds(mask), reference.bounds(mask))
    check(twins.side_masses(mask), reference.side_masses(mask))


@checked
@given(SEEDS, SIZES, SIZES, SHARES, st.sampled_from([0, 1, 5, 10**6, 2**40]))
def test_components(twins: Any, seed: int, rows: int, columns: int, share: float, largest: int) -> None:
    mask = speckle(seed, rows, columns, share)
    check(twins.largest_component(mask), reference.largest_component(mask))
    check(twins.border_connected(mask), reference.border_connected(mask))
    check(twins.fill_holes(mask, largest), reference.fill_holes(mask, largest))


def spiral(side: int) -> np.ndarray:
    """One path that winds to the middle: the deepest tree there can be."""
    mask = np.zeros((side, side), np.bool_)
    row, column, step = 0, 0, (0, 1)
    mask[0, 0] = True
    for turn in range(side):
        for _ in range(side - 1 - 2 * ((turn - 1) // 2 if turn > 0 else 0)):
            ahead = row + step[0], column + step[1]
            beyond = row + 2 * step[0], column + 2 * step[1]
            inside = all(0 <= n < side for n in ahead)
            if not inside or (all(0 <= n < side for n in beyond) and mask[beyond]):
                break
            row, column = ahead
            mask[row, column] = True
        step = (step[1], -step[0])
    return mask


@pytest.mark.parametrize("turn", [lambda m: m, np.flipud, np.fliplr, np.transpose])
def test_components_that_wind(twins: Any, turn: Any) -> None:
    mask = turn(spiral(71))
    assert 1000 < mask.sum() < mask.size
    for share in (mask, ~mask):
        check(twins.largest_component(share), reference.largest_component(share))
        check(twins.fill_holes(share, 10**6), reference.fill_holes(share, 10**6))


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, AxisWeights]:
    """(samples, weights) of one axis: shrinking, growing, copies and mirrors, at every level."""
    level, samples = draw(st.integers(0, 3)), draw(st.integers(1, 260))
    full = samples << level
    start = draw(st.integers(0, full - 1))
    size = draw(st.integers(1, full - start))
    outputs = min(draw(st.one_of(st.integers(1, 90), st.just(size))), 300)
    return samples, axis_weights(start, size, outputs, Grid.of_level(level, samples), draw(st.booleans()))


@checked
@given(axes(), axes(), SEEDS)
def test_resampling(
    twins: Any, down: tuple[int, AxisWeights], across: tuple[int, AxisWeights], seed: int
) -> None:
    pixels = stored(seed, down[0], across[0], np.uint16)
    check(twins.resample(pixels, across[1], down[1]), reference.resample(pixels, across[1], down[1]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_blanking(twins: Any, dtype: Any) -> None:
    random = np.random.default_rng(5)
    mask = random.random((19, 23)) < 0.5
    rows, columns = (np.sort(random.integers(0, size, 2 * size)).astype(np.int32) for size in mask.shape)
    picture = random.integers(0, 256, (rows.size, columns.size)).astype(dtype)
    expected = picture.copy()
    reference.blank(expected, mask, rows, columns, 77)
    twins.blank(picture, mask, rows, columns, 77)
    np.testing.assert_array_equal(picture, expected)


def test_views_are_taken_as_they_are(device_kernels: Any) -> None:
    """Crops are read in place; mirrored and transposed views are packed first."""
    pixels = stored(7, 90, 70, np.int16)
    there = device_kernels.upload(pixels)
    for key in ((slice(3, 80), slice(5, 60)), (slice(None, None, -1),), (slice(None), slice(None, None, 3))):
        made = device_kernels.to_host(device_kernels.shift_mean(there[key], 2))
        np.testing.assert_array_equal(made, reference.shift_mean(pixels[key], 2))


def test_weights_for_other_samples_are_refused(twins: Any) -> None:
    weights = axis_weights(0, 5, 5, Grid.of_level(0, 5))
    with pytest.raises(ValueError, match="of 4"):
        twins.resample(np.zeros((4, 5), np.uint16), weights, weights)
