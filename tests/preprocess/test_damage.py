"""Damage that decoders survive, and what looks like it but is none."""

from __future__ import annotations

import csv
import hashlib
import struct
from pathlib import Path
from random import Random

import imagecodecs
import numpy as np
import pytest

from preprocess import _markers, openjpeg
from preprocess.codestream import read_facts
from preprocess.decode import CpuDecoder
from preprocess.errors import RejectedInput
from preprocess.records import Compression, Instance
from tests.fuzz.seeds import breast
from tests.instances import header, instance, smooth
from tests.streams import segment, siz


def code_of(one: Instance) -> str | None:
    try:
        CpuDecoder().decode(one)
    except RejectedInput as rejected:
        return rejected.code
    return None


def j2k(pixels: np.ndarray, **options: object) -> bytes:
    options = {"level": 0, "codecformat": "j2k", "bitspersample": 12, "reversible": True} | options
    return bytes(imagecodecs.jpeg2k_encode(pixels, numthreads=1, **options))


def test_nearly_every_flipped_bit_of_lossless_jpeg_2000_is_noticed() -> None:
    pixels = breast((160, 120), 12)
    stream = j2k(pixels)
    about = header(pixels.shape, "jpeg_2000", bits_stored=12)
    assert np.array_equal(CpuDecoder().decode(instance(stream, about)).pixels, pixels)
    rng, noticed = Random(0), 0
    start = stream.index(b"\xff\x93") + 2
    for _ in range(60):
        mutant = bytearray(stream)
        mutant[rng.randrange(start, len(stream) - 2)] ^= 1 << rng.randrange(8)
        noticed += code_of(instance(bytes(mutant), about)) == "decode_failed"
    assert noticed >= 54


@pytest.mark.parametrize("noise", [0, 3, 800])
@pytest.mark.parametrize("options", [{}, {"level": 30, "reversible": False}, {"level": 60}])
def test_undamaged_jpeg_2000_of_any_noise_and_rate_is_no_damage(
    noise: int, options: dict[str, object]
) -> None:
    rng = np.random.default_rng(noise)
    for seed in range(6):
        pixels = smooth((90 + seed, 130), 12, seed) + rng.normal(0, noise, (90 + seed, 130))
        stream = j2k(np.clip(pixels, 0, 4095).astype(np.uint16), **options)
        assert openjpeg.decode(stream, lossless=not options).shape == pixels.shape


def test_bytes_after_the_image_are_refused_unless_they_are_padding() -> None:
    pixels = breast((64, 64), 12)
    about = header(pixels.shape, "jpeg_2000", bits_stored=12)
    stream = j2k(pixels)
    for padding in (b"\0", b"\xff", b"\0" * 100):
        assert code_of(instance(stream + padding, about)) is None
    assert code_of(instance(stream + b"\0\1", about)) == "codestream_invalid"


def jpeg_lossless(pixels: np.ndarray, bits: int) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=bits))


def test_lossless_jpeg_values_beyond_the_precision_are_refused() -> None:
    pixels = breast((64, 64), 12)
    frame = bytearray(jpeg_lossless(pixels, 12))
    about = header(pixels.shape, "jpeg_lossless", bits_stored=12)
    assert code_of(instance(bytes(frame), about)) is None
    frame[frame.index(b"\xff\xc3") + 4] = 10  # SOF: fewer bits than the data have
    assert code_of(instance(bytes(frame), about)) == "decode_failed"


def test_restart_markers_are_refused_where_none_are_declared_or_out_of_turn() -> None:
    frame = jpeg_lossless(breast((64, 64), 12), 12)
    middle, sos = len(frame) // 2, frame.index(b"\xff\xda")
    if frame[middle - 1] == 0xFF:
        middle += 1
    with pytest.raises(RejectedInput, match="outside a scan"):
        read_facts(frame[:middle] + b"\xff\xd0" + frame[middle:], Compression.JPEG_LOSSLESS)
    interval = frame[:sos] + b"\xff\xdd\x00\x04\x00\x40"
    for number, refused in ((0xD0, False), (0xD3, True)):
        marked = interval + frame[sos:middle] + bytes((0xFF, number)) + frame[middle:]
        if refused:
            with pytest.raises(RejectedInput, match="in turn"):
                read_facts(marked, Compression.JPEG_LOSSLESS)
        else:
            assert read_facts(marked, Compression.JPEG_LOSSLESS).complete


