"""DICOM files full of canaries, and a search for them in every byte that a run leaves behind.

A canary is `QXKZV` and a number: one for each element, so that a find names its origin. It stands in every
text-valued public element of the dictionary (names, dates, free text, …), in private ones, nested sequences,
file meta information, overlays, ICC profile, preamble, trailing padding and codestream comments. What the
allow-list keeps has marks of its own.
"""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from urllib.parse import unquote_to_bytes

import imagecodecs
import numpy as np
import pyarrow.parquet as pq
from pydicom.datadict import DicomDictionary

from tests.preprocess.dicom_maker import (
    EXPLICIT,
    IMPLICIT,
    Elements,
    element,
    elements_bytes,
    encapsulated,
    meta,
    sq,
    text,
    us,
)

MARK = b"QXKZV"
"""Must be nowhere."""
KEPT = {"id": "KEEPXID", "maker": "KEEPXMAKER", "model": "KEEPXMODEL"}
"""What the allow-list keeps: PatientID (not under hash), maker and model."""
UID = "1.2.826.0.1.3680043.8.4242"
"""Begins all UIDs: kept, but not under hash."""
HASHED = tuple(mark.encode() for mark in (KEPT["id"], UID, "KEEPXPATH"))
"""Must be nowhere under --identifiers hash."""

_TEXT = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
_BYTES = {"OB", "OW", "UN"}
ROWS, COLUMNS = 96, 64
J2K, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.70"


def canary(number: int) -> str:
    return f"{MARK.decode()}{number:04d}"


def _public() -> Elements:
    """A canary in every text or opaque element of the dictionary, and one inside every sequence."""
    made: Elements = {}
    for number, (tag, entry) in enumerate(sorted(DicomDictionary.items())):
        vr = entry[0].split(" or ")[0]
        if tag >> 16 in (0x0000, 0x0002, 0x0004, 0x7FE0, 0xFFFE) or (tag >> 16) % 2:
            continue
        word = canary(number)
        if vr in _TEXT:
            made[tag] = text(vr, f"{word}^JANE^^DR" if vr == "PN" else word)
        elif vr in _BYTES:
            made[tag] = (vr, word.encode() + b" ")
        elif vr == "SQ" and tag >> 16 != 0x5200:
            made[tag] = sq({0x00100010: text("PN", f"{word}^NESTED"), 0x00204000: text("LT", word)})
    return made


def _own() -> Elements:
    """Private elements, overlay, and what an image needs."""
    rng = np.random.default_rng(1)
    pixels = (rng.integers(100, 200, (ROWS, COLUMNS)) + _disc() * 3000).astype("<u2")
    return {
        0x00080005: text("CS", "ISO_IR 192"),
        0x00080016: text("UI", "1.2.840.10008.5.1.4.1.1.1.2"),
        0x00080060: text("CS", "MG"),
        0x00080070: text("LO", KEPT["maker"]),
        0x00081090: text("LO", KEPT["model"]),
        0x00090010: text("LO", canary(9001)),
        0x00091001: text("LO", canary(9002)),
        0x00091002: ("UN", canary(9003).encode() + b" "),
        0x00191001: sq({0x00191002: text("PN", canary(9004) + "^PRIVATE")}),
        0x00280002: us(1),
        0x00280004: text("CS", "MONOCHROME2"),
        0x00280008: text("IS", "1"),
        0x00280010: us(ROWS),
        0x00280011: us(COLUMNS),
        0x00280100: us(16),
        0x00280101: us(12),
        0x00280102: us(11),
        0x00280103: us(0),
        0x00281050: text("DS", "2048"),
        0x00281051: text("DS", "4096"),
        0x00281052: text("DS", "0"),
        0x00281053: text("DS", "1"),
        0x00283000: None,
        0x00283010: sq(
            {0x00283002: us(4096, 0, 12), 0x00283003: text("LO", canary(9005)), 0x00283006: us(*range(4096))}
        ),
        0x60001500: text("LO", canary(9006)),
        0x60000022: text("LO", canary(9007)),
        0x7FE00010: ("OW", pixels.tobytes()),
        0xFFFCFFFC: ("OB", canary(9008).encode() + b" "),
    }


def _disc() -> np.ndarray:
    row, column = np.mgrid[:ROWS, :COLUMNS]
    return (row - 48) ** 2 / 35**2 + column**2 / 40**2 < 1


@dataclass
class Patient:
    """Ids of one file."""

    patient: str
    image: int
    changes: Elements = field(default_factory=dict)

    def elements(self) -> Elements:
        ids: Elements = {
            0x00080018: text("UI", f"{UID}.1.{self.image}"),
            0x00100020: text("LO", f"{KEPT['id']}{self.patient}"),
            0x0020000D: text("UI", f"{UID}.2.{self.patient}"),
            0x0020000E: text("UI", f"{UID}.3.{self.patient}"),
        }
        return _public() | _own() | ids | self.changes


