"""Padding: one integer rule at every level, what displays dark stays, what does not is replaced."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess import padding
from preprocess.records import Padding
from preprocess.wavelet import low_pass_53
from tests.instances import header

BACKGROUND, TISSUE = 200, 1500


def framed(value: int, rows: int = 512, columns: int = 384, thickness: int = 48) -> np.ndarray:
    """A 12-bit picture: dark background, a block of tissue at the left, a frame of padding round it."""
    rng = np.random.default_rng(5)
    pixels = rng.integers(BACKGROUND, BACKGROUND + 40, (rows, columns))
    pixels[120:400, thickness:220] = rng.integers(TISSUE, TISSUE + 600, (280, 220 - thickness))
    inner = np.zeros(pixels.shape, bool)
    inner[thickness:-thickness, thickness:-thickness] = True
    pixels[~inner] = value
    return pixels.astype(np.uint16)


def rule(value: int, bits: int = 12) -> padding.PaddingRule:
    found = padding.rule(Padding(value, value), header((512, 384), "little", bits_stored=bits))
    assert found is not None
    return found


def at_level(pixels: np.ndarray, level: int) -> np.ndarray:
    return np.clip(low_pass_53(pixels, level), 0, 4095).astype(np.uint16)


@pytest.mark.parametrize(("bits", "tolerance"), [(8, 1), (10, 1), (12, 4), (14, 16), (16, 64)])
def test_the_tolerance_is_a_function_of_bits_stored_alone(bits, tolerance):
    assert rule(0, bits).tolerance == tolerance


def test_no_padding_value_means_no_rule():
    assert padding.rule(None, header((4, 4), "little")) is None


def test_at_level_0_the_mask_is_the_frame():
    pixels = framed(4095)
    assert np.array_equal(padding.mask(pixels, rule(4095)), pixels == 4095)


def test_pixels_of_the_same_value_inside_the_picture_are_not_padding():
    pixels = framed(4095)
    pixels[200:230, 100:130] = 4095
    padded = padding.mask(pixels, rule(4095))
    assert not padded[200:230, 100:130].any()
    assert padded[0, 0]


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_same_rule_finds_the_frame_in_an_overshooting_low_pass(level):
    pixels = framed(4095)
    coarse = low_pass_53(pixels, level)
    assert coarse.max() > 4095 + rule(4095).tolerance, "the frame's edge must overshoot for this test"
    clamped = at_level(pixels, level)
    padded = padding.mask(clamped, rule(4095))
    truth = (pixels == 4095)[:: 1 << level, :: 1 << level]
    missed = truth & ~padding.rim(padded)
    assert not missed.any()
    assert not (padding.rim(padded) & ~padding.rim(truth)).any()
    assert (padded & truth).sum() > truth.sum() // 2


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_bright_padding_is_replaced_by_the_darkest_unpadded_value(level):
    pixels = at_level(framed(4095), level)
    value = padding.replacement(
        pixels, rule(4095), padding.mask(pixels, rule(4095)), inverted=False, mixed=level > 0
    )
    assert value is not None
    assert value == BACKGROUND if level == 0 else abs(value - BACKGROUND) <= 40


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_inverted_padding_of_0_displays_bright_and_is_replaced_by_the_largest_value(level):
    pixels = at_level(4095 - framed(4095), level)
    value = padding.replacement(
        pixels, rule(0), padding.mask(pixels, rule(0)), inverted=True, mixed=level > 0
    )
    assert value is not None
    assert abs(value - (4095 - BACKGROUND)) <= (40 if level else 0)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("inverted", [False, True])
def test_padding_that_displays_dark_stays(level, inverted):
    pixels = framed(60)
    pixels, value = (4095 - pixels, 4035) if inverted else (pixels, 60)
    coarse = at_level(pixels.astype(np.uint16), level)
    padded = padding.mask(coarse, rule(value))
    assert padded.any()
    assert padding.replacement(coarse, rule(value), padded, inverted, mixed=level > 0) is None


def test_overshoot_round_letters_does_not_make_dark_padding_bright():
    pixels = np.full((512, 384), 3900, np.uint16)  # inverted, as RSNA's 16-bit MONOCHROME1 pictures
    pixels[100:400, :200] = 1500
    for column in range(250, 340, 12):
        pixels[60:90, column : column + 5] = 0
        pixels[60:65, column : column + 12] = 0
    for level in (2, 3):
        coarse = at_level(pixels, level)
        padded = padding.mask(coarse, rule(3900))
        assert coarse[~padded].max() > 3900 + rule(3900).tolerance, "overshoot must be there for this test"
        assert padding.replacement(coarse, rule(3900), padded, inverted=True, mixed=True) is None


def test_without_padded_pixels_nothing_is_replaced():
    pixels = framed(4095)[60:-60, 60:-60]
    padded = padding.mask(pixels, rule(4095))
    assert padding.replacement(pixels, rule(4095), padded, inverted=False, mixed=False) is None


def test_a_padding_range_is_one_mask():
    found = padding.rule(Padding(4000, 4095), header((512, 384), "little", bits_stored=12))
    assert found is not None
    pixels = framed(4095)
    pixels[:20] = 4000
    assert np.array_equal(padding.mask(pixels, found), framed(4095) == 4095)


def test_negative_padding_of_signed_pixels():
    pixels = framed(4095).astype(np.int16)
    pixels[pixels == 4095] = -2000
    image = header((512, 384), "little", bits_stored=16, pixel_representation=1)
    found = padding.rule(Padding(-2000, -2000), image)
    assert found is not None
    padded = padding.mask(pixels, found)
    assert np.array_equal(padded, pixels == -2000)
    assert padding.replacement(pixels, found, padded, inverted=False, mixed=False) is None
    assert padding.replacement(pixels, found, padded, inverted=True, mixed=False) == pixels.max()


def test_replacing_changes_the_padding_and_nothing_else():
    pixels = framed(4095)
    before = pixels.copy()
    replaced = padding.replace(pixels, rule(4095), 200)
    assert np.array_equal(pixels, before)
    assert (replaced[pixels == 4095] == 200).all()
    assert np.array_equal(replaced[pixels != 4095], pixels[pixels != 4095])
    assert replaced.dtype == pixels.dtype
