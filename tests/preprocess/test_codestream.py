"""What codestreams say of themselves, lies against the header, repair, and hostile input."""

from __future__ import annotations

import dataclasses
import struct

import imagecodecs
import numpy as np
import pytest

from preprocess import openjpeg
from preprocess.codestream import (
    check_against_header,
    compression_of,
    deepest_level,
    level_size,
    read_facts,
    repair,
)
from preprocess.errors import RejectedInput
from preprocess.records import CodestreamFacts, Compression
from tests.instances import DATA, UIDS, header, needs_data, smooth
from tests.streams import (
    HT,
    J2K,
    JPEG,
    LL,
    LS,
    coc,
    cod,
    encoded,
    part,
    repaired_or_code,
    segment,
    siz,
    stream,
)


def facts_of(data: bytes, compression: Compression = J2K) -> CodestreamFacts:
    return read_facts(data, compression)


def code_of(data: bytes, compression: Compression = J2K) -> str:
    with pytest.raises(RejectedInput) as caught:
        read_facts(data, compression)
    return caught.value.code


# JPEG 2000 headers


def test_size_precision_sign_levels_and_tiles_are_read_from_siz_and_cod() -> None:
    facts = facts_of(stream(siz(columns=41, rows=30, ssiz=0x80 | 13, tx=41, ty=30), cod(levels=3, layers=20)))
    assert (facts.rows, facts.columns, facts.components) == (30, 41, 1)
    assert (facts.precision, facts.signed, facts.levels, facts.layers) == (14, True, 3, 20)
    assert (facts.tile_rows, facts.tile_columns, facts.tiles) == (30, 41, 1)
    assert facts.lossless
    assert facts.has_eoc
    assert not facts.boxed
    assert facts.progression == "LRCP"


def test_one_irreversible_or_shallow_coc_decides_for_the_whole_image() -> None:
    main = facts_of(stream(siz(), cod(levels=5), coc(levels=2, transform=0)))
    in_tile = facts_of(stream(siz(), cod(levels=5), parts=part(head=coc(levels=1, transform=0))))
    assert (main.levels, main.lossless) == (2, False)
    assert (in_tile.levels, in_tile.lossless) == (1, False)


def test_a_region_of_interest_an_offset_and_sub_sampling_are_seen() -> None:
    rgn = segment(0xFF5E, b"\x00\x00\x07")
    assert facts_of(stream(siz(), cod(), rgn)).has_roi
    assert facts_of(stream(siz(), cod(), parts=part(head=rgn))).has_roi
    assert facts_of(stream(siz(x0=3), cod())).offset
    sampled = facts_of(stream(siz(columns=41, dx=2), cod()))
    assert sampled.subsampled
    assert sampled.columns == 21


def test_a_jp2_box_with_extended_length_and_one_to_the_end_are_both_opened() -> None:
    bare = stream(siz(), cod())
    signature = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
    for box in (
        struct.pack(">I4s", 0, b"jp2c") + bare,
        struct.pack(">I4sQ", 1, b"jp2c", 16 + len(bare)) + bare,
        struct.pack(">I4s", 13, b"junk") + b"12345" + struct.pack(">I4s", 8 + len(bare), b"jp2c") + bare,
    ):
        facts = facts_of(signature + box)
        assert facts.boxed
        assert repair(signature + box, facts) == bare


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\x4f",
        b"\xff\xd8\xff\xc0" + bytes(60),
        stream(cod()),
        stream(siz()),
        stream(siz(columns=0, rows=0), cod()),
        stream(siz(tx=0), cod()),
        stream(siz(tx=1, ty=1, columns=70_000, rows=1), cod()),
        stream(siz(n=0), cod()),
        stream(siz(ssiz=60), cod()),
        stream(siz(dx=0), cod()),
        stream(siz(tx0=9), cod()),
        stream(siz(), cod(levels=33)),
        stream(siz(), cod(layers=0)),
        stream(siz(), cod(progression=5)),
        stream(siz(), cod(), parts=part(tile=1)),
        stream(siz(), cod(), parts=b"\xff\x90\x00\x0a\x00\x00\x00\x00\x00\x05\x00\x01"),
        stream(siz(), siz(), cod()),
        stream(siz(), cod(), b"\x12\x34\x00\x04\x00\x00"),
        b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\x00\x00\x00\x07ftyp",
        b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\x00\x00\x00\x10ftyp" + bytes(8),
    ],
)
def test_a_malformed_jpeg_2000_header_is_invalid(data: bytes) -> None:
    assert code_of(data) == "codestream_invalid"