def file(who: Patient, syntax: str = EXPLICIT, payload: bytes | None = None) -> bytes:
    """A whole file with canaries in preamble, meta information, data set; `payload`: a compressed frame."""
    elements = who.elements()
    if payload is not None:
        elements |= {0x7FE00010: None, 0xFFFCFFFC: None}
    body = elements_bytes(elements, implicit=syntax == IMPLICIT)
    if payload is not None:
        body += encapsulated([], [payload + b"\0" * (len(payload) % 2)])
    if syntax.endswith(".1.99"):
        packer = zlib.compressobj(wbits=-15)
        body = packer.compress(body) + packer.flush()
    preamble = canary(9100).encode().ljust(128, b"\0")
    more: Elements = {
        0x00020003: text("UI", f"{UID}.1.{who.image}"),
        0x00020013: text("SH", canary(9101)),
        0x00020016: text("AE", canary(9102)),
        0x00020017: text("AE", canary(9103)),
        0x00020018: text("AE", canary(9104)),
        0x00020100: text("UI", "1.2.3"),
        0x00020102: ("OB", canary(9105).encode() + b" "),
    }
    head = meta(syntax)[12:] + elements_bytes(more)
    group_length = element(0x00020000, ("UL", struct.pack("<I", len(head))))
    return preamble + b"DICM" + group_length + head + body


def jpeg_2000() -> bytes:
    """A codestream with a canary in a COM marker after SIZ."""
    stream = bytes(imagecodecs.jpeg2k_encode(_picture(), level=0, codecformat="j2k", reversible=True))
    after = 4 + struct.unpack(">H", stream[4:6])[0]
    comment = canary(9200).encode()
    return stream[:after] + struct.pack(">HHH", 0xFF64, 4 + len(comment), 1) + comment + stream[after:]


def jpeg_lossless() -> bytes:
    """A stream with a canary in a COM segment."""
    stream = bytes(imagecodecs.jpeg8_encode(_picture(), lossless=True, predictor=1, bitspersample=12))
    comment = canary(9201).encode()
    return stream[:2] + struct.pack(">HH", 0xFFFE, 2 + len(comment)) + comment + stream[2:]


def _picture() -> np.ndarray:
    return (np.random.default_rng(2).integers(100, 200, (ROWS, COLUMNS)) + _disc() * 3000).astype(np.uint16)


# --- the search ---


def find(data: bytes, marks: tuple[bytes, ...]) -> list[str]:
    """Marks in any of the ways in which text is written: any case, UTF-16, escaped, encoded, compressed."""
    found = []
    for view in _views(data):
        lower = view.lower()
        for mark in marks:
            found += [f"base64: {encoded!r}" for encoded in _base64(mark) if encoded in view]
            for kind, pattern in _spellings(mark):
                if (at := lower.find(pattern)) >= 0:
                    found.append(f"{kind}: {lower[max(0, at - 40) : at + 60]!r}")
    return found


def _spellings(mark: bytes) -> Iterator[tuple[str, bytes]]:
    plain = mark.lower()
    yield "plain", plain
    yield "UTF-16", b"\0".join(bytes([c]) for c in plain)
    yield "hexadecimal", plain.hex().encode()
    yield "upper hexadecimal", mark.upper().hex().encode()


def _base64(mark: bytes) -> Iterator[bytes]:
    """The characters that depend on the mark alone, at each place in a group of three bytes."""
    for shift in range(3):
        first, last = -(-8 * shift // 6), 8 * (shift + len(mark)) // 6
        yield base64.b64encode(b"\0" * shift + mark)[first:last]


def _views(data: bytes) -> Iterator[bytes]:
    """The bytes themselves, and what is packed in them."""
    yield data
    if b"%" in data:
        yield unquote_to_bytes(data)
    if b"\\u" in data or b"\\x" in data:
        yield re.sub(rb"\\(?:u00|x)([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), data)
    if b"&#" in data:
        yield unescape(data.decode("utf-8", "replace")).encode()
    for packed in re.findall(rb"data:image/png;base64,([A-Za-z0-9+/=]+)", data):
        yield from _png(base64.b64decode(packed))
    for start in re.finditer(rb"\x89PNG\r\n\x1a\n", data):
        yield from _png(data[start.start() :])


def _png(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        if kind == b"IDAT":
            yield zlib.decompressobj().decompress(body)
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            yield body
            for cut in range(len(body)):
                if body[cut : cut + 1] == b"\x78":
                    try:
                        yield zlib.decompress(body[cut:])
                    except zlib.error:
                        continue
        elif kind == b"IEND":
            return
        at += 12 + size


def leaks(folder: Path, marks: tuple[bytes, ...]) -> list[str]:
    """Finds in every name and every byte below a folder, Parquet decoded."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found += [f"name {name}: {hit}" for hit in find(name.encode("utf-8", "surrogateescape"), marks)]
        if not path.is_file():
            continue
        found += [f"{name}: {hit}" for hit in find(path.read_bytes(), marks)]
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as table:
                values = (
                    repr(table.read().to_pylist()) + repr(table.metadata) + repr(table.schema_arrow.metadata)
                )
            found += [f"{name} decoded: {hit}" for hit in find(values.encode("utf-8", "replace"), marks)]
    return found


__all__ = [
    "HASHED", "IMPLICIT", "J2K", "JPEG_LOSSLESS", "KEPT", "MARK", "Patient", "canary", "file", "find",
    "jpeg_2000", "jpeg_lossless", "leaks",
]  # fmt: skip
