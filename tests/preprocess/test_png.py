from __future__ import annotations

import hashlib
import io
import zlib
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.errors import DatasetDamaged
from preprocess.png import decode_png, encode_png

pictures = st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
)


@given(pictures)
@settings(max_examples=60, deadline=None)
def test_decoding_gives_back_every_pixel(pixels: np.ndarray) -> None:
    again = decode_png(encode_png(pixels))
    assert again.dtype == pixels.dtype
    np.testing.assert_array_equal(again, pixels)


@given(pictures)
@settings(max_examples=40, deadline=None)
def test_pillow_reads_the_same_pixels(pixels: np.ndarray) -> None:
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        np.testing.assert_array_equal(np.asarray(image).astype(pixels.dtype), pixels)
        assert image.mode == ("L" if pixels.dtype == np.uint8 else "I;16")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tensorflow_reads_the_same_pixels(dtype: type) -> None:
    tf = pytest.importorskip("tensorflow")
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (37, 23), endpoint=True).astype(dtype)
    decoded = tf.io.decode_png(encode_png(pixels), channels=1, dtype=tf.as_dtype(dtype)).numpy()
    np.testing.assert_array_equal(decoded[..., 0], pixels)


def test_bytes_are_pinned() -> None:
    """If this fails the encoder changed, and with it every shard: raise SCHEMA_VERSION."""
    ramp = (np.arange(64 * 32, dtype=np.uint32) * 31 % 65536).astype(np.uint16).reshape(64, 32)
    assert hashlib.sha256(encode_png(ramp)).hexdigest() == PINNED


PINNED = "0180eb6363f8d38f64572fcfb7cde0d0d6e4fe3caa992bfe61489a6dec3642c5"


def test_there_are_no_ancillary_chunks() -> None:
    data = encode_png(np.zeros((4, 4), np.uint16))
    kinds, at = [], 8
    while at < len(data):
        kinds.append(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4])
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_memory_layout_and_byte_order_do_not_change_bytes() -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (20, 30)).astype(np.uint16)
    expected = encode_png(pixels)
    assert encode_png(np.asfortranarray(pixels)) == expected
    assert encode_png(pixels.astype(">u2").view(">u2").astype(np.uint16)) == expected
    assert encode_png(np.repeat(pixels, 2, axis=1)[:, ::2]) == expected


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.int16), np.zeros((0, 4), np.uint8)]
)
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="2-D uint8 or uint16"):
        encode_png(bad)


def test_every_flipped_bit_is_found() -> None:
    data = encode_png(np.random.default_rng(2).integers(0, 65536, (6, 5)).astype(np.uint16))
    for bit in range(len(data) * 8):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DatasetDamaged):
            decode_png(bytes(broken))


@given(st.integers(0, 80))
@settings(max_examples=30, deadline=None)
def test_a_cut_file_is_damaged(length: int) -> None:
    data = encode_png(np.arange(20, dtype=np.uint8).reshape(4, 5))
    with pytest.raises(DatasetDamaged):
        decode_png(data[: min(length, len(data) - 1)])


def test_a_bomb_is_refused_before_allocation() -> None:
    data = bytearray(encode_png(np.zeros((4, 4), np.uint8)))
    data[16:24] = (2**31 - 1).to_bytes(4) * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4)
    with pytest.raises(DatasetDamaged, match="more pixels"):
        decode_png(bytes(data))


def test_pngs_of_others_are_not_taken_for_ours(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DatasetDamaged):
        decode_png((tmp_path / "a.png").read_bytes())


@pytest.mark.parametrize("height", [1, 31, 32, 33, 64, 95, 129])
def test_any_number_of_rows_comes_back(height: int) -> None:
    """Rows are summed in blocks, whose edges these heights are about."""
    pixels = np.random.default_rng(height).integers(0, 65536, (height, 7)).astype(np.uint16)
    np.testing.assert_array_equal(decode_png(encode_png(pixels)), pixels)