def test_a_transform_beyond_part_1_is_unsupported() -> None:
    assert code_of(stream(siz(), cod(transform=2))) == "unsupported_codestream"


# Repair


def test_a_missing_eoc_is_appended_and_restores_the_pixels_bit_for_bit() -> None:
    pixels = smooth((61, 47), 12)
    whole = encoded(J2K, pixels, 12)
    cut = whole[:-2]
    facts = facts_of(cut)
    assert not facts.has_eoc
    assert repair(cut, facts) == whole
    assert np.array_equal(openjpeg.decode(repair(cut, facts)), pixels)


@pytest.mark.parametrize("padding", [b"\x00", b"\xff", b"\x00\x00\x00", b"\xff\xff\xff\xff"])
@pytest.mark.parametrize("compression", [J2K, HT, LL, LS, JPEG])
def test_trailing_padding_is_cut_off(compression: Compression, padding: bytes) -> None:
    whole = encoded(compression, smooth((33, 40), 12), 12)
    facts = read_facts(whole + padding, compression)
    assert facts.complete
    assert repair(whole + padding, facts) == whole


def test_whatever_is_cut_off_beyond_eoc_is_never_decoded() -> None:
    whole = encoded(J2K, smooth((61, 47), 12), 12)
    for length in range(len(whole) - 2):
        with pytest.raises(RejectedInput) as caught:
            repair(whole[:length], facts_of(whole[:length]))
        assert caught.value.code in ("codestream_truncated", "codestream_invalid")
    assert caught.value.code == "codestream_truncated"


def test_a_stream_without_eoc_is_complete_only_if_its_tile_parts_are_counted() -> None:
    counted = part(index=0, parts=2) + part(index=1, parts=2)
    assert facts_of(stream(siz(), cod(), parts=counted, eoc=b"")).complete
    assert not facts_of(stream(siz(), cod(), parts=part(index=0, parts=2), eoc=b"")).complete
    assert not facts_of(stream(siz(), cod(), parts=part(index=0, parts=2))).complete
    uncounted = part(index=0, parts=0) + part(index=1, parts=0)
    assert facts_of(stream(siz(), cod(), parts=uncounted)).complete
    assert not facts_of(stream(siz(), cod(), parts=uncounted, eoc=b"")).complete


def test_a_tile_without_tile_parts_makes_the_stream_truncated() -> None:
    two_tiles = siz(columns=40, tx=20)
    both = part(tile=0) + part(tile=1)
    assert facts_of(stream(two_tiles, cod(), parts=both)).complete
    assert repaired_or_code(stream(two_tiles, cod(), parts=part(tile=1)), J2K) == "codestream_truncated"


def test_a_last_tile_part_of_unknown_length_ends_at_eoc_or_is_truncated() -> None:
    whole = encoded(J2K, smooth((61, 47), 12), 12)
    start = whole.index(b"\xff\x90\x00\x0a")
    unknown = whole[: start + 6] + bytes(4) + whole[start + 10 :]
    assert repair(unknown + b"\x00", facts_of(unknown + b"\x00")) == unknown
    assert not facts_of(unknown[:-2]).complete


