"""Our JPEG Lossless decoder: equal to libjpeg-turbo on what is whole, exact about what is not."""

from __future__ import annotations

import struct
from random import Random

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess import jpeg_lossless
from preprocess.errors import RejectedInput


def image(shape: tuple[int, int], bits: int, seed: int, noise: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    level = (rows * 5 + columns * columns // 7) % (1 << bits) + rng.normal(0, noise, shape)
    level[shape[0] // 2 :] *= seed % 3 != 0
    return np.clip(level, 0, (1 << bits) - 1).astype(np.uint8 if bits <= 8 else np.uint16)


SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 60))
NOISE = st.sampled_from([0.0, 1.0, 30.0, 9000.0])


@settings(max_examples=200, deadline=None)
@given(SHAPES, st.integers(2, 16), st.integers(1, 7), st.integers(0, 99), NOISE)
def test_every_precision_and_predictor_is_decoded_as_libjpeg_turbo_does(
    shape: tuple[int, int], bits: int, predictor: int, seed: int, noise: float
) -> None:
    pixels = image(shape, bits, seed, noise)
    frame = bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=bits))
    decoded = jpeg_lossless.decode(frame)
    assert decoded.dtype == pixels.dtype
    assert np.array_equal(decoded, pixels)
    assert np.array_equal(decoded, imagecodecs.jpeg8_decode(frame))


# An encoder of our own, for what libjpeg-turbo's does not write: restarts, point transforms, long codes.


def differences(pixels: np.ndarray, predictor: int, first: int) -> list[list[int]]:
    found = []
    for y, row in enumerate(pixels.astype(int).tolist()):
        line = []
        for x, value in enumerate(row):
            a = row[x - 1] if x else 0
            b = int(pixels[y - 1, x]) if y else 0
            c = int(pixels[y - 1, x - 1]) if x and y else 0
            if y == 0 or x == 0:
                guess = (a if x else first) if y == 0 else b
            else:
                guess = (
                    a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1
                )[predictor - 1]  # fmt: skip
            line.append((value - guess) & 0xFFFF)
        found.append(line)
    return found


def coded(difference: int, lengths: dict[int, str]) -> str:
    signed = difference - 0x10000 if difference > 0x8000 else difference
    if signed == 0x8000:
        return lengths[16]
    size = abs(signed).bit_length()
    extra = signed if signed > 0 else signed + (1 << size) - 1
    return lengths[size] + (f"{extra:0{size}b}" if size else "")


def encode(
    pixels: np.ndarray, bits: int, predictor: int = 1, *, step: int = 0, shift: int = 0, fill: str = "1"
) -> bytes:
    """A lossless frame; step: rows of a restart interval. Codes: 0, 10, 110, … and four of 16 bits."""
    lengths = {size: "1" * size + "0" for size in range(13)}
    lengths |= {13 + index: "1" * 13 + f"{index:03b}" for index in range(4)}
    order = sorted(lengths, key=lambda size: (len(lengths[size]), size))
    counts = bytes(sum(len(code) == n for code in lengths.values()) for n in range(1, 17))
    rows, columns = pixels.shape
    parts = []
    for start in range(0, rows, step or rows):
        interval = pixels[start : start + (step or rows)] >> shift
        found = differences(interval, predictor, 1 << (bits - shift - 1))
        text = "".join(coded(value, lengths) for line in found for value in line)
        text += fill * (-len(text) % 8)
        parts.append(int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\x00"))
    entropy = b"".join(
        part + (bytes((0xFF, 0xD0 + index % 8)) if index + 1 < len(parts) else b"")
        for index, part in enumerate(parts)
    )
    table = b"\0" + counts + bytes(order)
    return b"".join(
        (
            b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, bits, rows, columns, 1) + b"\x01\x11\x00",
            b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table,
            b"\xff\xdd\x00\x04" + struct.pack(">H", step * columns) if step else b"",
            b"\xff\xda\x00\x08\x01\x01\x00" + bytes((predictor, 0, shift)),
            entropy + b"\xff\xd9",
        )
    )


