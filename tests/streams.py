"""Codestreams for tests: JPEG 2000 headers written by hand, and small images encoded by imagecodecs."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
from PIL import Image

from preprocess.codestream import read_facts, repair
from preprocess.errors import RejectedInput
from preprocess.records import Compression

J2K, HT, LL, JPEG, LS = (
    Compression.JPEG_2000,
    Compression.HTJ2K,
    Compression.JPEG_LOSSLESS,
    Compression.JPEG,
    Compression.JPEG_LS,
)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">HH", marker, len(body) + 2) + body


def siz(columns: int = 40, rows: int = 30, **changes: int) -> bytes:
    of = {
        "x0": 0,
        "y0": 0,
        "tx": columns,
        "ty": rows,
        "tx0": 0,
        "ty0": 0,
        "ssiz": 11,
        "dx": 1,
        "n": 1,
    } | changes
    names = ("x0", "y0", "tx", "ty", "tx0", "ty0")
    body = struct.pack(">H8I", 0, columns, rows, *(of[name] for name in names))
    return segment(0xFF51, body + struct.pack(">H", of["n"]) + bytes([of["ssiz"], of["dx"], 1]) * of["n"])


def cod(levels: int = 5, transform: int = 1, layers: int = 1, progression: int = 0) -> bytes:
    return segment(0xFF52, struct.pack(">BBHB5B", 0, progression, layers, 0, levels, 4, 4, 0, transform))


def coc(levels: int, transform: int, component: int = 0) -> bytes:
    return segment(0xFF53, bytes([component, 0, levels, 4, 4, 0, transform]))


def part(
    data: bytes = b"\x01\x02", *, tile: int = 0, index: int = 0, parts: int = 1, head: bytes = b""
) -> bytes:
    length = 12 + len(head) + 2 + len(data)
    return struct.pack(">HHHIBB", 0xFF90, 10, tile, length, index, parts) + head + b"\xff\x93" + data


def stream(*segments: bytes, parts: bytes = b"", eoc: bytes = b"\xff\xd9") -> bytes:
    return b"\xff\x4f" + b"".join(segments) + (parts or part()) + eoc


def encoded(compression: Compression, pixels: np.ndarray, bits: int) -> bytes:
    if compression is J2K:
        return imagecodecs.jpeg2k_encode(
            pixels, level=0, codecformat="j2k", bitspersample=bits, reversible=True
        )
    if compression is HT:
        return imagecodecs.htj2k_encode(pixels, reversible=True)
    if compression is LS:
        return imagecodecs.jpegls_encode(pixels)
    if compression is LL:
        return imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=bits)
    return imagecodecs.jpeg8_encode(pixels, level=95, bitspersample=bits)


DAMAGE = ("codestream_invalid", "codestream_mismatch", "codestream_truncated", "unsupported_codestream")


def pillow_j2k(pixels: np.ndarray, **options: object) -> bytes:
    """A bare codestream, lossless unless asked otherwise, by Pillow's OpenJPEG."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG2000", no_jp2=True, **{"irreversible": False, **options})
    return data.getvalue()


def repaired_or_code(payload: bytes, compression: Compression) -> bytes | str:
    try:
        return repair(payload, read_facts(payload, compression))
    except RejectedInput as reject:
        return reject.code
