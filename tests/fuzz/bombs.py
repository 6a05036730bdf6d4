"""Small files that claim to be huge. Each is built here, and none may cost 2 GB or its time limit."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np

from bench.phantom_dicom import SYNTAXES, DicomSpec, dicom_bytes
from tests.preprocess.dicom_maker import (
    COLUMNS,
    DEFLATED,
    Elements,
    elements_bytes,
    encapsulated,
    file_of,
    image,
    image_file,
    sq,
    text,
    us,
)
from tests.streams import cod, part, segment, siz, stream

_QCD = segment(0xFF5C, bytes([0x40]) + bytes([0x48]) * 16)
_ROWS, _COLUMNS = 0x00280010, 0x00280011
J2K, HTJ2K, LL = SYNTAXES["jpeg-2000"], SYNTAXES["htj2k"], SYNTAXES["jpeg-lossless-sv1"]


def _codestream(rows: int, columns: int, components: int = 1, tile: int | None = None) -> bytes:
    size = siz(columns, rows, ssiz=15, n=components, tx=tile or columns, ty=tile or rows)
    return stream(size, cod(), _QCD, parts=part(b"\0" * 6))


def _wrapped(frame: bytes, rows: int, columns: int, syntax: str = J2K, more: Elements | None = None) -> bytes:
    elements = image({_ROWS: us(rows), _COLUMNS: us(columns), 0x7FE00010: None} | (more or {}))
    return file_of(elements_bytes(elements) + encapsulated([], [frame]), syntax)


def huge_header() -> bytes:
    """30,000 × 30,000 in a few hundred bytes, codestream and header agreeing."""
    return _wrapped(_codestream(30_000, 30_000), 30_000, 30_000)


def huge_codestream() -> bytes:
    """A small header around a codestream that claims 30,000 × 30,000."""
    return _wrapped(_codestream(30_000, 30_000), 64, 64)


def wide_codestream() -> bytes:
    """2,097,304 × 203 × 3 samples."""
    return _wrapped(_codestream(203, 2_097_304, 3), 203, 60_000)


def largest_allowed() -> bytes:
    """10,000 × 10,000, the largest that is allowed, and nothing in it."""
    return _wrapped(_codestream(10_000, 10_000), 10_000, 10_000)


def largest_allowed_htj2k() -> bytes:
    """The same, for HTJ2K."""
    return _wrapped(_codestream(10_000, 10_000), 10_000, 10_000, HTJ2K)


def many_tiles() -> bytes:
    """65,535 tiles claimed, one there."""
    return _wrapped(_codestream(8_000, 8_000, tile=32), 8_000, 8_000)


def huge_lossless_jpeg() -> bytes:
    """10,000 × 10,000 in a scan of a few bytes."""
    from imagecodecs import jpeg8_encode

    small = np.arange(64, dtype=np.uint16).reshape(8, 8)
    frame = bytearray(jpeg8_encode(small, lossless=True, predictor=1, bitspersample=12))
    struct.pack_into(">HH", frame, frame.index(b"\xff\xc3") + 5, 10_000, 10_000)
    return _wrapped(bytes(frame), 10_000, 10_000, LL)


def huge_jpeg_ls() -> bytes:
    """10,000 × 10,000 in the runs of a few bytes."""
    from imagecodecs import jpegls_encode

    frame = bytearray(jpegls_encode(np.zeros((64, 64), np.uint16)))
    struct.pack_into(">HH", frame, frame.index(b"\xff\xf7") + 5, 10_000, 10_000)
    return _wrapped(bytes(frame), 10_000, 10_000, SYNTAXES["jpeg-ls"])


def rle_without_end() -> bytes:
    """Runs that unpack to sixty times the plane."""
    head = np.zeros(16, "<u4")
    head[:3] = 2, 64, 64 + 2_000_000
    return _wrapped(head.tobytes() + b"\x81\0" * 2_000_000, 2_000, 2_000, SYNTAXES["rle"])


def deflate_bomb() -> bytes:
    """300 KB that inflate to 300 MB; in the wild 941 KB were 2.8 GB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = elements_bytes(image({0x7FE00010: None}))
    block = packer.compress(head) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(300))
    return file_of(block + packer.flush(), DEFLATED)


def ten_thousand_frames() -> bytes:
    """10,000 frames declared, one there."""
    return image_file({0x00280008: text("IS", "10000")})


def many_fragments() -> bytes:
    """A frame in 300,000 empty fragments."""
    body = elements_bytes(image({0x7FE00010: None})) + encapsulated([], [b""] * 300_000)
    return file_of(body, J2K)


def deep_sequences() -> bytes:
    """Sequences in sequences, 100,000 levels of undefined length."""
    level = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return file_of(level * 100_000)


def wide_sequence() -> bytes:
    """A VOI LUT sequence of 5,000 items."""
    item = {0x00283002: us(0, 0, 16), 0x00283006: ("OW", b"\1\0")}
    return image_file({0x00283010: sq(*[item] * 5_000)})


def lut_of_65536() -> bytes:
    """A LUT that claims 65,536 entries and has one."""
    return image_file({0x00283010: sq({0x00283002: us(0, 0, 16), 0x00283006: ("OW", b"\1\0")})})


def window_of_a_million() -> bytes:
    """A value with 30,000 decimals among the windows."""
    return image_file({0x00281050: text("DS", "1" * 60_000), 0x00281051: text("DS", "9e999999999")})


def long_value() -> bytes:
    """An element that claims 4 GB."""
    return file_of(
        elements_bytes(image({0x7FE00010: None}))[:-COLUMNS] + b"\x10\x00\x10\x00UT\0\0\xfe\xff\xff\xff"
    )


def blank_native() -> bytes:
    """A megapixel of nothing, deflated to two kilobytes: beyond the ratio, though small."""
    pixels = np.zeros((1_000, 1_000), np.uint16)
    return dicom_bytes(pixels, DicomSpec(transfer_syntax_uid=SYNTAXES["deflated"]))


BOMBS: dict[str, tuple[Callable[[], bytes], frozenset[str]]] = {
    function.__name__: (function, frozenset(codes.split()))
    for function, codes in (
        (huge_header, "too_many_pixels"),
        (huge_codestream, "codestream_mismatch"),
        (wide_codestream, "color"),
        (largest_allowed, "blank_image"),
        (largest_allowed_htj2k, "blank_image decode_failed"),
        (many_tiles, "codestream_truncated"),
        (huge_lossless_jpeg, "decode_failed"),
        (huge_jpeg_ls, "decode_failed"),
        (rle_without_end, "decode_failed"),
        (deflate_bomb, "inflate_limit"),
        (ten_thousand_frames, "multi_frame pixel_data_length"),
        (many_fragments, "codestream_invalid"),
        (deep_sequences, "sequence_too_deep"),
        (wide_sequence, "invalid_voi prepared"),
        (lut_of_65536, "invalid_voi prepared"),
        (window_of_a_million, "invalid_voi prepared"),
        (long_value, "corrupt_header"),
        (blank_native, "blank_image inflate_limit"),
    )
}
"""Name → how to make it, and how it may end."""
