"""Where a data set lies in its file: preambles, file meta, encodings, deflate."""

from __future__ import annotations

import struct
import zlib

import pytest
from pydicom.data import get_testdata_file

from preprocess._container import open_container
from preprocess.config import ResultConfig
from preprocess.dicom import looks_like_dicom
from tests.preprocess.dicom_maker import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    element,
    elements_bytes,
    file_of,
    image,
    image_file,
    meta,
    parsed,
    rejection,
    text,
)

BODY = elements_bytes(image())


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    "data",
    [
        file_of(BODY),
        file_of(BODY, preamble=b"II*\0" * 32),
        file_of(BODY, preamble=b"\0" * 127),
        file_of(BODY, preamble=b""),
        b"DICM" + b"\0" * 500 + meta(EXPLICIT) + BODY,
        meta(EXPLICIT) + BODY,
        BODY,
        elements_bytes(image(), implicit=True),
        file_of(BODY, syntax=None),
        file_of(elements_bytes(image(), implicit=True), syntax=None),
        file_of(elements_bytes(image(), implicit=True), EXPLICIT),
        file_of(BODY, IMPLICIT),
        file_of(deflated(BODY), DEFLATED),
    ],
    ids=[
        "usual", "tiff preamble", "preamble of 127", "no preamble", "DICM at 0, meta at 504", "meta only",
        "explicit data set only", "implicit data set only", "no transfer syntax, explicit",
        "no transfer syntax, implicit", "declares explicit, is implicit", "declares implicit, is explicit",
        "deflated",
    ],
)  # fmt: skip
def test_a_data_set_is_found_however_the_file_begins(tmp_path, data):
    instance = parsed(tmp_path, data)
    assert (instance.image.rows, instance.image.columns) == (4, 6)
    assert instance.payload == struct.pack("<24H", *range(24))
    assert looks_like_dicom(data[:1024]) or data.startswith(b"DICM")


def test_group_length_is_not_believed(tmp_path):
    good = image_file()
    for lie in (0, 1, 10_000_000):
        data = good[:132] + element(0x00020000, ("UL", struct.pack("<I", lie))) + good[144:]
        assert parsed(tmp_path, data).sop_instance_uid == "1.2.3.4"


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "ExplVR_BigEnd.dcm", "MR_small_implicit.dcm"])
def test_real_encodings_look_like_dicom_without_their_meta(name):
    with open(get_testdata_file(name, download=False), "rb") as stream:
        data = stream.read()
    assert looks_like_dicom(data[:1024])
    start = open_container(data, ResultConfig(), whole=True).start
    assert looks_like_dicom(data[start : start + 1024])


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 2000, b"\x89PNG\r\n\x1a\n" + b"\0" * 200, b"site_id,patient_id\n" * 40, b"PK\x03\x04" * 60,
     b"\xff\xd8\xff\xe0\0\x10JFIF" * 30, bytes(range(256)) * 8],
    ids=["empty", "zeros", "png", "csv", "zip", "jpeg", "ramp"],
)  # fmt: skip
def test_other_content_is_not_dicom(tmp_path, data):
    assert not looks_like_dicom(data)
    assert rejection(tmp_path, data) == "not_dicom"


def test_meta_that_runs_over_the_end_is_corrupt(tmp_path):
    data = b"\0" * 128 + b"DICM" + element(0x00020001, ("OB", b"\0\1"), length=10_000)
    assert rejection(tmp_path, data) == "corrupt_header"


def test_inflation_stops_at_the_byte_limit(tmp_path):
    bomb = file_of(deflated(BODY + b"\0" * 50_000_000), DEFLATED)
    config = ResultConfig(max_inflate_bytes=2_000_000, max_inflate_ratio=10_000_000)
    assert rejection(tmp_path, bomb, config) == "inflate_limit"


def test_inflation_stops_at_the_ratio_limit(tmp_path):
    bomb = file_of(deflated(BODY + b"\0" * 50_000_000), DEFLATED)
    assert rejection(tmp_path, bomb, ResultConfig(max_inflate_ratio=100)) == "inflate_limit"


def test_deflated_data_that_end_early_are_corrupt(tmp_path):
    whole = deflated(BODY + bytes(range(256)) * 20)
    assert rejection(tmp_path, file_of(whole[:-20], DEFLATED)) == "corrupt_header"
    assert rejection(tmp_path, file_of(b"\xff" * 100, DEFLATED)) == "corrupt_header"


def test_an_element_without_vr_in_an_explicit_data_set_is_read(tmp_path):
    elements = image()
    body = b"".join(
        element(tag, value, implicit=tag == 0x00280010) for tag, value in sorted(elements.items()) if value
    )
    assert parsed(tmp_path, file_of(body)).image.rows == 4


def test_big_endian_payload_is_left_big_endian_for_16_bits(tmp_path):
    with open(get_testdata_file("MR_small_bigendian.dcm", download=False), "rb") as stream:
        data = stream.read()
    with open(get_testdata_file("MR_small.dcm", download=False), "rb") as stream:
        little = parsed(tmp_path, stream.read())
    big = parsed(tmp_path, data)
    assert big.image.transfer_syntax_uid == BIG
    assert struct.unpack(">4096H", big.payload) == struct.unpack("<4096H", little.payload)
    assert big.voi == little.voi
    assert big.padding == little.padding


def test_a_header_of_another_byte_order_than_declared_is_swapped_for_the_decoder(tmp_path):
    with open(get_testdata_file("MR_small_bigendian.dcm", download=False), "rb") as stream:
        data = stream.read()
    lying = data.replace(b"1.2.840.10008.1.2.2\0", b"1.2.840.10008.1.2.1\0")
    assert struct.unpack("<4096H", parsed(tmp_path, lying).payload) == struct.unpack(
        ">4096H", parsed(tmp_path, data).payload
    )


def test_bytes_in_big_endian_words_change_places(tmp_path):
    def big(tag: int, vr: bytes, value: bytes) -> bytes:
        length = struct.pack(">xxI" if vr == b"OW" else ">H", len(value))
        return struct.pack(">HH", tag >> 16, tag & 0xFFFF) + vr + length + value

    numbers = {0x00280002: 1, 0x00280010: 1, 0x00280011: 3, 0x00280100: 8, 0x00280101: 8, 0x00280102: 7}
    body = big(0x00080060, b"CS", b"MG") + big(0x00280004, b"CS", b"MONOCHROME2 ")
    body += b"".join(big(tag, b"US", struct.pack(">H", number)) for tag, number in numbers.items())
    body += big(0x7FE00010, b"OW", b"\x02\x01\x00\x03")
    assert parsed(tmp_path, file_of(body, BIG)).payload == b"\x01\x02\x03"


def test_private_text_never_reaches_a_message(tmp_path):
    data = image_file({0x00100010: text("PN", "SECRET^NAME"), 0x00280100: text("CS", "SECRET")})
    with pytest.raises(Exception, match="absent, empty or not a number") as caught:
        parsed(tmp_path, data)
    assert "SECRET" not in str(caught.value)
