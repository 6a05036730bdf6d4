"""The integer 5/3 low-pass band: by hand, and as the yardstick of every decoder of levels."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess import openjpeg
from preprocess.codestream import level_size, read_facts, repair
from preprocess.records import Compression
from preprocess.wavelet import low_pass_53


def test_one_step_is_the_standards_lifting_worked_out_by_hand() -> None:
    # d = odd - floor((left + right) / 2), s = even + floor((d + d + 2) / 4), mirrored at both ends.
    row = np.array([[10, 20, 30, 50, 7]])
    # d0 = 20 - 20 = 0; d1 = 50 - floor(37 / 2) = 32; s = 10 + 0, 30 + floor(34 / 4), 7 + floor(66 / 4)
    assert low_pass_53(row, 1).tolist() == [[10, 38, 23]]
    # even length: the sample after the last mirrors to the one before it: d1 = 50 - floor(60 / 2) = 20
    assert low_pass_53(row[:, :4], 1).tolist() == [[10, 30 + 22 // 4]]
    assert low_pass_53(row.T, 1).tolist() == [[10], [38], [23]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 3), (1, 17), (16, 5)])
def test_a_constant_stays_what_it_is_at_every_level_and_size(shape: tuple[int, int]) -> None:
    for level in range(6):
        band = low_pass_53(np.full(shape, 1234, np.uint16), level)
        assert band.shape == level_size(*shape, level)
        assert (band == 1234).all()


def test_a_level_shift_commutes_with_the_transform() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (37, 22))
    assert np.array_equal(low_pass_53(pixels - 2048, 3), low_pass_53(pixels, 3) - 2048)


def test_tiles_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="no common grid"):
        low_pass_53(np.zeros((64, 64), np.int32), 2, (34, 64))


SIZES = st.integers(1, 70)


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.integers(2, 16), st.integers(1, 6), st.integers(0, 2**32 - 1), st.booleans())
def test_openjpegs_levels_equal_the_clamped_low_pass_band(
    rows: int, columns: int, bits: int, levels: int, seed: int, extreme: bool
) -> None:
    rng = np.random.default_rng(seed)
    top = (1 << bits) - 1
    pixels = (
        (rng.integers(0, 2, (rows, columns)) * top) if extreme else rng.integers(0, top + 1, (rows, columns))
    )
    data = imagecodecs.jpeg2k_encode(
        pixels.astype(np.uint16),
        level=0,
        codecformat="j2k",
        bitspersample=bits,
        reversible=True,
        resolutions=levels,
    )
    facts = read_facts(data, Compression.JPEG_2000)
    largest = (1 << facts.precision) - 1  # the encoder rounds some precisions up
    for level in range(facts.levels + 1):
        decoded = openjpeg.decode(repair(data, facts), level)
        assert np.array_equal(decoded, low_pass_53(pixels, level).clip(0, largest)), level


@settings(max_examples=15, deadline=None)
@given(SIZES, SIZES, st.sampled_from([None, (32, 16), (64, 32)]), st.integers(0, 2**32 - 1))
def test_levels_of_high_throughput_and_tiled_streams_equal_it_too(
    rows: int, columns: int, tile: tuple[int, int] | None, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 1 << 16, (rows, columns)).astype(np.uint16)
    data = imagecodecs.htj2k_encode(pixels, reversible=True, resolutions=4, tile=tile)
    facts = read_facts(data, Compression.HTJ2K)
    size = (facts.tile_rows, facts.tile_columns)
    for level in range(facts.levels + 1):
        decoded = openjpeg.decode(repair(data, facts), level)
        assert np.array_equal(decoded, low_pass_53(pixels, level, size).clip(0, 65535)), level


def test_signed_streams_have_signed_levels() -> None:
    pixels = np.random.default_rng(3).integers(-2048, 2048, (45, 38)).astype(np.int16)
    data = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", bitspersample=12, reversible=True)
    facts = read_facts(data, Compression.JPEG_2000)
    assert facts.signed
    for level in range(facts.levels + 1):
        decoded = openjpeg.decode(repair(data, facts), level)
        assert np.array_equal(decoded, low_pass_53(pixels, level).clip(-2048, 2047))
