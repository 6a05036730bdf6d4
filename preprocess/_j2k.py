"""JPEG 2000 and HTJ2K codestreams, read without decoding (ITU-T T.800 Annex A and I, T.814).

In:  a frame's bytes, JP2/JPH-boxed or bare.
Out: CodestreamFacts. Nothing is allocated by a claimed size, every loop moves forward through the data.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from preprocess.errors import RejectedInput
from preprocess.records import CodestreamFacts, Compression

SOC, SIZ, COD, COC, RGN, SOT, SOD, EOC = 0xFF4F, 0xFF51, 0xFF52, 0xFF53, 0xFF5E, 0xFF90, 0xFF93, 0xFFD9
EOC_BYTES = b"\xff\xd9"

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_PROGRESSIONS = ("LRCP", "RLCP", "RPCL", "PCRL", "CPRL")
_PREDICTABLE_TERMINATION, _HT_BLOCKS = 0x10, 0x40
_MAX_BOXES = 1_000
_MAX_SEGMENTS = 200_000
"""Marker segments in one stream; more than any encoder writes (65,535 tiles with a COD each)."""


def _invalid(message: str) -> RejectedInput:
    return RejectedInput("codestream_invalid", message)


@dataclass(frozen=True, slots=True)
class _Size:
    """SIZ (T.800 A.5.1)."""

    x1: int
    y1: int
    x0: int
    y0: int
    tile_columns: int
    tile_rows: int
    tile_x0: int
    tile_y0: int
    components: tuple[tuple[int, int, int], ...]
    """Ssiz, XRsiz, YRsiz of each."""

    @property
    def tiles(self) -> int:
        across = -(-(self.x1 - self.tile_x0) // self.tile_columns)
        return across * -(-(self.y1 - self.tile_y0) // self.tile_rows)

    @property
    def rows(self) -> int:
        step = self.components[0][2]
        return -(-self.y1 // step) - (-(-self.y0 // step))

    @property
    def columns(self) -> int:
        step = self.components[0][1]
        return -(-self.x1 // step) - (-(-self.x0 // step))


@dataclass(slots=True)
class _Walk:
    """What the marker segments have said so far."""

    size: _Size
    levels: set[int] = field(default_factory=set)
    reversible: set[bool] = field(default_factory=set)
    layers: int = 1
    progression: str | None = None
    has_roi: bool = False
    segments: int = 0
    parts_seen: dict[int, int] = field(default_factory=dict)
    """Tile → tile-parts found in full."""
    parts_promised: dict[int, int] = field(default_factory=dict)
    """Tile → TNsot, where any of its tile-parts gives it (T.800 A.4.2)."""
    complete: bool = False
    has_eoc: bool = False
    end: int = 0


def locate(data: bytes) -> tuple[int, int, bool]:
    """Find the contiguous codestream: (start, end, boxed). Boxes as T.800 Annex I, walked, never searched."""
    if data.startswith(b"\xff\x4f\xff\x51"):
        return 0, len(data), False
    if not data.startswith(_JP2_SIGNATURE):
        raise _invalid("neither a JPEG 2000 codestream nor a JP2 file")
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > len(data):
            break
        kind, header, length = _box(data, position)
        if kind == b"jp2c":
            # The box's length is not trusted to end the stream: Psot and EOC say where it ends.
            return position + header, len(data), True
        position += length
    raise _invalid("no codestream box in the JP2 file")


def _box(data: bytes, position: int) -> tuple[bytes, int, int]:
    """Kind, header length and whole length of the box at `position` (T.800 I.4)."""
    length, kind = struct.unpack_from(">I4s", data, position)
    header = 8
    if length == 1 and position + 16 <= len(data):
        (length,), header = struct.unpack_from(">Q", data, position + 8), 16
    elif length == 0:
        length = len(data) - position
    if length < header:
        raise _invalid("a JP2 box is shorter than its own header")
    return kind, header, length


def read_j2k(data: bytes, compression: Compression) -> CodestreamFacts:
    """Read what a JPEG 2000 or HTJ2K frame says of itself.

    Raises:
        RejectedInput: codestream_invalid, or unsupported_codestream for transforms beyond Part 1.
    """
    start, end, boxed = locate(data)
    walk, first_tile = _main_header(data, start, end)
    _tile_parts(data, first_tile, end, walk)
    size = walk.size
    ssiz = size.components[0][0]
    return CodestreamFacts(
        compression=compression,
        rows=size.rows,
        columns=size.columns,
        components=len(size.components),
        precision=(ssiz & 0x7F) + 1,
        signed=bool(ssiz & 0x80),
        levels=min(walk.levels),
        lossless=walk.reversible == {True},
        tile_rows=size.tile_rows,
        tile_columns=size.tile_columns,
        tiles=size.tiles,
        layers=walk.layers,
        progression=walk.progression,
        boxed=boxed,
        has_eoc=walk.has_eoc,
        subsampled=any((x, y) != (1, 1) for _, x, y in size.components),
        offset=(size.x0, size.y0, size.tile_x0, size.tile_y0) != (0, 0, 0, 0),
        has_roi=walk.has_roi,
        codestream_start=start,
        codestream_bytes=walk.end - start,
        complete=walk.complete,
    )


def _segment(data: bytes, position: int, end: int) -> tuple[int, bytes]:
    """Marker code at `position` and its segment's bytes after the length field."""
    if position + 4 > end:
        raise _invalid("the data end inside a header")
    marker, length = struct.unpack_from(">HH", data, position)
    if marker < 0xFF01:
        raise _invalid("a marker is missing between header segments")
    if length < 2 or position + 2 + length > end:
        raise _invalid(f"marker {marker:04X} has an impossible length")
    return marker, data[position + 4 : position + 2 + length]


