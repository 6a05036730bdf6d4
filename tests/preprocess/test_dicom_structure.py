"""Sequences, limits, truncation: the walk over a data set's structure."""

from __future__ import annotations

import pytest

from preprocess.config import ResultConfig
from preprocess.dicom import scan
from preprocess.errors import RejectedInput
from preprocess.records import SourceFile
from tests.preprocess.dicom_maker import (
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    element,
    elements_bytes,
    file_of,
    image,
    image_file,
    item,
    parsed,
    rejection,
    source_of,
    text,
    us,
)

PRIVATE = 0x00091010


def nested(depth: int, *, undefined: bool = False, implicit: bool = False, vr: str = "SQ") -> bytes:
    """`depth` sequences in each other."""
    inner = element(0x00080060, text("CS", "MG"), implicit=implicit)
    for _ in range(depth):
        body = item(inner + ITEM_END, UNDEFINED) + SEQUENCE_END if undefined else item(inner)
        inner = element(PRIVATE, (vr, body), implicit=implicit, length=UNDEFINED if undefined else None)
    return inner


def with_private(value: bytes, *, implicit: bool = False) -> bytes:
    elements = image()
    first = elements_bytes({t: v for t, v in elements.items() if t < PRIVATE}, implicit=implicit)
    last = elements_bytes({t: v for t, v in elements.items() if t > PRIVATE}, implicit=implicit)
    return file_of(first + value + last, IMPLICIT if implicit else EXPLICIT)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
def test_nesting_is_allowed_to_the_limit_and_not_beyond(tmp_path, undefined, implicit):
    def data(depth: int) -> bytes:
        return with_private(nested(depth, undefined=undefined, implicit=implicit), implicit=implicit)

    config = ResultConfig(max_sequence_depth=32)
    assert parsed(tmp_path, data(32), config).image.rows == 4
    assert rejection(tmp_path, data(33), config) == "sequence_too_deep"


def test_absurd_nesting_does_not_recurse(tmp_path):
    assert rejection(tmp_path, with_private(nested(3_000, undefined=True))) == "sequence_too_deep"


def test_many_items_are_walked(tmp_path):
    one = item(elements_bytes({0x00080060: text("CS", "MG")}))
    data = with_private(element(PRIVATE, ("SQ", one * 5_000)))
    assert parsed(tmp_path, data).sop_instance_uid == "1.2.3.4"


def test_unknown_of_undefined_length_holds_implicit_items(tmp_path):
    data = with_private(
        nested(1, undefined=True, implicit=True).replace(b"\xff" * 4, b"UN\0\0" + b"\xff" * 4, 1)
    )
    assert parsed(tmp_path, data).image.columns == 6


def test_missing_item_delimiter_is_tolerated(tmp_path):
    body = item(element(0x00080060, text("CS", "MG")), UNDEFINED) + SEQUENCE_END
    assert parsed(tmp_path, with_private(element(PRIVATE, ("SQ", body), length=UNDEFINED))).image.rows == 4


def test_nonsense_inside_a_sequence_of_known_length_is_passed_over(tmp_path):
    data = with_private(element(PRIVATE, ("SQ", b"\1\2\3\4" * 10)))
    assert parsed(tmp_path, data).image.rows == 4


def test_a_length_that_lies_inside_an_item_stays_inside(tmp_path):
    lie = element(0x00283002, ("US", b"\1\0"), length=0xFFFF)
    assert parsed(tmp_path, with_private(element(PRIVATE, ("SQ", item(lie))))).image.rows == 4


def test_encapsulated_icons_are_passed_over(tmp_path):
    icon = element(0x7FE00010, ("OB", item(b"") + item(b"\xfe\xff\xdd\xe0 not an end ") + SEQUENCE_END),
                   length=UNDEFINED)  # fmt: skip
    body = element(0x00880200, ("SQ", item(icon)))
    elements = elements_bytes({t: v for t, v in image().items() if t < 0x00880200})
    pixels = elements_bytes({0x7FE00010: image()[0x7FE00010]})
    assert len(parsed(tmp_path, file_of(elements + body + pixels)).payload) == 48


@pytest.mark.parametrize("cut", [150, 301, 371])
def test_a_file_that_ends_in_its_header_is_corrupt(tmp_path, cut):
    assert rejection(tmp_path, image_file()[:cut]) == "corrupt_header"


def test_a_header_longer_than_the_first_read_is_read(tmp_path):
    long = element(PRIVATE, ("OB", b"\1" * 3_000_000))
    assert parsed(tmp_path, with_private(long)).image.rows == 4


def test_after_pixel_data_come_higher_elements_or_zeros_and_nothing_else(tmp_path):
    signatures = element(0xFFFAFFFA, ("SQ", b""))
    for tail in (b"\0" * 7, b"\0" * 4096, signatures, element(0xFFFCFFFC, ("OB", b"\1" * 10))):
        assert len(parsed(tmp_path, image_file() + tail).payload) == 48
    for tail in (b"\1", b"garbage", element(0x00280010, ("US", b"\1\0")), b"\0" * 100 + b"\1"):
        assert rejection(tmp_path, image_file() + tail) == "pixel_data_length"


def test_zeros_after_the_last_element_are_no_elements(tmp_path):
    data = image_file({0x7FE00010: None}) + b"\0" * 1_000_000
    assert rejection(tmp_path, data) == "no_pixel_data"


def test_scan_does_not_read_pixels(tmp_path, monkeypatch):
    from preprocess import dicom

    pixels = ("OW", b"\0\0" * (2000 * 1000))
    source = source_of(tmp_path, image_file({0x00280010: us(2000), 0x00280011: us(1000), 0x7FE00010: pixels}))
    read: list[int] = []
    real = dicom.read_prefix

    def counting(source: SourceFile, limit: int, wanted: int) -> tuple[bytes, int]:
        data, size = real(source, limit, wanted)
        read.append(len(data))
        return data, size

    monkeypatch.setattr(dicom, "read_prefix", counting)
    assert scan(source, ResultConfig()).identity.image_id == "1.2.3.4"
    assert read == [1 << 16]


def test_scan_sees_that_native_pixels_are_cut_off(tmp_path):
    pixels = ("OW", b"\0\0" * (200 * 400))
    whole = image_file({0x00280010: us(200), 0x00280011: us(400), 0x7FE00010: pixels})
    with pytest.raises(RejectedInput) as caught:
        scan(source_of(tmp_path, whole[:-2]), ResultConfig())
    assert caught.value.code == "pixel_data_length"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_nested_sequences_are_values_in_both_encodings(tmp_path, syntax):
    def sequence(tag: int, elements: bytes) -> bytes:
        return element(tag, ("SQ", item(elements)), implicit=syntax == IMPLICIT)

    window = {0x00281050: text("DS", "40"), 0x00281051: text("DS", "80")}
    groups = sequence(0x52009229, sequence(0x00289132, elements_bytes(window, implicit=syntax == IMPLICIT)))
    elements = image()
    pixels = {0x7FE00010: elements.pop(0x7FE00010)}
    header, end = (elements_bytes(part, implicit=syntax == IMPLICIT) for part in (elements, pixels))
    (found,) = parsed(tmp_path, file_of(header + groups + end, syntax)).voi.windows
    assert (found.center, found.width) == (40, 80)
