"""The CPU decoder: exact pixels, levels in their place, clamping as specified, faults told by code."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.pixels.encoders import RLELosslessEncoder

from preprocess.codestream import deepest_level
from preprocess.decode import COARSE_LONGER_SIDE_PX, CpuDecoder, coarse_level, decoded_sha256
from preprocess.errors import RejectedInput
from preprocess.records import Instance, Mammogram
from preprocess.stored import Samples, to_stored
from preprocess.wavelet import low_pass_53
from tests.instances import DATA, golden, header, instance, instance_of, needs_data, smooth


def decode(one: Instance, level: int = 0) -> Mammogram:
    return CpuDecoder().decode(one, level)


def reject(one: Instance, level: int = 0) -> str:
    with pytest.raises(RejectedInput) as caught:
        decode(one, level)
    return caught.value.code


def j2k(pixels: np.ndarray, siz_bits: int = 16, **changes: object) -> Instance:
    data = imagecodecs.jpeg2k_encode(
        pixels, level=0, codecformat="jp2", bitspersample=siz_bits, reversible=True, colorspace="GRAYSCALE"
    )
    return instance(data, header(pixels.shape, "jpeg_2000", **changes))


def rle(pixels: np.ndarray) -> bytes:
    return RLELosslessEncoder.encode(
        pixels.astype(pixels.dtype.newbyteorder("<")).tobytes(),
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=1,
        bits_allocated=8 * pixels.itemsize,
        bits_stored=8 * pixels.itemsize,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        number_of_frames=1,
        encoding_plugin="pydicom",
    )


# Exact pixels


@pytest.mark.parametrize("row", golden(), ids=lambda row: row["file"])
def test_pixels_equal_what_other_decoders_agree_on(row: dict[str, str]) -> None:
    mammogram = decode(instance_of(Path(get_testdata_file(row["file"], download=False))))
    assert str(mammogram.pixels.dtype) == row["dtype"]
    assert mammogram.pixels.shape == (int(row["rows"]), int(row["columns"]))
    assert decoded_sha256(mammogram.pixels) == row["sha256"]


def test_a_12_bit_extended_jpeg_has_the_pixels_that_pydicom_documents() -> None:
    pixels = decode(instance_of(Path(get_testdata_file("JPGExtended.dcm", download=False)))).pixels
    assert (pixels[420, 140], pixels[230, 120]) == (244, 95)


def manifest() -> list[dict[str, str]]:
    if not DATA.is_dir():
        return []
    with (DATA / "manifest.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["name"].endswith(".dcm") and row["px_sha256"]]
    usable = ("8", "16")
    return [
        row
        for row in rows
        if row["photometric"].startswith("MONOCHROME")
        and row["frames"] in ("", "0", "1")
        and row["bits_allocated"] in usable
        and row["px_shape"].count("x") == 1
        # HighBit lies outside the word: invalid_attribute, whatever a decoder that ignores it returns.
        and "highbit_eq_ba" not in row["name"]
        and "hb0_bs16" not in row["name"]
    ]


@needs_data
@pytest.mark.parametrize("row", manifest(), ids=lambda row: row["name"])
def test_every_valid_real_file_has_the_expected_pixels(row: dict[str, str]) -> None:
    mammogram = decode(instance_of(DATA / row["name"]))
    assert decoded_sha256(mammogram.pixels) == row["px_sha256"]
    assert mammogram.above_bits_stored == 0


@needs_data
def test_the_list_of_real_files_is_not_empty() -> None:
    assert len(manifest()) > 40


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("syntax", ["little", "big", "rle", "jpeg_lossless", "jpeg_ls", "jpeg_2000", "htj2k"])
def test_every_lossless_syntax_returns_what_was_encoded(syntax: str, bits: int) -> None:
    pixels = smooth((45, 38), bits)
    payload = {
        "little": lambda: pixels.astype(pixels.dtype.newbyteorder("<")).tobytes(),
        "big": lambda: pixels.astype(pixels.dtype.newbyteorder(">")).tobytes(),
        "rle": lambda: rle(pixels),
        "jpeg_lossless": lambda: imagecodecs.jpeg8_encode(
            pixels, lossless=True, predictor=4, bitspersample=bits
        ),
        "jpeg_ls": lambda: imagecodecs.jpegls_encode(pixels),
        "jpeg_2000": lambda: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True),
        "htj2k": lambda: imagecodecs.htj2k_encode(pixels, reversible=True),
    }[syntax]()
    image = header(pixels.shape, syntax, bits_allocated=8 * pixels.itemsize, bits_stored=bits)
    mammogram = decode(instance(payload, image))
    assert mammogram.pixels.dtype == pixels.dtype
    assert np.array_equal(mammogram.pixels, pixels)
    assert mammogram.above_bits_stored == 0
    assert mammogram.level == 0


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [2, 7, 9, 14, 15])
def test_lossless_jpeg_of_any_predictor_and_precision_is_exact(predictor: int, bits: int) -> None:
    pixels = smooth((21, 33), bits)
    data = imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=bits)
    one = instance(data, header(pixels.shape, "jpeg_lossless", bits_stored=bits))
    assert np.array_equal(decode(one).pixels, pixels)


def test_decoded_sha256_is_of_little_endian_c_order_bytes() -> None:
    pixels = np.arange(6, dtype=">i2").reshape(2, 3)
    expected = hashlib.sha256(np.arange(6, dtype="<i2").tobytes()).hexdigest()
    assert decoded_sha256(pixels) == expected
    assert decoded_sha256(np.asfortranarray(pixels)) == expected


# Levels


def checks(largest: int) -> np.ndarray:
    """Black and white at random: low-pass samples overshoot on both sides."""
    return (np.random.default_rng(5).integers(0, 2, (64, 48)) * largest).astype(np.uint16)


@pytest.mark.parametrize("level", range(4))
def test_a_dot_keeps_its_place_within_a_tenth_of_a_pixel_at_every_level(level: int) -> None:
    center_row, center_column = 131.3, 94.8  # full-size coordinates: pixel n covers [n, n + 1)
    rows, columns = np.mgrid[0:251, 0:203] + 0.5
    distance = (rows - center_row) ** 2 + (columns - center_column) ** 2
    dot = np.round(4000 * np.exp(-distance / (2 * 14.0**2))).astype(np.uint16)
    pixels = decode(j2k(dot, bits_stored=12), level).pixels.astype(float)
    step = 1 << level
    at_rows, at_columns = (np.arange(n) * step + 0.5 for n in pixels.shape)  # sample n lies on pixel 2^r n
    assert abs((pixels.sum(1) @ at_rows) / pixels.sum() - center_row) < 0.1
    assert abs((pixels.sum(0) @ at_columns) / pixels.sum() - center_column) < 0.1


@pytest.mark.parametrize("level", range(4))
def test_a_ramp_keeps_its_place_within_a_tenth_of_a_pixel_at_every_level(level: int) -> None:
    slope = 20  # per pixel, so that a tenth of a pixel is two grey values
    ramp = np.broadcast_to(np.arange(187, dtype=np.uint16) * slope, (64, 187)).copy()
    for picture, axis in ((ramp, 1), (ramp.T.copy(), 0)):
        pixels = decode(j2k(picture, bits_stored=12), level).pixels.astype(float)
        profile = pixels.mean(1 - axis)
        expected = np.arange(len(profile)) * (1 << level) * slope
        inner = slice(2, -2)  # the mirrored border bends the ends
        assert np.abs(profile - expected)[inner].max() < 0.1 * slope


def test_overshoot_is_clamped_to_bits_stored_and_not_counted_at_a_level() -> None:
    picture = checks(4095)
    one = j2k(picture, siz_bits=16, bits_stored=12)
    band = low_pass_53(picture, 2)
    assert band.max() > 4095
    assert band.min() < 0
    mammogram = decode(one, 2)
    assert np.array_equal(mammogram.pixels, band.clip(0, 4095))
    assert mammogram.above_bits_stored == 0
    assert decode(one, 0).above_bits_stored == 0


def test_overshoot_of_signed_streams_is_clamped_on_both_sides() -> None:
    picture = checks(4095).astype(np.int16) - 2048
    one = j2k(picture, siz_bits=16, bits_stored=12, pixel_representation=1)
    assert one.codestream is not None
    assert one.codestream.signed
    band = low_pass_53(picture, 1)
    assert band.min() < -2048
    assert band.max() > 2047
    assert np.array_equal(decode(one, 1).pixels, band.clip(-2048, 2047))


def test_siz_clamps_before_bits_stored_where_it_is_narrower() -> None:
    picture = checks(1023)
    one = j2k(picture, siz_bits=10, bits_stored=12)
    assert low_pass_53(picture, 2).max() > 1023
    assert decode(one, 2).pixels.max() == 1023


def test_data_above_bits_stored_are_clamped_and_counted_at_level_0() -> None:
    pixels = smooth((40, 30), 12)
    pixels[3, 4:9] = 5000
    for one in (
        j2k(pixels, siz_bits=16, bits_stored=12),
        instance(pixels.tobytes(), header(pixels.shape, "little", bits_stored=12)),
    ):
        mammogram = decode(one)
        assert np.array_equal(mammogram.pixels, pixels.clip(0, 4095))
        assert mammogram.above_bits_stored == 5


def test_a_level_that_the_header_forbids_is_refused() -> None:
    one = j2k(smooth((40, 30), 12), bits_stored=12, high_bit=15)
    with pytest.raises(ValueError, match="level 1"):
        decode(one, 1)
    with pytest.raises(ValueError, match="level -1"):
        decode(one, -1)


@pytest.mark.parametrize(
    ("longer", "expected"), [(4100, 3), (4096, 3), (2776, 2), (200, 0), (1022, 0), (1023, 1)]
)
def test_the_coarse_level_is_the_last_one_with_512_samples(longer: int, expected: int) -> None:
    small = j2k(np.zeros((64, 64), np.uint16))
    assert small.codestream is not None
    one = dataclasses.replace(
        small,
        image=dataclasses.replace(small.image, rows=longer, columns=16),
        codestream=dataclasses.replace(small.codestream, rows=longer, columns=16, levels=5, tile_rows=longer),
    )
    level = coarse_level(one)
    assert level == expected <= deepest_level(one.image, one.codestream)
    assert level == 0 or -(-longer >> level) >= COARSE_LONGER_SIDE_PX


def test_the_coarse_level_is_0_where_there_are_no_levels() -> None:
    assert coarse_level(instance(bytes(8192), header((4096, 1), "little"))) == 0


# Sign and position in the word


def test_an_unsigned_stream_of_negative_values_gets_its_sign_back() -> None:
    signed = smooth((40, 30), 13).astype(np.int16) - 4096
    pattern = (signed & 0x1FFF).astype(np.uint16)
    one = j2k(pattern, siz_bits=13, bits_stored=13, pixel_representation=1)
    mammogram = decode(one)
    assert mammogram.pixels.dtype == np.int16
    assert np.array_equal(mammogram.pixels, signed)
    assert deepest_level(one.image, one.codestream) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 16), st.data())
def test_native_signs_are_read_whether_or_not_the_encoder_extended_them(
    bits: int, data: st.DataObject
) -> None:
    half = 1 << (bits - 1)
    numbers = np.array(data.draw(st.lists(st.integers(-half, half - 1), min_size=1, max_size=20)), np.int32)
    image = header((1, len(numbers)), "little", bits_stored=bits, pixel_representation=1)
    for pattern in (numbers & 0xFFFF, numbers & (2 * half - 1)):
        mammogram = decode(instance(pattern.astype("<u2").tobytes(), image))
        assert np.array_equal(mammogram.pixels[0], numbers)
        assert mammogram.above_bits_stored == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 15), st.integers(0, 1), st.data())
def test_values_are_cut_out_of_words_that_hold_more(bits: int, signed: int, data: st.DataObject) -> None:
    high_bit = data.draw(st.integers(bits - 1, 15))
    low = -(1 << (bits - 1)) if signed else 0
    numbers = np.array(data.draw(st.lists(st.integers(low, low + (1 << bits) - 1), min_size=1, max_size=9)))
    shift = high_bit + 1 - bits
    noise = np.random.default_rng(bits).integers(0, 1 << 16, len(numbers))
    field = ((1 << bits) - 1) << shift
    words = ((numbers << shift) & field) | (noise & ~field)
    image = header(
        (1, len(numbers)),
        "little",
        bits_stored=bits,
        high_bit=high_bit,
        pixel_representation=signed,
        has_overlay_in_pixels=True,
    )
    mammogram = decode(instance(words.astype("<u2").tobytes(), image))
    assert np.array_equal(mammogram.pixels[0], numbers)
    assert mammogram.above_bits_stored == 0


def test_signed_samples_under_an_unsigned_header_are_taken_as_bit_patterns() -> None:
    samples = Samples(np.array([[-1, 5]], np.int32), precision=12, signed=True, decoder="test")
    stored = to_stored(samples, header((1, 2), "jpeg_2000", bits_stored=12))
    pixels, outside = stored.pixels, stored.outside
    assert pixels.tolist() == [[4095, 5]]
    assert pixels.dtype == np.uint16
    assert outside == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"high_bit": 16}, "invalid_attribute"),
        ({"bits_stored": 16, "high_bit": 3}, "invalid_attribute"),
        ({"bits_stored": 0}, "invalid_attribute"),
        ({"bits_allocated": 32}, "unsupported_bits"),
        ({"columns": 0}, "invalid_attribute"),
    ],
)
def test_impossible_words_are_rejected(changes: dict[str, int], code: str) -> None:
    assert reject(instance(bytes(800), header((4, 5), "little", **changes))) == code


# Faults


def test_truncated_native_pixels_are_rejected_and_padding_is_not() -> None:
    pixels = smooth((5, 3), 8)
    image = header(pixels.shape, "little", bits_allocated=8, bits_stored=8)
    assert np.array_equal(decode(instance(pixels.tobytes() + b"\x00", image)).pixels, pixels)
    assert reject(instance(pixels.tobytes()[:-1], image)) == "pixel_data_length"


def test_every_cut_of_rle_data_is_rejected() -> None:
    pixels = smooth((9, 14), 12)
    payload, image = rle(pixels), header(pixels.shape, "rle", bits_stored=12)
    assert np.array_equal(decode(instance(payload + b"\x00\x00", image)).pixels, pixels)
    for length in range(len(payload) - 1):  # the last byte may be padding to an even length
        code = reject(instance(payload[:length], image))
        assert code in ("codestream_truncated", "codestream_invalid", "decode_failed")


def test_rle_with_another_number_of_segments_or_wild_offsets_is_rejected() -> None:
    pixels = smooth((9, 14), 12)
    payload, image = rle(pixels), header(pixels.shape, "rle", bits_stored=12)
    assert reject(instance(b"\x03" + payload[1:], image)) == "codestream_mismatch"
    for offset in (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff"):
        assert reject(instance(payload[:8] + offset + payload[12:], image)) == "codestream_invalid"


@pytest.mark.parametrize("syntax", ["jpeg_lossless", "jpeg_ls", "jpeg_2000", "htj2k"])
def test_a_frame_of_another_size_than_the_header_is_rejected(syntax: str) -> None:
    pixels = smooth((24, 30), 12)
    data = {
        "jpeg_lossless": lambda: imagecodecs.jpeg8_encode(
            pixels, lossless=True, predictor=1, bitspersample=12
        ),
        "jpeg_ls": lambda: imagecodecs.jpegls_encode(pixels),
        "jpeg_2000": lambda: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k"),
        "htj2k": lambda: imagecodecs.htj2k_encode(pixels, reversible=True),
    }[syntax]()
    assert np.array_equal(decode(instance(data, header((24, 30), syntax))).pixels, pixels)
    assert reject(instance(data, header((30, 24), syntax))) == "codestream_mismatch"
    assert reject(instance(data[: len(data) // 2], header((24, 30), syntax))) == "codestream_truncated"


def test_damage_that_a_library_notices_is_decode_failed() -> None:
    data = bytearray(imagecodecs.jpegls_encode(smooth((40, 40), 12)))
    start = data.index(b"\xff\xda") + 200
    data[start : start + 300] = bytes(300)
    assert reject(instance(bytes(data), header((40, 40), "jpeg_ls"))) == "decode_failed"


def test_the_cpu_decoder_imports_no_gpu_library() -> None:
    program = (
        "import sys; from preprocess.decode import CpuDecoder; import preprocess.runner;"
        "print(sorted({'cupy', 'nvidia.dali', 'nvidia.nvimgcodec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