def test_a_second_scan_of_the_only_component_is_refused() -> None:
    frame = jpeg_lossless(breast((64, 64), 12), 12)
    sos = frame.index(b"\xff\xda")
    with pytest.raises(RejectedInput, match="two scans"):
        read_facts(frame[:-2] + frame[sos:], Compression.JPEG_LOSSLESS)


def test_rle_that_holds_more_than_its_plane_is_refused() -> None:
    plane = bytes(imagecodecs.packbits_encode(breast((64, 64), 8).astype(np.uint8)))
    head = np.zeros(16, "<u4")
    head[:2] = 1, 64
    about = header((64, 64), "rle", bits_allocated=8, bits_stored=8)
    frame = head.tobytes() + plane
    assert code_of(instance(frame, about)) is None
    assert code_of(instance(frame + b"\0", about)) is None
    assert code_of(instance(frame + b"\xf0\1", about)) == "decode_failed"


def test_an_encoder_that_leaves_bytes_behind_everywhere_is_not_damage(real_data: Path) -> None:
    # Written by ClearCanvas with an early OpenJPEG: one code-block in six holds more than its passes use.
    name = "j2k_cs/opj_test_lossless.j2k"
    with (real_data / "manifest.csv").open() as file:
        expected = {row["name"]: row["px_sha256"] for row in csv.DictReader(file)}[name]
    pixels = openjpeg.decode((real_data / name).read_bytes(), lossless=True)
    assert hashlib.sha256(pixels.astype("<u2").tobytes()).hexdigest() == expected


@pytest.mark.parametrize("kind", ["jpeg_2000", "htj2k"])
def test_a_byte_pair_that_no_packet_can_hold_is_damage(kind: str) -> None:
    pixels = breast((160, 120), 12)
    stream = j2k(pixels) if kind == "jpeg_2000" else bytes(imagecodecs.htj2k_encode(pixels, reversible=True))
    about = header(pixels.shape, kind, bits_stored=12)
    body = stream.index(b"\xff\x93") + 2
    assert code_of(instance(stream, about)) is None
    for second in (0x90, 0x91, 0x92, 0xC5, 0xFF):
        mutant = bytearray(stream)
        mutant[body + 40 : body + 42] = bytes((0xFF, second))
        if mutant[body + 39] != 0xFF:
            assert _markers.impossible(bytes(mutant)) == body + 40
        assert code_of(instance(bytes(mutant), about)) == "decode_failed"


def marked(style: int, packets: bytes) -> bytes:
    """Headers with a Scod, and anything for packets."""
    tile = segment(0xFF90, struct.pack(">HIBB", 0, 14 + len(packets), 0, 1)) + b"\xff\x93" + packets
    cod = struct.pack(">BBHBBBBBB", style, 0, 1, 0, 0, 4, 4, 0, 1)
    return b"\xff\x4f" + siz() + segment(0xFF52, cod) + tile + b"\xff\xd9"


def test_markers_are_allowed_where_the_coding_style_declares_them() -> None:
    sop, eph, odd_number = b"\xff\x91\x00\x04\x00\x01", b"\xff\x92", b"\xff\x91\x00\x04\xff\xa0"
    assert _markers.impossible(marked(0, b"\x80\xff\x8f\x01")) is None
    for style, packets in ((2, sop), (4, eph), (6, sop + b"\x80" + eph + odd_number)):
        assert _markers.impossible(marked(style, packets)) is None
        assert _markers.impossible(marked(0, packets)) is not None
    assert _markers.impossible(marked(2, eph)) is not None
    assert _markers.impossible(marked(6, sop + b"\xff\x93")) is not None
