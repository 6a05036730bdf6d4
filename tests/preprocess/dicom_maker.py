"""DICOM files built element by element, so that a test can break any byte of them.

pydicom would refuse to write most of what is needed here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from preprocess.config import ResultConfig
from preprocess.dicom import parse, scan
from preprocess.errors import RejectedInput
from preprocess.records import Identity, Instance, SourceFile

EXPLICIT, IMPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
)  # fmt: skip
LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT"}
UNDEFINED = 0xFFFFFFFF
ROWS, COLUMNS = 4, 6

Value = tuple[str, bytes]
Elements = dict[int, Value | None]


def us(*numbers: int) -> Value:
    return "US", struct.pack(f"<{len(numbers)}H", *numbers)


def ss(*numbers: int) -> Value:
    return "SS", struct.pack(f"<{len(numbers)}h", *numbers)


def text(vr: str, value: str) -> Value:
    raw = value.encode()
    return vr, raw + (b"\0" if vr == "UI" else b" ") * (len(raw) % 2)


def sq(*items: Elements) -> Value:
    """A sequence of defined length."""
    return "SQ", b"".join(item(elements_bytes(elements)) for elements in items)


def item(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def element(tag: int, value: Value, *, implicit: bool = False, length: int | None = None) -> bytes:
    vr, raw = value
    size = len(raw) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<I", size) + raw
    if vr in LONG:
        return head + vr.encode() + b"\0\0" + struct.pack("<I", size) + raw
    return head + vr.encode() + struct.pack("<H", size) + raw


def elements_bytes(elements: Mapping[int, Value | None], *, implicit: bool = False) -> bytes:
    return b"".join(
        element(tag, value, implicit=implicit) for tag, value in sorted(elements.items()) if value is not None
    )


def image(changes: Elements | None = None) -> Elements:
    """A small valid grayscale image; None in `changes` removes an element."""
    pixels = struct.pack(f"<{ROWS * COLUMNS}H", *range(ROWS * COLUMNS))
    return {
        0x00080016: text("UI", "1.2.840.10008.5.1.4.1.1.1.2"),
        0x00080018: text("UI", "1.2.3.4"),
        0x00100020: text("LO", "p1"),
        0x0020000D: text("UI", "1.2.3"),
        0x00280002: us(1),
        0x00280004: text("CS", "MONOCHROME2"),
        0x00280010: us(ROWS),
        0x00280011: us(COLUMNS),
        0x00280100: us(16),
        0x00280101: us(12),
        0x00280102: us(11),
        0x00280103: us(0),
        0x7FE00010: ("OW", pixels),
    } | (changes or {})


def meta(syntax: str | None) -> bytes:
    elements: Elements = {0x00020002: text("UI", "1.2.840.10008.5.1.4.1.1.1.2")}
    if syntax is not None:
        elements[0x00020010] = text("UI", syntax)
    body = elements_bytes(elements)
    return element(0x00020000, ("UL", struct.pack("<I", len(body)))) + body


def file_of(data_set: bytes, syntax: str | None = EXPLICIT, preamble: bytes = b"\0" * 128) -> bytes:
    return preamble + b"DICM" + meta(syntax) + data_set


def image_file(changes: Elements | None = None, syntax: str | None = EXPLICIT) -> bytes:
    return file_of(elements_bytes(image(changes), implicit=syntax == IMPLICIT), syntax)


def encapsulated(table: Iterable[int], fragments: Iterable[bytes], *, end: bytes = SEQUENCE_END) -> bytes:
    """The Pixel Data element of undefined length."""
    body = item(b"".join(struct.pack("<I", offset) for offset in table))
    body += b"".join(item(fragment) for fragment in fragments) + end
    return element(0x7FE00010, ("OB", body), length=UNDEFINED)


def source_of(path: Path, data: bytes, identity: Identity | None = None) -> SourceFile:
    path = path / "x.dcm"
    path.write_bytes(data)
    return SourceFile("x.dcm", str(path), identity=identity or Identity())


def parsed(path: Path, data: bytes, config: ResultConfig | None = None) -> Instance:
    """Parse, and let `scan` agree."""
    source = source_of(path, data)
    config = config or ResultConfig()
    instance = parse(source, config)
    scanned = scan(source, config)
    assert (scanned.identity, scanned.file_bytes) == (instance.identity, len(data))
    return instance


def rejection(path: Path, data: bytes, config: ResultConfig | None = None) -> str:
    """The code that `parse` rejects with; `scan` must say the same, or accept if the fault is the frame's."""
    source = source_of(path, data)
    config = config or ResultConfig()
    code, early = code_of(parse, source, config), code_of(scan, source, config)
    assert code is not None
    assert early in (code, None)
    return code


def code_of(function, source: SourceFile, config: ResultConfig) -> str | None:
    try:
        function(source, config)
    except RejectedInput as rejected:
        return rejected.code
    return None
