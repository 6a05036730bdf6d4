"""The compiled kernels are held to the reference, function by function, to the byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from preprocess.kernels import compiled, reference
from preprocess.weights import AxisWeights, Grid, axis_weights

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))
DTYPES = st.sampled_from([np.uint8, np.int8, np.uint16, np.int16])
MASKS = arrays.arrays(np.bool_, SHAPES)
COUNTS = arrays.arrays(np.int64, st.integers(2, 64), elements=st.integers(0, 5))


def blobs(shape: tuple[int, int], seed: int, share: float) -> np.ndarray:
    """A mask with structure of many sizes: rings, bridges, islands in lakes."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((shape[0] // 3 + 1, shape[1] // 3 + 1)) < share
    fine = rng.random(shape) < 0.1
    return np.kron(coarse, np.ones((3, 3), bool))[: shape[0], : shape[1]] ^ fine


def same(ours: object, theirs: object) -> None:
    left, right = np.asarray(ours), np.asarray(theirs)
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    assert np.array_equal(left, right)


def test_both_modules_have_the_same_names() -> None:
    assert compiled.__all__ == reference.__all__


@settings(max_examples=300, deadline=None)
@given(MASKS | st.builds(blobs, SHAPES, st.integers(0, 999), st.floats(0.2, 0.8)), st.integers(0, 60))
def test_components_and_holes(mask: np.ndarray, largest: int) -> None:
    for turned in (mask, mask.T, mask[::-1, ::2]):
        same(compiled.largest_component(turned), reference.largest_component(turned))
        same(compiled.border_connected(turned), reference.border_connected(turned))
        same(compiled.fill_holes(turned, largest), reference.fill_holes(turned, largest))


def test_components_do_not_change_their_mask() -> None:
    mask = blobs((60, 50), 3, 0.5)
    before = mask.copy()
    compiled.fill_holes(mask, 9)
    compiled.largest_component(mask)
    compiled.border_connected(mask)
    assert np.array_equal(mask, before)


@settings(max_examples=200, deadline=None)
@given(DTYPES.flatmap(lambda kind: arrays.arrays(kind, SHAPES)), st.integers(0, 7))
def test_shift_mean(pixels: np.ndarray, shift: int) -> None:
    same(compiled.shift_mean(pixels, shift), reference.shift_mean(pixels, shift))


@settings(max_examples=200, deadline=None)
@given(DTYPES.flatmap(lambda kind: arrays.arrays(kind, SHAPES)), st.booleans())
def test_brightest_of_nine(pixels: np.ndarray, inverted: bool) -> None:
    same(compiled.brightest_of_nine(pixels, inverted), reference.brightest_of_nine(pixels, inverted))
    same(compiled.brightest_of_nine(pixels.T, inverted), reference.brightest_of_nine(pixels.T, inverted))


def test_shift_mean_takes_the_largest_blocks_of_the_largest_values() -> None:
    for value, kind in ((65535, np.uint16), (-32768, np.int16)):
        pixels = np.full((130, 129), value, kind)
        same(compiled.shift_mean(pixels, 7), reference.shift_mean(pixels, 7))
    with pytest.raises(ValueError, match="shift"):
        compiled.shift_mean(np.zeros((4, 4), np.uint16), 8)


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(np.int32, (9, 13), elements=st.integers(-40000, 70000)), arrays.arrays(np.bool_, (9, 13)),
    st.integers(-33000, 33000), st.integers(0, 7),
)  # fmt: skip
def test_histogram(values: np.ndarray, include: np.ndarray, low: int, shift: int) -> None:
    same(compiled.histogram(values, include, low, shift), reference.histogram(values, include, low, shift))


@settings(max_examples=500, deadline=None)
@given(COUNTS, st.integers(0, 63))
def test_thresholds(counts: np.ndarray, peak: int) -> None:
    assert compiled.otsu(counts) == reference.otsu(counts)
    peak = min(peak, counts.size - 1)
    assert compiled.triangle(counts, peak) == reference.triangle(counts, peak)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(np.int64, 1024, elements=st.integers(0, 60_000)), st.integers(0, 3))
def test_thresholds_of_whole_images(counts: np.ndarray, zeros: int) -> None:
    counts[: 200 * zeros] = 0
    assert compiled.otsu(counts) == reference.otsu(counts)
    assert compiled.otsu(counts * 4096) == reference.otsu(counts * 4096)
    assert compiled.triangle(counts, 300) == reference.triangle(counts, 300)


def test_otsu_takes_the_lowest_of_equals_however_large_they_are() -> None:
    counts = np.zeros(1024, np.int64)
    counts[[100, 500, 900]] = (7_000_000, 7_000_000, 7_000_000)
    assert compiled.otsu(counts) == reference.otsu(counts) == 100
    counts[:] = 0
    assert compiled.otsu(counts) == reference.otsu(counts) == -1


@settings(max_examples=200, deadline=None)
@given(DTYPES.flatmap(lambda kind: arrays.arrays(kind, SHAPES)), st.booleans())
def test_count_values(pixels: np.ndarray, masked: bool) -> None:
    include = (pixels & 1).astype(bool) if masked else None
    same(compiled.count_values(pixels, include), reference.count_values(pixels, include))
    same(compiled.count_values(pixels.T), reference.count_values(pixels.T))


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(np.uint16, st.tuples(st.integers(1, 70), st.integers(1, 70))), st.integers(0, 4),
    st.tuples(st.integers(1, 40), st.integers(1, 40)), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_resample_and_look_up(
    pixels: np.ndarray, level: int, outputs: tuple[int, int], flipped: bool, seed: int
) -> None:
    rows, columns = (
        axis_weights(size // 3, max(size << level >> 1, 1), wanted, Grid.of_level(level, size), mirrored)
        for size, wanted, mirrored in zip(pixels.shape, outputs, (False, flipped), strict=True)
    )
    for some in (pixels, np.asfortranarray(pixels)):
        picture = compiled.resample(some, columns, rows)
        same(picture, reference.resample(some, columns, rows))
    table = np.random.default_rng(seed).integers(0, 65536, 65536).astype(np.uint16)
    same(compiled.look_up(picture, table), reference.look_up(picture, table))


def test_the_largest_sum_of_a_pass_fits() -> None:
    weights = axis_weights(0, 128, 2, Grid.of_level(0, 128))
    pixels = np.full((128, 128), 65535, np.uint16)
    same(compiled.resample(pixels, weights, weights), np.full((2, 2), 65535, np.uint16))


def test_weights_beyond_the_samples_are_refused() -> None:
    good = axis_weights(0, 8, 2, Grid.of_level(0, 8))
    for bad in (AxisWeights(good.start + 5, good.taps), AxisWeights(good.start - 1, good.taps)):
        for rows, columns in ((good, bad), (bad, good)):
            with pytest.raises(ValueError, match="weights for samples"):
                compiled.resample(np.zeros((8, 8), np.uint16), columns, rows)