def _main_header(data: bytes, start: int, end: int) -> tuple[_Walk, int]:
    marker, body = _segment(data, start + 2, end)
    if marker != SIZ:
        raise _invalid("SIZ does not follow SOC")
    walk = _Walk(_size(body))
    position = _header_segments(data, start + 4 + 2 + len(body), end, walk)
    if struct.unpack_from(">H", data, position)[0] != SOT:
        raise _invalid("no tile-part follows the main header")
    if not walk.levels:
        raise _invalid("no COD in the main header")
    return walk, position


def _size(body: bytes) -> _Size:
    if len(body) < 36:
        raise _invalid("SIZ is too short")
    x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0, count = struct.unpack_from(">8IH", body, 2)
    if not 1 <= count <= 16_384 or len(body) != 36 + 3 * count:
        raise _invalid("SIZ's length and its number of components disagree")
    components = tuple(struct.iter_unpack(">3B", body[36:]))
    size = _Size(x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0, components)
    if not (x0 < x1 and y0 < y1 and tile_x and tile_y):
        raise _invalid("SIZ has an empty image or tile")
    if not (tile_x0 <= x0 < tile_x0 + tile_x and tile_y0 <= y0 < tile_y0 + tile_y):
        raise _invalid("SIZ's first tile misses the image")
    if any((ssiz & 0x7F) > 37 or not x or not y for ssiz, x, y in components):
        raise _invalid("SIZ has an impossible precision or sub-sampling")
    if size.tiles > 65_535:
        raise _invalid("SIZ has more than 65,535 tiles")
    if size.rows < 1 or size.columns < 1:
        raise _invalid("SIZ has an empty component")
    return size


def _header_segments(data: bytes, position: int, end: int, walk: _Walk) -> int:
    """Read segments up to SOT or SOD; return that marker's position."""
    while True:
        if position + 2 > end:
            raise _invalid("the data end inside a header")
        (marker,) = struct.unpack_from(">H", data, position)
        if marker in (SOT, SOD):
            return position
        walk.segments += 1
        if walk.segments > _MAX_SEGMENTS:
            raise _invalid("too many marker segments")
        if 0xFF30 <= marker <= 0xFF3F:  # reserved markers without a segment (T.800 A.1)
            position += 2
            continue
        marker, body = _segment(data, position, end)
        if marker in (SOC, SIZ, EOC):
            raise _invalid(f"marker {marker:04X} inside a header")
        _note(marker, body, walk)
        position += 4 + len(body)


def _note(marker: int, body: bytes, walk: _Walk) -> None:
    if marker == COD:
        if len(body) < 10:
            raise _invalid("COD is too short")
        progression, layers = body[1], int.from_bytes(body[2:4])
        if progression >= len(_PROGRESSIONS) or layers == 0:
            raise _invalid("COD has an impossible progression or no layers")
        if walk.progression is None:
            walk.progression, walk.layers = _PROGRESSIONS[progression], layers
        _coding_style(body[0], body[5:], walk)
    elif marker == COC:
        wide = 1 if len(walk.size.components) < 257 else 2
        if len(body) < wide + 6 or int.from_bytes(body[:wide]) >= len(walk.size.components):
            raise _invalid("COC is too short or of no component")
        _coding_style(body[wide], body[wide + 1 :], walk)
    elif marker == RGN:
        walk.has_roi = True


