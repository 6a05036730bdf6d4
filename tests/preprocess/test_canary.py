"""Damage to Huffman-coded data is told: by a canary row behind them, or by where they end."""

from __future__ import annotations

from random import Random

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess._canary import with_canary
from preprocess.decode import CpuDecoder
from preprocess.errors import RejectedInput
from tests.fuzz.seeds import breast
from tests.instances import header, instance, smooth


def image(shape: tuple[int, int], bits: int, seed: int, noise: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noisy = np.clip(smooth(shape, bits, seed) + rng.normal(0, noise, shape), 0, (1 << bits) - 1)
    noisy[shape[0] // 2 :] *= seed % 3 != 0
    return noisy.astype(np.uint8 if bits <= 8 else np.uint16)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(8, 90), st.integers(8, 120)), st.sampled_from([8, 12]), st.integers(5, 100),
    st.booleans(), st.integers(0, 99), st.sampled_from([0.0, 1.0, 30.0]),
)  # fmt: skip
def test_the_canary_of_an_undamaged_sequential_frame_survives_and_changes_no_pixel(
    shape: tuple[int, int], bits: int, quality: int, optimize: bool, seed: int, noise: float
) -> None:
    pixels = image(shape, bits, seed, noise)
    frame = bytes(imagecodecs.jpeg8_encode(pixels, level=quality, bitspersample=bits, optimize=optimize))
    canary = with_canary(frame)
    if canary is not None:
        decoded = imagecodecs.jpeg8_decode(canary.data)
        assert canary.survived(decoded)
        assert np.array_equal(decoded[: canary.rows], imagecodecs.jpeg8_decode(frame))


def encoded(kind: str) -> tuple[bytes, str, int]:
    if kind == "lossless":
        frame = imagecodecs.jpeg8_encode(breast((200, 160), 12), lossless=True, predictor=1, bitspersample=12)
        return bytes(frame), "jpeg_lossless", 12
    return bytes(imagecodecs.jpeg8_encode(breast((200, 160), 8).astype(np.uint8), level=95)), "jpeg", 8


@pytest.mark.parametrize(("kind", "noticed"), [("lossless", 0.55), ("sequential", 0.2)])
def test_flipped_bits_are_noticed_where_codes_or_range_show_them(kind: str, noticed: float) -> None:
    frame, syntax, bits = encoded(kind)
    allocated = 8 if bits == 8 else 16
    about = header((200, 160), syntax, bits_stored=bits, bits_allocated=allocated)
    rng, found = Random(0), 0
    start = frame.index(b"\xff\xda") + 10
    for _ in range(100):
        mutant = bytearray(frame)
        mutant[rng.randrange(start, len(frame) - 2)] ^= 1 << rng.randrange(8)
        try:
            CpuDecoder().decode(instance(bytes(mutant), about))
        except RejectedInput:
            found += 1
    assert found >= 100 * noticed


@pytest.mark.parametrize("kind", ["lossless", "sequential"])
@pytest.mark.parametrize("change", [b"", b"\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a"])
def test_missing_and_surplus_data_before_the_end_marker_are_refused(kind: str, change: bytes) -> None:
    frame, syntax, bits = encoded(kind)
    cut = frame[: -2 if change else -40].removesuffix(b"\xff") + change + b"\xff\xd9"
    about = header((200, 160), syntax, bits_stored=bits, bits_allocated=8 if bits == 8 else 16)
    CpuDecoder().decode(instance(frame, about))
    with pytest.raises(RejectedInput, match="more or less than is declared"):
        CpuDecoder().decode(instance(cut, about))


def test_restart_intervals_leave_no_place_for_a_canary() -> None:
    frame, _, _ = encoded("sequential")
    assert with_canary(frame) is not None
    at = frame.index(b"\xff\xda")
    assert with_canary(frame[:at] + b"\xff\xdd\x00\x04\x00\x50" + frame[at:]) is None