@settings(max_examples=150, deadline=None)
@given(
    SHAPES, st.integers(2, 16), st.integers(1, 7), st.integers(0, 99), NOISE, st.integers(0, 9),
    st.integers(0, 3), st.sampled_from("01"),
)  # fmt: skip
def test_restarts_point_transforms_and_long_codes_are_decoded_as_libjpeg_turbo_does(
    shape: tuple[int, int],
    bits: int,
    predictor: int,
    seed: int,
    noise: float,
    step: int,
    shift: int,
    fill: str,
) -> None:
    shift = min(shift, bits - 1)
    pixels = image(shape, bits, seed, noise)
    frame = encode(pixels, bits, predictor, step=step, shift=shift, fill=fill)
    decoded = jpeg_lossless.decode(frame)
    assert np.array_equal(decoded, pixels >> shift << shift)
    assert np.array_equal(decoded, imagecodecs.jpeg8_decode(frame))


def test_a_difference_of_half_the_range_needs_no_extra_bits() -> None:
    pixels = np.array([[0, 32768, 0], [65535, 32767, 65535]], np.uint16)
    assert np.array_equal(jpeg_lossless.decode(encode(pixels, 16)), pixels)


@pytest.mark.parametrize("step", [0, 4])
@pytest.mark.parametrize("cut", [1, 3, 40])
def test_missing_data_are_refused_wherever_they_are_missing(step: int, cut: int) -> None:
    frame = encode(image((16, 30), 12, 1, 30), 12, step=step)
    marker = frame.index(b"\xff\xd1") if step else len(frame) - 2
    with pytest.raises(RejectedInput, match="more or less than is declared"):
        jpeg_lossless.decode(frame[: marker - cut].rstrip(b"\xff") + frame[marker:])


@pytest.mark.parametrize("step", [0, 4])
@pytest.mark.parametrize("surplus", [b"\x7f", b"\xa5\xa5", bytes(40)])
def test_surplus_data_are_refused_wherever_they_are(step: int, surplus: bytes) -> None:
    frame = encode(image((16, 30), 12, 1, 30), 12, step=step)
    marker = frame.index(b"\xff\xd1") if step else len(frame) - 2
    with pytest.raises(RejectedInput, match="more or less than is declared"):
        jpeg_lossless.decode(frame[:marker] + surplus + frame[marker:])


def test_mixed_fill_bits_are_refused() -> None:
    frame = bytearray(encode(np.zeros((1, 4), np.uint16), 12))
    assert jpeg_lossless.decode(bytes(frame)).tolist() == [[0, 0, 0, 0]]
    frame[-3] ^= 1  # the last of the fill bits
    with pytest.raises(RejectedInput, match="more or less than is declared"):
        jpeg_lossless.decode(bytes(frame))


def test_values_beyond_the_precision_are_refused() -> None:
    frame = bytearray(encode(image((9, 9), 12, 2, 30), 12))
    frame[frame.index(b"\xff\xc3") + 4] = 9
    with pytest.raises(RejectedInput, match="more than 9 bits"):
        jpeg_lossless.decode(bytes(frame))


def test_impossible_tables_intervals_and_transforms_are_refused() -> None:
    frame = encode(image((8, 8), 12, 2, 30), 12, step=2)
    table = frame.index(b"\xff\xc4") + 5
    changes = {
        frame.index(b"\xff\xdd") + 5: 7,  # 7 samples: not whole rows
        frame.index(b"\xff\xda") + 9: 12,  # all bits shifted out
        frame.index(b"\xff\xda") + 7: 0,  # no predictor
        table: 9,  # nine codes of one bit
    }
    for at, value in changes.items():
        broken = bytearray(frame)
        broken[at] = value
        with pytest.raises(RejectedInput) as rejected:
            jpeg_lossless.decode(bytes(broken))
        assert rejected.value.code == "decode_failed"


def test_most_flipped_bits_are_noticed_and_none_does_harm() -> None:
    """Flipped bits change what is read or end elsewhere; whatever comes out is an image or a reject."""
    frame = encode(image((40, 50), 12, 3, 30), 12, predictor=4)
    rng, refused = Random(0), 0
    start = frame.index(b"\xff\xda") + 10
    for _ in range(400):
        mutant = bytearray(frame)
        at = rng.randrange(start, len(frame) - 2)
        mutant[at] ^= 1 << rng.randrange(8)
        if 0xFF in mutant[at - 1 : at + 1]:
            continue  # makes or unmakes a marker: `read_jpeg` refuses it
        try:
            assert jpeg_lossless.decode(bytes(mutant)).shape == (40, 50)
        except RejectedInput:
            refused += 1
    assert refused > 200
