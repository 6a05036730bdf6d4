"""Frames out of encapsulated Pixel Data: offset tables, fragments, and what happens without them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended

from preprocess._encapsulation import OffsetTable, encapsulated_frame, read_fragments
from preprocess.errors import RejectedInput
from tests.preprocess.dicom_maker import SEQUENCE_END, item

FRAMES = st.lists(st.binary(min_size=8, max_size=300).map(lambda b: b + b"\0" * (len(b) % 2)), min_size=1,
                  max_size=6)  # fmt: skip


def value(table: list[int], fragments: list[bytes], end: bytes = SEQUENCE_END) -> bytes:
    return item(struct.pack(f"<{len(table)}I", *table)) + b"".join(map(item, fragments)) + end


def refusal(data: bytes, frames: int, frame: int, extended: OffsetTable | None = None) -> str:
    with pytest.raises(RejectedInput) as caught:
        encapsulated_frame(data, 0, frames, frame, extended)
    return caught.value.code


@settings(max_examples=60, deadline=None)
@given(FRAMES, st.integers(1, 4), st.binary(max_size=20))
def test_any_frame_comes_back_through_the_basic_offset_table(frames, fragments_per_frame, before):
    data = before + encapsulate(frames, fragments_per_frame=fragments_per_frame, has_bot=True)
    for n, frame in enumerate(frames):
        assert encapsulated_frame(data, len(before), len(frames), n) == frame


@settings(max_examples=40, deadline=None)
@given(FRAMES)
def test_any_frame_comes_back_through_the_extended_offset_table(frames):
    data, offsets, lengths = encapsulate_extended(frames)
    table = OffsetTable(
        struct.unpack(f"<{len(frames)}Q", offsets), struct.unpack(f"<{len(frames)}Q", lengths)
    )
    found = [encapsulated_frame(data, 0, len(frames), n, table) for n in range(len(frames))]
    assert found == frames


def test_one_frame_without_a_table_is_all_fragments():
    assert encapsulated_frame(value([], [b"ab", b"cd", b"ef"]), 0, 1, 0) == b"abcdef"


def test_as_many_fragments_as_frames_are_one_each():
    assert encapsulated_frame(value([], [b"ab", b"cd", b"ef"]), 0, 3, 1) == b"cd"


def test_frames_without_a_table_end_with_their_marker():
    fragments = [b"a1", b"a2\xff\xd9", b"b1", b"b2", b"b3\xff\xd9\0\0"]
    assert encapsulated_frame(value([], fragments), 0, 2, 0) == b"a1a2\xff\xd9"
    assert encapsulated_frame(value([], fragments), 0, 2, 1) == b"b1b2b3\xff\xd9\0\0"


def test_bytes_that_look_like_images_or_ends_inside_a_frame_change_nothing():
    tricky = b"\xff\xd8\xff\xc3" + SEQUENCE_END + b"\xff\xd9\xff\xd8"
    assert (
        encapsulated_frame(value([], [tricky, b"\xff\xd8\xff\xd9"]), 0, 1, 0) == tricky + b"\xff\xd8\xff\xd9"
    )


def test_ten_thousand_fragments_are_joined():
    fragments = [bytes([n % 256, n // 256]) for n in range(10_000)]
    assert encapsulated_frame(value([], fragments), 0, 1, 0) == b"".join(fragments)


@pytest.mark.parametrize("table", [[4], [0, 5], [10, 0], [0, 999_999]])
def test_a_wrong_table_does_no_harm_to_a_single_frame(table):
    assert encapsulated_frame(value(table, [b"ab", b"cd"]), 0, 1, 0) == b"abcd"


@pytest.mark.parametrize("table", [[0, 4, 20], [10, 0, 20], [0, 0, 10], [0, 10], [0, 10, 999]])
def test_a_wrong_table_of_several_frames_is_refused(table):
    assert refusal(value(table, [b"ab", b"cd", b"ef"]), 3, 0) == "invalid_encapsulation"


def test_a_missing_delimiter_at_the_end_of_the_file_is_tolerated():
    assert encapsulated_frame(value([0], [b"ab"], end=b""), 0, 1, 0) == b"ab"
    assert encapsulated_frame(value([0], [b"ab"], end=SEQUENCE_END[:5]), 0, 1, 0) == b"ab"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        SEQUENCE_END,
        value([], []),
        value([], [b"abcd"], end=b"")[:-1],
        item(b"") + item(b"ab", 0xFFFFFFFF) + SEQUENCE_END,
        item(b"") + b"not an item tag" + SEQUENCE_END,
        item(b"", 2_000_000_000),
    ],
    ids=["nothing", "end only", "no fragment", "cut", "undefined length", "no item", "table beyond the file"],
)
def test_broken_structure_is_refused(data):
    assert refusal(data, 1, 0) == "invalid_encapsulation"


def test_fewer_fragments_than_frames_are_refused():
    assert refusal(value([], [b"ab"]), 2, 1) == "invalid_encapsulation"


@pytest.mark.parametrize(
    "table",
    [OffsetTable((0,), (2,)), OffsetTable((0, 3), (2, 2)), OffsetTable((0, 10), (2, 99)),
     OffsetTable((0, 1 << 60), (2, 2)), OffsetTable((0, 10), (2, 0))],
)  # fmt: skip
def test_a_wrong_extended_table_is_refused(table):
    assert refusal(value([], [b"ab", b"cd"]), 2, 1, table) == "invalid_encapsulation"


def test_a_wrong_extended_table_does_no_harm_to_a_single_frame():
    assert encapsulated_frame(value([], [b"ab", b"cd"]), 0, 1, 0, OffsetTable((4,), (2,))) == b"abcd"


def test_an_extended_table_takes_the_padding_off():
    assert encapsulated_frame(value([], [b"abc\0"]), 0, 1, 0, OffsetTable((0,), (3,))) == b"abc"


def test_fragments_are_listed_with_their_places():
    table, fragments = read_fragments(b"xx" + value([0, 10], [b"ab", b"cdef"]), 2)
    assert table == (0, 10)
    assert [f.end - f.start for f in fragments] == [2, 4]
