"""The coarse image made from the full one is the decoder's, and made only where the full one is needed."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.phantom import PhantomSpec, generate
from preprocess import roi
from preprocess.coarse import FullFirst, is_derivable, is_needed
from preprocess.codestream import deepest_level
from preprocess.config import BitsOverflow, ResultConfig
from preprocess.decode import CpuDecoder
from preprocess.errors import RejectedInput
from preprocess.geometry import is_full_certain
from preprocess.kernels import seam as kernels
from preprocess.pipeline import steps
from preprocess.records import BreastBox, Instance, Mammogram, Partial, RoiMethod, SourceFile
from preprocess.wavelet import low_pass_53
from tests.instances import header, instance, smooth
from tests.preprocess.test_levels import wavelets

FULL = ResultConfig(decode="full")


class Counting(CpuDecoder):
    """Notes which levels were decoded."""

    def __init__(self) -> None:
        self.levels: list[int] = []

    def decode(self, instance: Instance, level: int = 0) -> Mammogram:
        self.levels.append(level)
        return super().decode(instance, level)


def encoded(pixels: np.ndarray, kind: str = "jpeg_2000", levels: int = 5, **changes: object) -> Instance:
    if kind == "htj2k":
        data = imagecodecs.htj2k_encode(pixels)
    else:
        data = imagecodecs.jpeg2k_encode(
            pixels,
            level=0,
            codecformat="j2k",
            reversible=True,
            colorspace="GRAYSCALE",
            resolutions=levels + 1,
        )
    return instance(data, header(pixels.shape, kind, **changes))


@settings(max_examples=150)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([np.uint8, np.uint16, np.int16, np.int32]),
    st.integers(0, 2**32 - 1),
)
def test_one_step_equals_the_oracles(rows: int, columns: int, dtype: type, seed: int) -> None:
    info = np.iinfo(np.uint16 if dtype is np.int32 else dtype)
    pixels = np.random.default_rng(seed).integers(info.min, info.max + 1, (rows, columns)).astype(dtype)
    assert np.array_equal(kernels.low_pass(pixels), low_pass_53(pixels, 1))


@settings(max_examples=40)
@given(
    st.integers(33, 90),
    st.integers(33, 90),
    st.sampled_from([8, 12, 16]),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_derived_levels_equal_decoded_ones(rows, columns, bits, level, extreme, seed) -> None:
    rng = np.random.default_rng(seed)
    top = (1 << bits) - 1
    pixels = (
        rng.integers(0, 2, (rows, columns)) * top if extreme else rng.integers(0, top + 1, (rows, columns))
    )
    allocated = 8 if bits == 8 else 16
    pixels = pixels.astype(np.uint8 if bits == 8 else np.uint16)
    one = encoded(pixels, bits_allocated=allocated, bits_stored=bits, high_bit=bits - 1)
    level = min(level, deepest_level(one.image, one.codestream))
    inner = Counting()
    first = FullFirst(inner, FULL)
    coarse, full = first.decode(one, level), first.decode(one, 0)
    assert inner.levels == [0]
    expected = CpuDecoder().decode(one, level)
    assert np.array_equal(coarse.pixels, expected.pixels)
    assert coarse.pixels.dtype == expected.pixels.dtype
    assert (coarse.level, coarse.extremes(), coarse.decoder) == (level, expected.extremes(), expected.decoder)
    assert np.array_equal(full.pixels, pixels)


def test_signed_and_high_throughput_streams_are_derived_too() -> None:
    signed = (smooth((70, 50), 12).astype(np.int32) - 2000).astype(np.int16)
    streams = [
        encoded(signed, pixel_representation=1, bits_stored=16, high_bit=15),
        encoded(smooth((70, 50), 12), "htj2k", bits_stored=12, high_bit=11),
    ]
    for one in streams:
        inner = Counting()
        coarse = FullFirst(inner, FULL).decode(one, 2)
        assert inner.levels == [0]
        assert np.array_equal(coarse.pixels, CpuDecoder().decode(one, 2).pixels)


def test_values_above_bits_stored_are_not_transformed_clamped() -> None:
    pixels = smooth((70, 50), 12)
    pixels[20:24, 20:24] = 60_000
    one = encoded(pixels, bits_stored=12, high_bit=11)
    inner = Counting()
    coarse = FullFirst(inner, FULL).decode(one, 2)
    assert inner.levels == [0, 2]
    assert np.array_equal(coarse.pixels, CpuDecoder().decode(one, 2).pixels)


@pytest.mark.parametrize(
    ("facts", "image"),
    [
        ({"tiles": 4}, {}),
        ({"offset": True}, {}),
        ({"subsampled": True}, {}),
        ({"has_roi": True}, {}),
        ({"lossless": False}, {}),
        ({"signed": True}, {}),
        ({}, {"transfer_syntax_uid": "1.2.840.10008.1.2.4.91"}),
        ({}, {"has_overlay_in_pixels": True}),
        ({}, {"bits_stored": 12, "high_bit": 15}),
    ],
)
def test_what_is_no_function_of_the_full_image_is_decoded(facts: dict[str, object], image: dict[str, object]):
    one = wavelets(3000, 2000)
    assert is_derivable(one)
    assert one.codestream is not None
    changed = dataclasses.replace(
        one,
        codestream=dataclasses.replace(one.codestream, **facts),
        image=dataclasses.replace(one.image, **image),
    )
    assert not is_derivable(changed)


def test_a_stream_that_was_read_in_part_is_decoded_as_far_as_it_was_read() -> None:
    one = wavelets(3000, 2000)
    assert one.codestream is not None
    assert not is_derivable(dataclasses.replace(one, partial=Partial(0, b"", one.codestream)))


def test_a_level_that_may_do_is_decoded_first() -> None:
    one, inner = encoded(smooth((300, 200), 16)), Counting()
    first = FullFirst(inner, ResultConfig(height=64, width=32))
    first.decode(one, 2)
    first.decode(one, 0)
    assert inner.levels == [2, 0]


@settings(max_examples=100)
@given(
    st.integers(100, 6000),
    st.integers(100, 6000),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.tuples(st.integers(32, 2048), st.integers(32, 2048)),
    st.sampled_from([1.0, 1.125, 1.25, 2.0]),
)
def test_where_full_decoding_is_certain_no_box_asks_for_less(rows, columns, tall, wide, size, margin) -> None:
    one = wavelets(rows, columns)
    config = ResultConfig(height=size[0], width=size[1], decode_margin=margin)
    boxes = [(rows, columns), (math.ceil(rows * tall), math.ceil(columns * wide))]
    levels = [
        roi.choose_level(one, roi.Findings(BreastBox(RoiMethod.BREAST, 0, 0, *box, False)), config)
        for box in boxes
    ]
    if is_full_certain(one.image, config):
        assert levels == [0, 0]


def test_full_decoding_is_certain_where_the_frame_is_small_or_it_is_asked_for() -> None:
    one = wavelets(2776, 2082)
    large, small = ResultConfig(height=2048, width=1024), ResultConfig(height=1024, width=512)
    assert is_needed(one, large)
    assert not is_needed(one, small)
    assert not is_needed(wavelets(5355, 4915), large)
    assert is_needed(one, small.model_copy(update={"decode": "full"}))
    assert is_needed(one, small.model_copy(update={"decode": "0"}))
    assert not is_needed(one, large.model_copy(update={"decode": "1"}))
    assert is_needed(one, small.model_copy(update={"bits_overflow": BitsOverflow.REJECT}))


def test_whole_images_come_out_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(tmp_path / "in", PhantomSpec(patients=2, size_factor=0.3, syntax="jpeg-2000", test_patients=0))
    files = sorted(tmp_path.glob("in/train_images/*/*.dcm"))
    config = ResultConfig(height=800, width=700)
    ways = []
    for way in (FullFirst, lambda inner, _: inner):
        monkeypatch.setattr("preprocess.pipeline.FullFirst", way)
        counting = Counting()
        outcomes = [steps(SourceFile(path.name, str(path)), config, counting) for path in files]
        ways.append((outcomes, counting.levels))
    (ours, few), (theirs, many) = ways
    assert set(few) == {0}
    assert len(few) == len(files) < len(many)
    for one, other in zip(ours, theirs, strict=True):
        assert one.prepared is not None
        assert other.prepared is not None
        assert one.prepared.pixels_sha256 == other.prepared.pixels_sha256
        assert one.prepared.decoded_sha256 == other.prepared.decoded_sha256
        assert one.findings == other.findings


def test_a_stream_that_cannot_be_decoded_is_rejected_as_ever() -> None:
    one = encoded(smooth((70, 50), 12), bits_stored=12, high_bit=11)
    middle = len(one.payload) // 2
    payload = one.payload[:middle] + b"\xff\xff" * 8 + one.payload[middle + 16 :]
    with pytest.raises(RejectedInput) as caught:
        FullFirst(CpuDecoder(), FULL).decode(dataclasses.replace(one, payload=payload), 2)
    assert caught.value.code == "decode_failed"
