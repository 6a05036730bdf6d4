"""The whole render: positions at every wavelet level, copies, mirrors, padding, letterbox, hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from preprocess import render as rendering
from preprocess.config import MissingWindow, Orientation, ResultConfig, WindowPolicy
from preprocess.errors import RejectedInput
from preprocess.padding import PaddingRule
from preprocess.records import (
    BreastBox,
    Instance,
    Lut,
    Mammogram,
    Padding,
    Prepared,
    RoiMethod,
    VoiFunction,
    VoiHeader,
    VoiSource,
    Window,
)
from preprocess.roi import Findings
from preprocess.wavelet import low_pass_53
from tests.instances import header, instance

FULL = ResultConfig(window=WindowPolicy.FULL, height=96, width=64)
LEVELS = [0, 1, 2, 3]


def made(
    pixels: np.ndarray, voi: VoiHeader | None = None, padding: Padding | None = None, **changes: object
) -> Instance:
    """An instance of full-size pixels; header facts may be changed."""
    image = header(pixels.shape, "little", pixel_representation=int(pixels.dtype.kind == "i"), **changes)
    return dataclasses.replace(instance(b"", image), voi=voi or VoiHeader(), padding=padding)


def at_level(of: Instance, pixels: np.ndarray, level: int) -> Mammogram:
    """What a decoder gives: the 5/3 low-pass, clamped to 16 bits."""
    limits = np.iinfo(pixels.dtype)
    values = np.clip(low_pass_53(pixels, level), limits.min, limits.max).astype(pixels.dtype)
    return Mammogram(of, values, level, "test")


def whole(pixels: np.ndarray, flipped: bool = False) -> Findings:
    return Findings(BreastBox(RoiMethod.WHOLE_FRAME, 0, 0, *pixels.shape, flipped))


def render(
    pixels: np.ndarray, findings: Findings, config: ResultConfig = FULL, level: int = 0, **header: object
) -> Prepared:
    return rendering.render(at_level(made(pixels, **header), pixels, level), findings, config)  # type: ignore[arg-type]


def content(prepared: Prepared) -> np.ndarray:
    g = prepared.geometry
    return prepared.pixels[
        g.content_row : g.content_row + g.content_rows,
        g.content_column : g.content_column + g.content_columns,
    ]


# --- positions: the pins that everything else stands on ---

BOX = BreastBox(RoiMethod.BREAST, row=101, column=67, rows=701, columns=455, flipped=False)


def ramp_error(axis: int, level: int, box: BreastBox, size: tuple[int, int]) -> tuple[float, float]:
    """Largest displacement of a ramp along an axis: in full-size pixels, and in pixels of the picture."""
    shape, slope = (900, 600), 64
    ramp = np.broadcast_to(np.expand_dims(slope * np.arange(shape[axis]) + 500, 1 - axis), shape)
    config = ResultConfig(window=WindowPolicy.FULL, height=size[0], width=size[1])
    prepared = render(ramp.astype(np.uint16), Findings(box), config, level)
    pixel, g = content(prepared).astype(int), prepared.geometry
    middle = [Fraction(1, 2) + start for start in (g.content_row, g.content_column)]
    step = (Fraction(box.rows, g.content_rows), Fraction(box.columns, g.content_columns))[axis]
    direction = -1 if box.flipped and axis else 1
    # Pixel n is centred on n + ½ and holds slope·n + 500.
    expected = float(g.to_original(*middle)[axis]) + direction * float(step) * np.indices(pixel.shape)[axis]
    error = float(np.abs((pixel - 500) / slope + 0.5 - expected).max())
    return error, error / float(step)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("size", [(88, 56), (44, 28)])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_ramp_keeps_its_position_within_a_tenth_of_a_full_size_pixel(
    axis: int, level: int, size: tuple[int, int], flipped: bool
) -> None:
    box = BreastBox(RoiMethod.BREAST, row=101, column=67, rows=704, columns=448, flipped=flipped)
    assert ramp_error(axis, level, box, size)[0] < 0.1


@pytest.mark.parametrize("size", [(96, 64), (80, 53), (64, 40), (300, 200)])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_ramp_keeps_its_position_at_any_ratio_within_a_tenth_of_a_prepared_pixel(
    axis: int, level: int, size: tuple[int, int]
) -> None:
    # Where samples and pixels have no common grid, the area filter wavers by up to 1/16 pixel.
    assert ramp_error(axis, level, BOX, size)[1] < 0.1


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("center", [(431.5, 300.5), (388.0, 211.25), (517.75, 402.5)])
def test_a_dot_keeps_its_position_within_a_tenth_of_a_pixel(
    center: tuple[float, float], level: int, flipped: bool
) -> None:
    rows, columns = np.indices((900, 600)) + 0.5
    dot = np.exp(-((rows - center[0]) ** 2 + (columns - center[1]) ** 2) / (2 * 14**2))
    pixels = np.rint(2000 + 60000 * dot).astype(np.uint16)
    prepared = render(pixels, Findings(dataclasses.replace(BOX, flipped=flipped)), level=level)
    mass = content(prepared).astype(float) - 2000
    mass[mass < 60] = 0
    down, across = np.indices(mass.shape) + 0.5
    g = prepared.geometry
    found = g.to_original(
        Fraction((down * mass).sum() / mass.sum()) + g.content_row,
        Fraction((across * mass).sum() / mass.sum()) + g.content_column,
    )
    assert np.abs(np.array(found, float) - center).max() < 0.1


@pytest.mark.parametrize(("level", "share"), [(1, 0.02), (2, 0.05), (3, 0.1)])
def test_a_level_is_near_to_the_full_decode(level: int, share: float) -> None:
    # Without the phase it would be off by (2^level − 1)/2 of 14 full-size pixels: 0.04, 0.11, 0.25.
    rng = np.random.default_rng(5)
    spectrum = np.fft.rfft2(rng.normal(size=(896, 640)))
    frequency = np.hypot(np.fft.fftfreq(896)[:, None], np.fft.rfftfreq(640)[None])
    texture = np.fft.irfft2(spectrum / np.maximum(frequency, 1e-3) ** 1.5)
    pixels = np.rint(30000 + 25000 * texture / np.abs(texture).max()).astype(np.uint16)
    config = ResultConfig(window=WindowPolicy.FULL, height=64, width=64)
    full = content(render(pixels, whole(pixels), config)).astype(float)
    coarse = content(render(pixels, whole(pixels), config, level=level)).astype(float)
    shifted = np.sqrt(np.mean((full[:, 1:] - full[:, :-1]) ** 2))
    assert np.sqrt(np.mean((full - coarse) ** 2)) < share * shifted


def test_planted_overshoot_cannot_leave_the_clamped_range() -> None:
    pixels = np.zeros((64, 64), np.uint16)
    pixels[:, 32:48] = 65535
    low_pass = low_pass_53(pixels, 1)
    assert low_pass.min() < 0
    assert low_pass.max() > 65535
    prepared = render(pixels, whole(pixels), ResultConfig(window=WindowPolicy.FULL, height=32, width=32), 1)
    assert (prepared.pixels[:, :15] == 0).all()
    assert (prepared.pixels[:, 18:22] == 65535).all()


# --- copies and mirrors ---


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_frame_of_the_pictures_size_is_copied(dtype: type[np.integer], flipped: bool) -> None:
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(limits.min, limits.max + 1, (96, 64)).astype(dtype)
    prepared = render(pixels, whole(pixels, flipped))
    expected = (pixels.astype(int) - limits.min).astype(np.uint16)
    np.testing.assert_array_equal(prepared.pixels, expected[:, ::-1] if flipped else expected)


@pytest.mark.parametrize("level", LEVELS)
def test_a_flip_is_the_exact_mirror_of_the_content(level: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (900, 600)).astype(np.uint16)
    plain = render(pixels, Findings(BOX), level=level)
    turned = render(pixels, Findings(dataclasses.replace(BOX, flipped=True)), level=level)
    np.testing.assert_array_equal(content(turned), content(plain)[:, ::-1])


def test_inversion_is_by_the_full_output_range_and_after_everything_else() -> None:
    pixels = np.random.default_rng(2).integers(0, 65536, (300, 200)).astype(np.uint16)
    header = VoiHeader(VoiFunction.SIGMOID, (Window(Fraction(30000), Fraction(20001)),))
    config = ResultConfig(height=96, width=64)
    plain = render(pixels, whole(pixels), config, voi=header)
    inverted = render(pixels, whole(pixels), config, voi=header, inverted=True)
    assert set((content(plain).astype(int) + content(inverted)).ravel().tolist()) <= {65535, 65536}


def test_eight_bits_are_a_table_of_eight_bits_not_a_shift_of_sixteen() -> None:
    pixels = np.arange(96 * 64, dtype=np.uint16).reshape(96, 64) * 10
    prepared = render(pixels, whole(pixels), FULL.model_copy(update={"bits": 8}))
    assert prepared.pixels.dtype == np.uint8
    np.testing.assert_array_equal(prepared.pixels, (2 * pixels.astype(int) * 255 + 65535) // (2 * 65535))


def test_thumbnails_average_every_pixel() -> None:
    pixels = np.random.default_rng(3).integers(0, 65536, (3000, 2900)).astype(np.uint16)
    config = ResultConfig(window=WindowPolicy.FULL, height=16, width=16)
    prepared = render(pixels, whole(pixels), config)
    means = content(prepared).astype(float)
    assert means.shape == (16, 15)
    assert abs(means.mean() - pixels.mean()) < 2
    assert abs(means[0, 0] - pixels[:187, :193].mean()) < 70  # the mean of 36,000 values has σ = 100


# --- letterbox ---


@pytest.mark.parametrize("inverted", [False, True])
def test_the_letterbox_is_as_dark_as_the_images_darkest_value(inverted: bool) -> None:
    pixels = np.random.default_rng(4).integers(900, 3000, (50, 100)).astype(np.uint16)
    header = VoiHeader(VoiFunction.SIGMOID, (Window(Fraction(2048), Fraction(4096)),))
    config = ResultConfig(height=96, width=64)
    prepared = render(pixels, whole(pixels), config, voi=header, inverted=inverted, bits_stored=12)
    g = prepared.geometry
    fill = {*prepared.pixels[: g.content_row].flat, *prepared.pixels[g.content_row + g.content_rows :].flat}
    same_size = ResultConfig(height=50, width=100)
    darkest = render(
        pixels, whole(pixels), same_size, voi=header, inverted=inverted, bits_stored=12
    ).pixels.min()
    assert fill == {darkest}
    assert darkest > 0  # SIGMOID never reaches black


def test_the_letterbox_of_a_lut_that_rises_and_falls() -> None:
    pixels = np.array([[0, 1], [1, 2]], np.uint16).repeat(8, 0).repeat(16, 1)
    lut = VoiHeader(luts=(Lut(0, 8, (200, 50, 255, 0)),))
    prepared = render(pixels, whole(pixels), ResultConfig(height=32, width=32, bits=8), voi=lut)
    assert prepared.pixels[0, 0] == 50  # 0 is in the table, but no pixel has it


def test_content_is_at_the_left_edge_or_in_the_middle() -> None:
    pixels = np.full((100, 20), 5, np.uint16)
    pixels[:, 10:] = 60000
    left = render(pixels, whole(pixels), ResultConfig(window=WindowPolicy.FULL, height=100, width=60))
    assert left.geometry.content_column == 0
    config = ResultConfig(window=WindowPolicy.FULL, height=100, width=60, orient=Orientation.KEEP)
    assert render(pixels, whole(pixels), config).geometry.content_column == 20


# --- padding and ranges ---


def padded() -> tuple[np.ndarray, Padding, PaddingRule]:
    """Tissue from 1000 to 3000, on its left side padding of 4000: bright in MONOCHROME2."""
    pixels = np.random.default_rng(6).integers(1000, 3001, (96, 64)).astype(np.uint16)
    pixels[0, 60:62] = 1000, 3000
    pixels[:, :20] = 4000
    return pixels, Padding(4000, 4000), PaddingRule(4000, 4000, 4)


def test_bright_padding_is_replaced_before_anything_averages_it() -> None:
    pixels, padding, rule = padded()
    findings = dataclasses.replace(whole(pixels), padding=rule, padding_replacement=1000)
    config = ResultConfig(window=WindowPolicy.FULL, height=48, width=48)
    prepared = render(pixels, findings, config, padding=padding, bits_stored=12)
    assert (content(prepared)[:, :10] == round(1000 / 4095 * 65535)).all()
    assert prepared.pixels.max() <= 3000 / 4095 * 65535 + 1
    with pytest.raises(ValueError, match="already mixed"):
        render(pixels, findings, config, 1, padding=padding, bits_stored=12)


@pytest.mark.parametrize("policy", [WindowPolicy.MINMAX, WindowPolicy.PERCENTILE])
def test_ranges_leave_padding_out(policy: WindowPolicy) -> None:
    pixels, padding, rule = padded()
    findings = dataclasses.replace(whole(pixels), padding=rule)
    config = ResultConfig(window=policy, height=96, width=64, percentile_low=0, percentile_high=1)
    prepared = render(pixels, findings, config, padding=padding, bits_stored=12)
    assert (prepared.voi.source.value, prepared.voi.function) == (policy.value, VoiFunction.LINEAR_EXACT)
    assert prepared.voi.window == Window(Fraction(2000), Fraction(2000))
    tissue = prepared.pixels[:, 20:]
    assert (tissue.min(), tissue.max()) == (0, 65535)


def test_percentiles_are_of_the_decoded_values() -> None:
    pixels = np.arange(96 * 64, dtype=np.uint16).reshape(96, 64)  # 6,144 different values
    config = ResultConfig(height=96, width=64, missing_window=MissingWindow.PERCENTILE)
    prepared = render(pixels, whole(pixels), config)
    # ranks ceil(0.005·6144) = 31 and ceil(0.995·6144) = 6114: values 30 and 6113
    assert prepared.voi.source is VoiSource.PERCENTILE
    assert prepared.voi.window == Window(Fraction(6143, 2), Fraction(6083))


def test_a_range_of_one_value_is_a_blank_image() -> None:
    pixels = np.full((96, 64), 7, np.uint16)
    with pytest.raises(RejectedInput) as caught:
        render(pixels, whole(pixels), ResultConfig(window=WindowPolicy.MINMAX))
    assert caught.value.code == "blank_image"


# --- what is recorded ---


@pytest.mark.parametrize("bits", [8, 16])
def test_hashes_are_of_little_endian_rows(bits: int) -> None:
    pixels = np.random.default_rng(7).integers(-500, 500, (300, 200)).astype(np.int16)
    prepared = render(pixels, Findings(BreastBox(RoiMethod.BREAST, 3, 9, 250, 180, True)),
                      FULL.model_copy(update={"bits": bits}), level=1)  # fmt: skip
    picture = prepared.pixels
    assert (picture.shape, picture.dtype.itemsize * 8) == ((96, 64), bits)
    assert picture.flags.c_contiguous
    little = picture.astype(f"<u{bits // 8}").tobytes()
    assert prepared.pixels_sha256 == hashlib.sha256(little).hexdigest()
    decoded = prepared.mammogram.pixels.astype("<i2").tobytes()
    assert prepared.decoded_sha256 == hashlib.sha256(decoded).hexdigest()


def test_pixels_that_are_not_square_become_square() -> None:
    pixels = np.arange(6400, dtype=np.uint16).reshape(80, 80)
    config = ResultConfig(window=WindowPolicy.FULL, height=80, width=80)
    prepared = render(pixels, whole(pixels), config, pixel_spacing_row_mm=0.2, pixel_spacing_column_mm=0.1)
    assert content(prepared).shape == (80, 40)


def test_rendering_takes_less_memory_than_the_image() -> None:
    pixels = np.random.default_rng(8).integers(0, 4096, (2776, 2082)).astype(np.uint16)
    mammogram = Mammogram(
        made(pixels, VoiHeader(windows=(Window(Fraction(2048), Fraction(4096)),))), pixels, 0, "test"
    )
    tracemalloc.start()
    rendering.render(mammogram, whole(pixels), ResultConfig())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * pixels.nbytes