def _coding_style(style: int, parameters: bytes, walk: _Walk) -> None:
    """SPcod or SPcoc (T.800 Table A.20): levels, code-block size and style, transform, precincts."""
    levels, width, height, _, transform = parameters[:5]
    if levels > 32 or width > 8 or height > 8 or width + height > 8:
        raise _invalid("COD or COC has impossible levels or code-blocks")
    if len(parameters) != 5 + (levels + 1 if style & 1 else 0):
        raise _invalid("COD or COC has an impossible length")
    if transform > 1:
        raise RejectedInput("unsupported_codestream", "a wavelet transform beyond 5/3 and 9/7")
    walk.levels.add(levels)
    walk.reversible.add(transform == 1)


def segments(codestream: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment of a header that `read_j2k` accepted; at last those of SOT or SOD."""
    while position + 4 <= len(codestream):
        marker, length = struct.unpack_from(">HH", codestream, position)
        yield marker, position
        if marker in (SOT, SOD):
            return
        position += 2 if 0xFF30 <= marker <= 0xFF3F else 2 + length


def with_termination_check(codestream: bytes) -> bytes:
    """The same stream, with "predictable termination" declared in the main header's COD and COC.

    The flag (T.800 Table A.19) changes no decoded value. It makes OpenJPEG compare where each code-block's
    passes end with where its bytes end, which differ after nearly every damage to arithmetic-coded data, and
    by no more than two bytes in what encoders write without it, too. HT code-blocks are left alone.

    Args:
        codestream: bare, with headers that `read_j2k` accepted.
    """
    changed = bytearray(codestream)
    for marker, position in segments(codestream, 2):
        # Scod, SGcod (4), levels, width, height, style; or Ccoc of one byte (one component), Scoc, levels, …
        style = position + {COD: 12, COC: 9}.get(marker, len(codestream))
        if style < len(codestream) and not changed[style] & _HT_BLOCKS:
            changed[style] |= _PREDICTABLE_TERMINATION
    return bytes(changed)


def _tile_parts(data: bytes, position: int, end: int, walk: _Walk) -> None:
    """Walk tile-parts by Psot. Where the data end early, `complete` stays False."""
    while True:
        following = int.from_bytes(data[position : position + 2]) if position + 2 <= end else None
        if following != SOT:
            break
        if position + 12 > end:
            walk.end = end
            return
        after = _tile_part(data, position, end, walk)
        if after is None:
            walk.end = end
            return
        position = after
    walk.has_eoc = following == EOC
    walk.end = position + (2 if walk.has_eoc else 0)
    walk.complete = _all_there(walk)


def _all_there(walk: _Walk) -> bool:
    """Whether every tile-part has come.

    Without EOC only TNsot can say so: a stream that gives neither may have been cut between two tile-parts,
    and no decoder would notice.
    """
    promised = walk.parts_promised
    if len(walk.parts_seen) != walk.size.tiles or (not walk.has_eoc and len(promised) != walk.size.tiles):
        return False
    return all(seen >= promised.get(tile, 0) for tile, seen in walk.parts_seen.items())


def _tile_part(data: bytes, position: int, end: int, walk: _Walk) -> int | None:
    """Read one tile-part's header; return where it ends, None if the data end before it does."""
    length, tile, psot, _, parts = struct.unpack_from(">HHIBB", data, position + 2)
    walk.segments += 1
    if length != 10 or tile >= walk.size.tiles or walk.segments > _MAX_SEGMENTS:
        raise _invalid("SOT has an impossible length or tile")
    if 0 < psot < 14:
        raise _invalid("SOT has an impossible tile-part length")
    if psot and position + psot > end:
        return None
    start = _header_segments(data, position + 12, position + psot if psot else end, walk)
    if struct.unpack_from(">H", data, start)[0] != SOD:
        raise _invalid("no SOD in a tile-part")
    walk.parts_seen[tile] = walk.parts_seen.get(tile, 0) + 1
    if parts:
        walk.parts_promised[tile] = parts
    if psot:
        after: int = position + psot
        return after
    # Psot 0: to EOC. Packet data hold no two bytes above FF8F (T.800 B.10.1), so the first FFD9 is EOC.
    found = data.find(EOC_BYTES, start + 2, end)
    return found if found >= 0 else None
