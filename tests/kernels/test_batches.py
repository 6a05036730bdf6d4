"""Batches of images of different sizes and types: stored values, ranges, thumbnails, drawings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.kernels import reference
from preprocess.kernels.pictures import Drawing, Kept
from preprocess.records import ImageHeader
from preprocess.stored import Samples, to_stored
from preprocess.weights import Grid, axis_weights
from tests.instances import header


def image(shape: tuple[int, int], bits: int, signed: bool = False) -> ImageHeader:
    made = header(shape, "little", pixel_representation=int(signed))
    return replace(made, bits_stored=bits, high_bit=bits - 1, bits_allocated=8 if bits <= 8 else 16)


@pytest.mark.parametrize("precision", range(9, 17))
def test_every_value_comes_back_from_the_full_range(precision: int, twins: Any) -> None:
    values = np.arange(1 << precision, dtype=np.uint32)
    largest = (1 << precision) - 1
    for rounded in (values * 65535 // largest, (values * 65535 + largest // 2) // largest):
        scaled = np.resize(rounded, (1 << (precision - 8), 256)).astype(np.uint16)
        plain = twins.undo_range(scaled, precision)
        assert plain.dtype == np.uint16
        np.testing.assert_array_equal(plain.ravel(), values)


def test_ranges_that_are_not_undone_exactly_are_refused(device_kernels: Any) -> None:
    scaled = device_kernels.upload(np.zeros((4, 4), np.uint16))
    for precision in (8, 17):
        with pytest.raises(ValueError, match="exactly"):
            device_kernels.undo_range(scaled, precision)
    with pytest.raises(ValueError, match="exactly"):
        device_kernels.clamp_to_stored([Samples(scaled, 8, False, "x")], [image((4, 4), 8)], True)


@st.composite
def decoded(draw: st.DrawFn) -> tuple[Samples, ImageHeader]:
    """Samples of a codec that overshoot their own range and that of BitsStored."""
    shape = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    signed, precision = draw(st.booleans()), draw(st.integers(2, 16))
    bits = draw(st.integers(2, precision))
    dtype = draw(st.sampled_from([np.int16, np.int32] if signed else [np.uint16, np.int32]))
    limits, reach = np.iinfo(dtype), 1 << (precision + 1)
    low, high = max(limits.min, -reach), min(limits.max, reach)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.integers(low, high + 1, shape).astype(dtype)
    return Samples(values, precision, signed, "x"), image(shape, bits, signed)


@settings(deadline=None, max_examples=40)
@given(st.lists(decoded(), min_size=1, max_size=5))
def test_stored_values_are_those_of_the_cpu(twins: Any, batch: list[tuple[Samples, ImageHeader]]) -> None:
    kernels, upload = twins._kernels, twins._upload
    there = [replace(samples, values=upload(samples.values)) for samples, _ in batch]
    made = kernels.clamp_to_stored(there, [facts for _, facts in batch])
    facts = kernels.to_host(made.facts).tolist()
    for (samples, of), pixels, numbers in zip(batch, made.pixels, facts, strict=True):
        stored = to_stored(samples, of)
        expected, outside = stored.pixels, stored.outside
        host = kernels.to_host(pixels)
        assert host.dtype == expected.dtype
        np.testing.assert_array_equal(host, expected)
        assert numbers == [outside, expected.min(), expected.max()]


def test_the_range_is_undone_and_clamped_in_one_pass(device_kernels: Any) -> None:
    """p = 12 in a 10-bit header: what a GPU decoder gives for an image with pixels above BitsStored."""
    values = np.random.default_rng(0).integers(0, 4096, (61, 47)).astype(np.uint16)
    scaled = device_kernels.upload((values.astype(np.uint32) * 65535 // 4095).astype(np.uint16))
    made = device_kernels.clamp_to_stored([Samples(scaled, 12, False, "x")], [image((61, 47), 10)], True)
    np.testing.assert_array_equal(device_kernels.to_host(made.pixels[0]), np.minimum(values, 1023))
    outside, low, high = device_kernels.to_host(made.facts)[0].tolist()
    assert (outside, low, high) == (np.count_nonzero(values > 1023), values.min(), 1023)


def test_a_blank_image_shows_by_its_extremes(device_kernels: Any) -> None:
    flat, other = np.full((50, 40), 700, np.uint16), np.full((33, 90), 700, np.uint16)
    other[32, 89] = 701
    samples = [Samples(device_kernels.upload(each), 16, False, "x") for each in (flat, other)]
    made = device_kernels.clamp_to_stored(samples, [image(each.shape, 12) for each in (flat, other)])
    assert device_kernels.to_host(made.facts).tolist() == [[0, 700, 700], [0, 700, 701]]


@pytest.mark.parametrize(
    "change",
    [{"pixel_representation": 1}, {"high_bit": 15}, {"has_overlay_in_pixels": True}],
)
def test_what_is_for_the_cpu_is_refused(change: dict[str, Any], device_kernels: Any) -> None:
    samples = Samples(device_kernels.upload(np.zeros((4, 4), np.uint16)), 12, False, "x")
    with pytest.raises(ValueError, match="CPU"):
        device_kernels.clamp_to_stored([samples], [replace(image((4, 4), 12), **change)])


def test_thumbnails_of_a_batch(device_kernels: Any) -> None:
    random = np.random.default_rng(2)
    pixels = [
        random.integers(-500, 500, (70, 41)).astype(np.int16),
        random.integers(0, 65536, (200, 333)).astype(np.uint16),
        random.integers(0, 256, (9, 9)).astype(np.uint8),
    ]
    shifts = [1, 3, 0]
    made = device_kernels.thumbnails([device_kernels.upload(each) for each in pixels], shifts)
    for thumbnail, each, shift in zip(made, pixels, shifts, strict=True):
        host = device_kernels.to_host(thumbnail)
        assert host.dtype == np.int32
        np.testing.assert_array_equal(host, reference.shift_mean(each, shift))
    with pytest.raises(ValueError, match="shift"):
        device_kernels.thumbnails([device_kernels.upload(pixels[0])], [8])


def drawn(pixels: np.ndarray, drawing: Drawing, height: int, width: int) -> np.ndarray:
    """What `draw` is to make, with the reference's kernels."""
    assert drawing.table is not None
    index = reference.block_mean(reference.to_index(pixels), drawing.shift)
    content = reference.look_up(reference.resample(index, drawing.columns, drawing.rows), drawing.table)
    fill = int(reference.look_up(reference.to_index(pixels), drawing.table).min())
    if drawing.kept is not None:
        reference.blank(content, drawing.kept.mask, drawing.kept.rows, drawing.kept.columns, fill)
    picture = np.full((height, width), fill, np.uint16)
    picture[
        drawing.content_row : drawing.content_row + content.shape[0],
        drawing.content_column : drawing.content_column + content.shape[1],
    ] = content
    return picture


