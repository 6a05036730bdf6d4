"""JPEG and JPEG-LS frames, read without decoding (ITU-T T.81 Annex B, T.87 Annex C).

In:  a frame's bytes.
Out: CodestreamFacts. Segments are walked by their lengths; entropy-coded data are only searched for markers.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from preprocess.errors import RejectedInput
from preprocess.records import CodestreamFacts, Compression

SOI, EOI, SOS, DRI, LSE, SOF2, SOF_LS = 0xD8, 0xD9, 0xDA, 0xDD, 0xF8, 0xC2, 0xF7
EOI_BYTES = b"\xff\xd9"

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_FAMILY = {
    Compression.JPEG: frozenset({0xC0, 0xC1, 0xC2}),
    Compression.JPEG_LOSSLESS: frozenset({0xC3}),
    Compression.JPEG_LS: frozenset({SOF_LS}),
}
_MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""In a scan FF00 is a stuffed byte, FFD0-7 are restarts, FFFF is fill (T.81 B.1.1)."""
_MARKER_IN_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
"""In a JPEG-LS scan a bit is stuffed after FF, so only FF80 and above are markers (T.87 A.1)."""
_ANY_MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xfe]")
_ANY_MARKER_IN_LS_SCAN = re.compile(rb"\xff[\x80-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_FILL = re.compile(rb"\xff+")
_MAX_SEGMENTS = 20_000


def _invalid(message: str) -> RejectedInput:
    return RejectedInput("codestream_invalid", message)


@dataclass(slots=True)
class _Walk:
    frame: int | None = None
    precision: int = 0
    rows: int = 0
    columns: int = 0
    components: int = 0
    subsampled: bool = False
    scans: int = 0
    restarts: bool = False
    scan: bytes | None = None
    """Ss (or NEAR), Se (or ILV), Ah/Al of the first scan."""
    mapped: bool = False
    has_eoi: bool = False
    end: int = 0


def read_jpeg(data: bytes, compression: Compression) -> CodestreamFacts:
    """Read what a JPEG (baseline, extended, lossless) or JPEG-LS frame says of itself.

    Raises:
        RejectedInput: codestream_invalid, codestream_mismatch where the frame is of another process than
            the transfer syntax says, unsupported_codestream for arithmetic coding and the like.
    """
    walk = _walk(data, compression)
    if walk.frame is None or walk.scan is None:
        raise _invalid("no frame header or no scan before the data end")
    if walk.frame not in _FAMILY[compression]:
        return _wrong_process(walk.frame, compression)
    if walk.rows == 0 or walk.mapped:
        raise RejectedInput(
            "unsupported_codestream", "the number of lines or a mapping table comes elsewhere"
        )
    first, _, shift = walk.scan
    lossless = compression is Compression.JPEG_LOSSLESS and shift & 0x0F == 0
    near = first if compression is Compression.JPEG_LS else None
    return CodestreamFacts(
        compression=compression,
        rows=walk.rows,
        columns=walk.columns,
        components=walk.components,
        precision=walk.precision,
        signed=False,
        levels=0,
        lossless=lossless or near == 0,
        predictor=first if compression is Compression.JPEG_LOSSLESS else None,
        near=near,
        has_eoc=walk.has_eoi,
        subsampled=walk.subsampled,
        codestream_bytes=walk.end,
        complete=walk.has_eoi,
    )


def _wrong_process(frame: int, compression: Compression) -> CodestreamFacts:
    if any(frame in family for family in _FAMILY.values()):
        raise RejectedInput(
            "codestream_mismatch", f"SOF {frame:02X} under a transfer syntax of {compression.value}"
        )
    raise RejectedInput("unsupported_codestream", f"JPEG process of SOF {frame:02X}")


def _walk(data: bytes, compression: Compression) -> _Walk:
    if not data.startswith(b"\xff\xd8\xff"):
        raise _invalid("no SOI at the start of the frame")
    walk, position = _Walk(), 2
    for _ in range(_MAX_SEGMENTS):
        position = _next_marker(data, position)
        if position < 0:
            walk.end = len(data)
            return walk
        marker = data[position + 1]
        if marker == EOI:
            walk.has_eoi, walk.end = True, position + 2
            return walk
        body = _segment(data, position, walk)
        if body is None:
            return walk
        _note(marker, body, walk)
        position += 4 + len(body)
        if marker == SOS:
            position = _end_of_scan(data, position, walk, compression)
    raise _invalid("too many marker segments")


def _end_of_scan(data: bytes, position: int, walk: _Walk, compression: Compression) -> int:
    """Position of the marker after entropy-coded data; restart markers are part of them where DRI said so."""
    if compression is Compression.JPEG_LS:
        pattern = _MARKER_IN_LS_SCAN if walk.restarts else _ANY_MARKER_IN_LS_SCAN
    else:
        pattern = _MARKER_IN_SCAN if walk.restarts else _ANY_MARKER_IN_SCAN
    found = pattern.search(data, position)
    end = found.start() if found else len(data)
    if walk.restarts:
        numbers = bytes(match[0][1] & 7 for match in _RESTART.finditer(data, position, end))
        if any((number - index) % 8 for index, number in enumerate(numbers)):
            raise _invalid("restart markers are not numbered in turn")
    return end


def _next_marker(data: bytes, position: int) -> int:
    """Position of the marker at or after fill bytes; -1 at the end of the data."""
    if position + 1 >= len(data):
        return -1
    fill = _FILL.match(data, position)
    if fill is None:
        raise _invalid("a marker is missing between segments")
    return fill.end() - 1 if fill.end() < len(data) else -1


def _segment(data: bytes, position: int, walk: _Walk) -> bytes | None:
    """Bytes of a segment after its length; None where the data end in a segment after the first scan."""
    marker = data[position + 1]
    if marker in (0x00, SOI) or 0xD0 <= marker <= 0xD7:
        raise _invalid(f"marker {marker:02X} outside a scan")
    length = int.from_bytes(data[position + 2 : position + 4])
    if length >= 2 and position + 2 + length <= len(data):
        return data[position + 4 : position + 2 + length]
    if walk.scan is not None:
        walk.end = len(data)
        return None
    raise _invalid(f"marker {marker:02X} has an impossible length")


def _note(marker: int, body: bytes, walk: _Walk) -> None:
    if marker in _SOF or marker == SOF_LS:
        _note_frame(marker, body, walk)
    elif marker == SOS:
        _note_scan(body, walk)
    elif marker == DRI:
        walk.restarts = any(body)
    elif marker == LSE and body[:1] in (b"\x02", b"\x03", b"\x04"):
        walk.mapped = True


def _note_scan(body: bytes, walk: _Walk) -> None:
    if walk.frame is None:
        raise _invalid("a scan before the frame header")
    if len(body) < 6 or len(body) != 4 + 2 * body[0]:
        raise _invalid("SOS has an impossible length")
    walk.scans += 1
    if walk.scans > 1 and walk.components == 1 and walk.frame != SOF2:
        raise _invalid("two scans of one component")
    if walk.scan is None:
        walk.scan = body[-3:]
        walk.mapped |= walk.frame == SOF_LS and any(body[2:-3:2])


def _note_frame(marker: int, body: bytes, walk: _Walk) -> None:
    if walk.frame is not None:
        raise _invalid("two frame headers")
    if len(body) < 9:
        raise _invalid("the frame header is too short")
    walk.precision, walk.rows, walk.columns, walk.components = struct.unpack_from(">BHHB", body)
    if len(body) != 6 + 3 * walk.components or not walk.components:
        raise _invalid("the frame header's length and its number of components disagree")
    if not 2 <= walk.precision <= 16 or not walk.columns:
        raise _invalid("the frame header has an impossible precision or width")
    walk.frame = marker
    sampling = body[7::3]
    if any(s >> 4 not in (1, 2, 3, 4) or s & 15 not in (1, 2, 3, 4) for s in sampling):
        raise _invalid("the frame header has an impossible sampling factor")
    # A single component is never sub-sampled, whatever its factors say (T.81 A.2.2).
    walk.subsampled = walk.components > 1 and len(set(sampling)) > 1