@pytest.mark.parametrize("compression", [LL, LS, JPEG])
def test_a_jpeg_that_ends_before_eoi_is_truncated(compression: Compression) -> None:
    whole = encoded(compression, smooth((33, 40), 12), 12)
    for length in (len(whole) - 1, len(whole) - 2, len(whole) // 2):
        with pytest.raises(RejectedInput) as caught:
            repair(whole[:length], read_facts(whole[:length], compression))
        assert caught.value.code in ("codestream_truncated", "codestream_invalid")


# JPEG and JPEG-LS headers


@pytest.mark.parametrize(("bits", "predictor"), [(8, 1), (10, 4), (14, 6), (16, 7)])
def test_precision_and_predictor_of_lossless_jpeg_are_read(bits: int, predictor: int) -> None:
    data = imagecodecs.jpeg8_encode(
        smooth((20, 31), bits), lossless=True, predictor=predictor, bitspersample=bits
    )
    facts = read_facts(data, LL)
    assert (facts.rows, facts.columns, facts.components) == (20, 31, 1)
    assert (facts.precision, facts.predictor, facts.lossless, facts.levels) == (bits, predictor, True, 0)


def test_tables_before_the_frame_header_and_fill_bytes_are_skipped() -> None:
    data = encoded(LL, smooth((20, 31), 12), 12)
    sof = data.index(b"\xff\xc3")
    dht = data.index(b"\xff\xc4")
    length = 2 + int.from_bytes(data[dht + 2 : dht + 4])
    table = data[dht : dht + length]
    moved = data[:2] + b"\xff\xff\xff" + table + data[2:dht] + data[dht + length :]
    assert moved.index(b"\xff\xc4") < moved.index(b"\xff\xc3")
    assert sof > 0
    assert read_facts(moved, LL).precision == 12
    assert np.array_equal(imagecodecs.jpeg8_decode(moved), smooth((20, 31), 12))


def test_near_lossless_and_lossless_jpeg_ls_are_told_apart() -> None:
    pixels = smooth((20, 31), 12)
    exact, near = (read_facts(imagecodecs.jpegls_encode(pixels, level=n), LS) for n in (0, 3))
    assert (exact.near, exact.lossless, exact.precision) == (0, True, 16)
    assert (near.near, near.lossless) == (3, False)


def test_a_lossless_jpeg_under_a_baseline_transfer_syntax_is_a_lie() -> None:
    assert code_of(encoded(LL, smooth((20, 31), 8), 8), JPEG) == "codestream_mismatch"
    assert code_of(encoded(JPEG, smooth((20, 31), 8), 8), LL) == "codestream_mismatch"


def test_arithmetic_coding_and_a_later_number_of_lines_are_unsupported() -> None:
    data = encoded(JPEG, smooth((20, 31), 8), 8)
    sof = data.index(b"\xff\xc0")
    assert code_of(data[: sof + 1] + b"\xc9" + data[sof + 2 :], JPEG) == "unsupported_codestream"
    assert code_of(data[: sof + 5] + b"\x00\x00" + data[sof + 7 :], JPEG) == "unsupported_codestream"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xff\xff\xff",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xc3\x00\x02",
        b"\xff\xd8\xff\xc3\x00\x0b\x0c\x00\x01\x00\x01\x05\x00\x11\x00",
        b"\xff\xd8\xff\xda\x00\x08\x01\x00\x00\x01\x00\x00",
        b"\xff\xd8\xff\xd0\xff\xd9",
    ],
)
def test_a_malformed_jpeg_header_is_invalid(data: bytes) -> None:
    assert code_of(data, LL) == "codestream_invalid"


# Against the DICOM header


def test_sizes_components_and_precision_that_contradict_the_header_are_rejected() -> None:
    facts = facts_of(stream(siz(columns=40, rows=30, ssiz=11), cod()))
    image = header((30, 40), "jpeg_2000", bits_stored=12)
    check_against_header(facts, image)
    for changed, code in (
        (dataclasses.replace(image, rows=31), "codestream_mismatch"),
        (dataclasses.replace(image, columns=39), "codestream_mismatch"),
        (dataclasses.replace(image, bits_allocated=8, bits_stored=8), "codestream_mismatch"),
    ):
        with pytest.raises(RejectedInput) as caught:
            check_against_header(facts, changed)
        assert caught.value.code == code
    with pytest.raises(RejectedInput) as caught:
        check_against_header(facts_of(stream(siz(columns=40, rows=30, n=3), cod())), image)
    assert caught.value.code == "color"


