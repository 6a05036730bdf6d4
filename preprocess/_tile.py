"""Headers of a JPEG 2000 codestream of one component and one tile: how its packets are made, where they are.

In:  a codestream that `read_j2k` accepted, or its first bytes.
Out: Style and the tile's packets; Short where the bytes end too early, Unordered for streams of other kinds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from preprocess._j2k import COC, COD, SIZ, SOD, SOT

TLM, COM = 0xFF55, 0xFF64
_PLM, _PLT, _PPM, _POC, _SOP = 0xFF57, 0xFF58, 0xFF60, 0xFF5F, 0xFF91
_LENGTHS_OF_PACKETS = frozenset({TLM, _PLM, _PLT})
"""Optional, and wrong for a stream with other packets: left out."""
_LEAST_PLT = 5
"""Marker, length, index, where a decoder that reads them asks for nothing more (T.800 A.7.3)."""
LRCP, RLCP, RPCL = 0, 1, 2


class Short(Exception):
    """The bytes at hand end too early."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"{needed} bytes are needed")
        self.needed = needed
        """At least so many from the start of the codestream."""


class Unordered(Exception):
    """No prefix of this codestream will do, or none that can be told."""


@dataclass(frozen=True, slots=True)
class Style:
    """What SIZ and COD say of packets."""

    rows: int
    columns: int
    progression: int
    layers: int
    levels: int
    block_width: int
    """Exponents, as in COD."""
    block_height: int
    block_style: int
    sop: bool
    eph: bool
    precincts: tuple[tuple[int, int], ...]
    """(PPx, PPy) of each resolution, coarsest first."""


def tile(codestream: bytes) -> tuple[Style, bytes]:
    """What the header of a whole codestream of one tile says of packets, and the packets of all its parts.

    Raises:
        Short, Unordered: as `for_level`.
    """
    _, style, position = main_header(codestream)
    packets, ended = tile_parts(codestream, position)
    if not ended:
        raise Unordered("the last tile-part does not say where it ends")
    return style, packets


def main_header(head: bytes) -> tuple[bytes, Style, int]:
    """The main header as it is to be kept, what it says, and where the first tile-part is."""
    kept = bytearray(head[:2])
    size = style = None
    position = 2
    while True:
        marker, end = _segment_at(head, position)
        if marker == SOT:
            break
        if marker in (_PPM, _POC, COC):
            raise Unordered(f"marker {marker:04X}")
        if marker == SIZ:
            size = struct.unpack_from(">2I", head, position + 6)
        elif marker == COD:
            style = head[position + 4 : end]
        if marker not in _LENGTHS_OF_PACKETS:
            kept += head[position:end]
        position = end
    if size is None or style is None:
        raise Unordered("no SIZ or COD")
    columns, rows = size
    return bytes(kept), _style(rows, columns, style), position


def _segment_at(head: bytes, position: int) -> tuple[int, int]:
    """Marker at `position`, and where its segment ends."""
    if position + 4 > len(head):
        raise Short(position + 4)
    marker, length = struct.unpack_from(">HH", head, position)
    if marker in (SOD, _SOP) or 0xFF30 <= marker <= 0xFF3F:
        return marker, position + 2
    if position + 2 + length > len(head):
        raise Short(position + 2 + length)
    return marker, position + 2 + length


def _style(rows: int, columns: int, body: bytes) -> Style:
    flags, progression, layers, mixed, levels, width, height, block_style = struct.unpack_from(
        ">BBHB4B", body
    )
    if mixed:
        raise Unordered("a transform over several components")
    sizes = tuple((b & 15, b >> 4) for b in body[10:]) if flags & 1 else ((15, 15),) * (levels + 1)
    style = Style(
        rows, columns, progression, layers, levels, width + 2, height + 2, block_style,
        bool(flags & 2), bool(flags & 4), sizes,
    )  # fmt: skip
    if any(0 in size for size in sizes[1:]):
        raise Unordered("precincts narrower than a sub-band's sample")
    single = all(grid(style, resolution) == (1, 1) for resolution in range(levels + 1))
    if progression == LRCP and layers > 1:
        raise Unordered("layer by layer")
    if progression > RPCL and not single:
        raise Unordered("position by position")
    return style


def tile_parts(head: bytes, position: int) -> tuple[bytes, bool]:
    """Packets of the tile's parts in a row, as far as they are there, and whether the last part has ended."""
    packets, part = bytearray(), 0
    while True:
        if position + 2 <= len(head) and head[position : position + 2] != SOT.to_bytes(2):
            return bytes(packets), True
        if position + 12 > len(head):
            return bytes(packets), False
        _, length, tile, psot, number = struct.unpack_from(">HHHIB", head, position)
        if length != 10 or tile or number != part:
            raise Unordered("a tile-part of another tile, or not the next one")
        part += 1
        try:
            start = _tile_header(head, position + 12)
        except Short:
            return bytes(packets), False
        end = position + psot if psot else len(head)
        packets += head[start:end]
        if end >= len(head):
            return bytes(packets), False
        position = end


def _tile_header(head: bytes, position: int) -> int:
    """Where the packets of a tile-part begin whose header goes on at `position`."""
    while True:
        marker, end = _segment_at(head, position)
        if marker == SOD:
            return end
        if marker not in (_PLT, COM):
            raise Unordered(f"marker {marker:04X} in a tile-part")
        if marker == _PLT and (end - position < _LEAST_PLT or head[end - 1] & 0x80):
            raise Unordered("a packet's length is cut short")
        position = end


def resolution_size(style: Style, resolution: int) -> tuple[int, int]:
    """(columns, rows) of a resolution."""
    shift = style.levels - resolution
    return -(-style.columns >> shift), -(-style.rows >> shift)


def grid(style: Style, resolution: int) -> tuple[int, int]:
    """How many precincts lie side by side and one below the other."""
    columns, rows = resolution_size(style, resolution)
    across, down = style.precincts[resolution]
    return -(-columns >> across), -(-rows >> down)


def sub_bands(style: Style, resolution: int) -> list[tuple[int, int, int]]:
    """(orientation, columns, rows) of a resolution's sub-bands: 0 LL, or 1 HL, 2 LH, 3 HH (T.800 B.5)."""
    columns, rows = resolution_size(style, resolution)
    if resolution == 0:
        return [(0, columns, rows)]
    low_columns, low_rows = resolution_size(style, resolution - 1)
    return [
        (1, columns - low_columns, low_rows),
        (2, low_columns, rows - low_rows),
        (3, columns - low_columns, rows - low_rows),
    ]