@st.composite
def drawings(draw: st.DrawFn) -> tuple[np.ndarray, Drawing]:
    """An image and its place in a slot of 70 × 50."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    dtype = draw(st.sampled_from([np.uint8, np.int8, np.uint16, np.int16]))
    limits, shift = np.iinfo(dtype), draw(st.integers(0, 3))
    pixels = random.integers(limits.min, limits.max + 1, shape).astype(dtype)
    axes, places = [], []
    for samples, slot in zip(shape, (70, 50), strict=True):
        start = draw(st.integers(0, samples - 1))
        size, outputs = draw(st.integers(1, samples - start)), draw(st.integers(3, slot))
        grid = Grid.of_level(0, samples).shifted(shift)
        axes.append(axis_weights(start, size, outputs, grid, draw(st.booleans())))
        places.append(draw(st.integers(0, slot - outputs)))
    kept = None
    if draw(st.booleans()):
        mask = random.random((20, 30)) < 0.7
        where = [
            random.integers(0, size, axis.start.size).astype(np.int32)
            for size, axis in zip(mask.shape, axes, strict=True)
        ]
        kept = Kept(mask, *where)
    table = random.integers(0, 65536, 65536).astype(np.uint16)
    return pixels, Drawing(pixels, axes[0], axes[1], shift, table, places[0], places[1], kept)


@settings(deadline=None, max_examples=40)
@given(st.lists(drawings(), min_size=1, max_size=4))
def test_a_batch_is_drawn_as_the_reference_draws_each(
    twins: Any, batch: list[tuple[np.ndarray, Drawing]]
) -> None:
    kernels, upload = twins._kernels, twins._upload
    there = [replace(drawing, pixels=upload(pixels)) for pixels, drawing in batch]
    output = kernels.to_host(kernels.draw(there, kernels.batch_output(len(batch), 70, 50, 16)))
    for slot, (pixels, drawing) in zip(output, batch, strict=True):
        np.testing.assert_array_equal(slot, drawn(pixels, drawing, 70, 50))