def test_a_region_of_interest_is_supported_in_jpeg_2000_and_not_in_htj2k() -> None:
    data = stream(siz(), cod(), segment(0xFF5E, b"\x00\x00\x07"))
    image = header((30, 40), "jpeg_2000", bits_stored=12)
    check_against_header(facts_of(data), image)
    with pytest.raises(RejectedInput) as caught:
        check_against_header(facts_of(data, HT), image)
    assert caught.value.code == "unsupported_codestream"


@pytest.mark.parametrize("ssiz", [15, 0x80 | 13, 9])
def test_another_precision_or_sign_than_the_header_has_is_no_lie(ssiz: int) -> None:
    facts = facts_of(stream(siz(columns=40, rows=30, ssiz=ssiz), cod()))
    check_against_header(facts, header((30, 40), "jpeg_2000", bits_stored=12))


def test_levels_are_allowed_only_where_samples_are_plain_numbers() -> None:
    facts = facts_of(stream(siz(columns=40, rows=30), cod(levels=4)))
    image = header((30, 40), "jpeg_2000", bits_stored=12)
    assert deepest_level(image, facts) == 4
    signed = dataclasses.replace(facts, signed=True)
    assert deepest_level(dataclasses.replace(image, pixel_representation=1), signed) == 4
    assert deepest_level(dataclasses.replace(image, pixel_representation=1), facts) == 0
    assert deepest_level(image, signed) == 0
    assert deepest_level(dataclasses.replace(image, high_bit=15), facts) == 0
    assert deepest_level(dataclasses.replace(image, has_overlay_in_pixels=True), facts) == 0
    assert deepest_level(image, dataclasses.replace(facts, offset=True)) == 0
    assert deepest_level(image, dataclasses.replace(facts, subsampled=True)) == 0
    assert deepest_level(image, None) == 0


@pytest.mark.parametrize(
    ("tile", "expected"), [((128, 64), 5), ((24, 40), 3), ((33, 64), 0), ((33, 1000), 0)]
)
def test_only_levels_that_divide_the_tiles_are_allowed(tile: tuple[int, int], expected: int) -> None:
    facts = facts_of(stream(siz(columns=640, rows=480), cod()))
    tiled = dataclasses.replace(facts, tile_rows=tile[0], tile_columns=tile[1])
    assert deepest_level(header((480, 640), "jpeg_2000"), tiled) == expected


def test_level_sizes_round_up() -> None:
    assert [level_size(2082, 1, r) for r in range(4)] == [(2082, 1), (1041, 1), (521, 1), (261, 1)]


def test_every_listed_transfer_syntax_has_a_family_and_others_are_unsupported() -> None:
    assert {compression_of(uid) for uid in UIDS.values()} == set(Compression)
    for uid in ("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.92", "", "1.2.3"):
        with pytest.raises(RejectedInput) as caught:
            compression_of(uid)
        assert caught.value.code == "unsupported_transfer_syntax"


@needs_data
def test_real_streams_tell_what_is_known_of_them() -> None:
    layers = facts_of((DATA / "j2k_cs" / "xray14_a.j2k").read_bytes())
    assert (layers.layers, layers.progression, layers.precision, layers.lossless) == (12, "RLCP", 14, True)
    tiles = facts_of((DATA / "j2k_cs" / "ojph_simple_dec_rev53_64x64_gray_tiles.jph").read_bytes(), HT)
    assert (tiles.tiles, tiles.tile_rows, tiles.tile_columns, tiles.boxed) == (48, 33, 257, True)
    shallow_tile = facts_of((DATA / "j2k_cs" / "opj_issue399.j2k").read_bytes())
    assert shallow_tile.levels == 1
    shifted = facts_of((DATA / "conformance" / "p1_01.j2k").read_bytes())
    assert shifted.offset
    assert shifted.subsampled
