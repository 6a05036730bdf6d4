"""Where a JPEG 2000 codestream's resolutions end, and the part of it that a wavelet level needs.

In:  the first bytes of a one-tile, one-component codestream whose packets come resolution by resolution.
Out: a whole codestream in which the packets of finer resolutions are empty; or Short: more bytes wanted.

Packet headers are read as ITU-T T.800 B.9 and B.10 say (T.814 for HT code-blocks); nothing is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from preprocess._j2k import EOC_BYTES, SOD, SOT
from preprocess._tile import (
    LRCP,
    RLCP,
    Short,
    Style,
    Unordered,
    grid,
    main_header,
    resolution_size,
    sub_bands,
    tile_parts,
)

_EPH, _SOP = 0xFF92, 0xFF91
_BYPASS, _TERMINATE_ALL, _HT = 0x01, 0x04, 0x40
_MAX_PACKETS = 100_000
_MAX_BLOCKS = 300_000
"""More than encoders make of 100 million pixels in 64 x 64 code-blocks; beyond them a file is read whole."""


@dataclass(slots=True)
class _Block:
    """What the packets so far have said of a code-block."""

    included: bool = False
    length_bits: int = 3
    passes: int = 0


class _Bits:
    """Bits of a packet header: after a byte FF the next one has seven (T.800 B.10.1)."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position
        self._left = 0
        self._byte = 0

    def bit(self) -> int:
        if not self._left:
            if self.position >= len(self._data):
                raise Short(self.position + 1)
            self._left = 7 if self._byte == 0xFF else 8
            self._byte = self._data[self.position]
            self.position += 1
        self._left -= 1
        return self._byte >> self._left & 1

    def number(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            value = value << 1 | self.bit()
        return value

    def align(self) -> int:
        """Position after the header: the rest of its last byte, and a byte stuffed after FF, are dropped."""
        if self._byte == 0xFF:
            self.position += 1
        return self.position


class _TagTree:
    """T.800 B.10.2."""

    def __init__(self, columns: int, rows: int) -> None:
        self._sizes = [(columns, rows)]
        while self._sizes[-1] != (1, 1):
            columns, rows = -(-columns // 2), -(-rows // 2)
            self._sizes.append((columns, rows))
        self._value = [[0] * (c * r) for c, r in self._sizes]
        self._known = [[False] * (c * r) for c, r in self._sizes]

    def below(self, bits: _Bits, column: int, row: int, threshold: int) -> bool:
        """Whether the leaf's value is below `threshold`."""
        low = 0
        for depth in range(len(self._sizes) - 1, -1, -1):
            at = (row >> depth) * self._sizes[depth][0] + (column >> depth)
            values, known = self._value[depth], self._known[depth]
            low = values[at] = max(low, values[at])
            while low < threshold and not known[at]:
                if bits.bit():
                    known[at] = True
                else:
                    low += 1
            values[at] = low
        return self._known[0][row * self._sizes[0][0] + column] and low < threshold


class _Band:
    """A sub-band's code-blocks within one precinct."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.inclusion, self.zero_planes = _TagTree(columns, rows), _TagTree(columns, rows)
        self.blocks = [_Block() for _ in range(columns * rows)]


@dataclass(slots=True)
class _Reader:
    """Walks packets through the codestream's first bytes."""

    data: bytes
    style: Style
    position: int
    packets: int = field(default=0)

    def packet(self, bands: list[_Band], layer: int) -> None:
        """Read one packet's header and step over its body. Raises Short."""
        data = self.data
        if self.style.sop and data[self.position : self.position + 4] == b"\xff\x91\x00\x04":
            self.position += 6
        bits = _Bits(data, self.position)
        body = 0
        if bits.bit():
            for band in bands:
                body += self._band(bits, band, layer)
        end = bits.align()
        if self.style.eph and data[end : end + 2] == b"\xff\x92":
            end += 2
        if end + body > len(data):
            raise Short(end + body)
        self.position = end + body
        self.packets += 1

    def _band(self, bits: _Bits, band: _Band, layer: int) -> int:
        body = 0
        for row in range(band.rows):
            for column in range(band.columns):
                block = band.blocks[row * band.columns + column]
                if block.included:
                    if bits.bit():
                        body += self._contribution(bits, block)
                elif band.inclusion.below(bits, column, row, layer + 1):
                    block.included = True
                    planes = 1
                    while not band.zero_planes.below(bits, column, row, planes):
                        planes += 1
                        if planes > 80:
                            raise Unordered("impossible number of bit-planes")
                    body += self._contribution(bits, block)
        return body

    def _contribution(self, bits: _Bits, block: _Block) -> int:
        """Bytes that this packet adds to a code-block: coding passes, then lengths of segments."""
        passes = _passes(bits)
        while bits.bit():
            block.length_bits += 1
            if block.length_bits > 40:
                raise Unordered("impossible length of a code-block")
        length = 0
        for count in self._segments(block.passes, passes):
            length += bits.number(block.length_bits + count.bit_length() - 1)
        block.passes += passes
        return length

    def _segments(self, before: int, passes: int) -> Iterator[int]:
        """How many of the new passes go into each codeword segment (T.800 B.10.7)."""
        style = self.style.block_style
        if style & _HT:
            if before or passes > 3:
                raise Unordered("HT code-blocks of several sets")
            yield 1
            if passes > 1:
                yield passes - 1
            return
        while passes:
            if style & _TERMINATE_ALL:
                room = 1
            elif style & _BYPASS:
                # Ten passes, then two raw and one arithmetic in turn, each group a segment.
                room = 10 - before if before < 10 else (2, 1, 1)[(before - 10) % 3]
            else:
                room = passes
            count = min(room, passes)
            yield count
            before += count
            passes -= count


def _passes(bits: _Bits) -> int:
    """Number of coding passes (T.800 Table B.4)."""
    if not bits.bit():
        return 1
    if not bits.bit():
        return 2
    if (two := bits.number(2)) < 3:
        return 3 + two
    if (five := bits.number(5)) < 31:
        return 6 + five
    return 37 + bits.number(7)


def for_level(head: bytes, level: int) -> bytes:
    """Make a codestream out of the first bytes of another: all that decoding at `level` uses.

    Args:
        head: The first bytes of a bare codestream whose headers `read_j2k` accepted: one component, one tile,
            origin 0.
        level: Wavelet levels to leave out, 1 to the codestream's own.

    Returns:
        A bare codestream of the same size and levels; the packets of finer resolutions are there, empty.

    Raises:
        Short: `head` ends too early.
        Unordered: packets do not come resolution by resolution, or their headers lie elsewhere.
    """
    kept, style, position = main_header(head)
    parts, ended = tile_parts(head, position)
    reader = _Reader(parts, style, 0)
    try:
        empty = _walk(reader, level)
    except Short as short:
        if ended:
            raise Unordered("packets go on beyond the last tile-part") from None
        raise Short(len(head) + max(1, short.needed - len(parts))) from None
    body = parts[: reader.position]
    body += b"".join(_nothing(style, number) for number in range(reader.packets, reader.packets + empty))
    sot = struct.pack(">HHHIBB", SOT, 10, 0, 14 + len(body), 0, 1)
    return kept + sot + struct.pack(">H", SOD) + body + EOC_BYTES


def _walk(reader: _Reader, level: int) -> int:
    """Step over the packets that `level` needs; return how many there are besides."""
    style, others = reader.style, 0
    _check_numbers(style, style.levels - level)
    for resolution in range(style.levels + 1):
        if resolution > style.levels - level:
            across, down = grid(style, resolution)
            others += across * down * style.layers
            continue
        precincts = list(_precincts(style, resolution))
        for bands, layer in _order(style, precincts):
            reader.packet(bands, layer)
    return others


def _check_numbers(style: Style, finest: int) -> None:
    """Refuse what would take long, before anything is made of it: by claims alone. Raises Unordered."""
    grids = [grid(style, resolution) for resolution in range(style.levels + 1)]
    packets = sum(across * down for across, down in grids) * style.layers
    columns, rows = resolution_size(style, finest)
    blocks = columns * rows >> min(style.block_width, style.precincts[finest][0])
    blocks >>= min(style.block_height, style.precincts[finest][1])
    if packets > _MAX_PACKETS or blocks > _MAX_BLOCKS:
        raise Unordered("too many packets or code-blocks")


def _nothing(style: Style, number: int) -> bytes:
    """An empty packet, the `number`-th of its tile."""
    sop = struct.pack(">HHH", _SOP, 4, number & 0xFFFF) if style.sop else b""
    return sop + b"\0" + (struct.pack(">H", _EPH) if style.eph else b"")


def _order(style: Style, precincts: list[list[_Band]]) -> Iterator[tuple[list[_Band], int]]:
    """A resolution's packets in turn: the bands of a precinct, and the layer."""
    if style.progression in (LRCP, RLCP):
        yield from ((bands, layer) for layer in range(style.layers) for bands in precincts)
    else:
        yield from ((bands, layer) for bands in precincts for layer in range(style.layers))


def _precincts(style: Style, resolution: int) -> Iterator[list[_Band]]:
    """Precincts in raster order, each as its non-empty sub-bands (T.800 B.6, B.7, B.9)."""
    wide, high = style.precincts[resolution]
    if resolution:
        wide, high = wide - 1, high - 1
    across, down = grid(style, resolution)
    block = min(style.block_width, wide), min(style.block_height, high)
    for row in range(down):
        for column in range(across):
            sizes = (
                (
                    _blocks(band_columns, column, wide, block[0]),
                    _blocks(band_rows, row, high, block[1]),
                )
                for _, band_columns, band_rows in sub_bands(style, resolution)
            )
            yield [_Band(*size) for size in sizes if 0 not in size]


def _blocks(samples: int, precinct: int, exponent: int, block: int) -> int:
    """Code-blocks along one axis of a precinct of a sub-band with so many samples; 0 beyond its end."""
    first, last = precinct << exponent, min(samples, (precinct + 1) << exponent)
    return max(0, -(-last >> block) - (first >> block)) if last > first else 0
