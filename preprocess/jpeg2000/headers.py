"""Where each code-block's bytes lie in a tile's packets, read by compiled code (ITU-T T.800 B.9, B.10).

In:  the packets of a one-component tile with one quality layer, and its sub-bands.
Out: the table that _bit_planes.py decodes by; or None where packets do not fit the headers or one another.

`_packets.py` reads the same headers in Python, of every kind of stream and of a part of one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import int64

from preprocess.compiled import compiled
from preprocess.jpeg2000.code_blocks import (
    BAND,
    COLUMNS,
    HEIGHT,
    LENGTH,
    PASSES,
    PLANES,
    START,
    STRIDE,
    TARGET,
    WIDTH,
    Table,
)

_Bytes = npt.NDArray[np.uint8]
_Ints = npt.NDArray[np.int64]
_Bits = tuple[int, int, int]
"""Position of the next byte, the byte before it, how many of its bits are left."""

RESOLUTION, ORIENTATION, COLS, ROWS, MOST_PLANES, FIRST, ROW_STEP = range(7)
"""Columns of a list of sub-bands: resolution; 0 LL, 1 HL, 2 LH, 3 HH; size; bit-planes (equation E-2); index
of the first sample, below 0 if not wanted; samples per row."""
BAND_COLUMNS = 7
ACROSS, DOWN, WIDE, HIGH, BLOCK_WIDTH, BLOCK_HEIGHT = range(6)
"""Columns of a list of resolutions: precincts side by side and one below the other; their size, and that of
code-blocks, in samples of a sub-band, as exponents of 2."""
GRID_COLUMNS = 6

_MOST_ZERO_PLANES = 80
_MOST_LENGTH_BITS = 31


def read_table(
    packets: _Bytes, bands: _Ints, grids: _Ints, blocks: int, *, sop: bool, eph: bool
) -> Table | None:
    """Read all packet headers of a tile, resolution by resolution, precinct by precinct.

    Args:
        packets: uint8, nothing but the packets.
        bands: int64 (sub-bands, BAND_COLUMNS), by resolution; none is empty.
        grids: int64 (resolutions, GRID_COLUMNS).
        blocks: code-blocks in all sub-bands.
        sop: whether markers may lie before headers.
        eph: whether markers lie behind headers.

    Returns:
        int64 (code-blocks that have bytes, COLUMNS); None where the packets are not exactly these.
    """
    table = np.zeros((blocks, COLUMNS), np.int64)
    found = _read(packets, bands, grids, sop, eph, table)
    return table[:found] if found >= 0 else None


@compiled
def _read(packets: _Bytes, bands: _Ints, grids: _Ints, sop: bool, eph: bool, table: Table) -> int:
    """Fill the table; return how many rows it has, or -1."""
    at, found, first_band = int64(0), int64(0), int64(0)
    for resolution in range(grids.shape[0]):
        grid = grids[resolution]
        end_band = first_band
        while end_band < bands.shape[0] and bands[end_band, RESOLUTION] == resolution:
            end_band += 1
        for precinct in range(grid[ACROSS] * grid[DOWN]):
            at, found = _read_packet(
                packets, at, bands[first_band:end_band], grid, precinct, sop, eph, table, found
            )
            if at < 0 or at > packets.size:
                return -1
        first_band = end_band
    return int(found) if at == packets.size else -1


@compiled
def _read_packet(
    packets: _Bytes,
    at: int,
    bands: _Ints,
    grid: _Ints,
    precinct: int,
    sop: bool,
    eph: bool,
    table: Table,
    found: int,
) -> tuple[int, int]:
    """Read one packet's header; return where its body ends and the table's rows; -1, 0 for nonsense."""
    if sop and at + 6 <= packets.size and packets[at] == 0xFF and packets[at + 1] == 0x91:
        at += 6
    bits = int64(at), int64(0), int64(0)
    first = found
    there, bits = _bit(packets, bits)
    if there:
        for band in range(bands.shape[0]):
            found, bits = _read_band(packets, bits, bands[band], grid, precinct, table, found)
            if found < 0:
                return int64(-1), int64(0)
    at = bits[0] + 1 if bits[1] == 0xFF else bits[0]
    if eph:
        if at + 2 > packets.size or packets[at] != 0xFF or packets[at + 1] != 0x92:
            return int64(-1), int64(0)
        at += 2
    for row in range(first, found):
        table[row, START] = at
        at += table[row, LENGTH]
    return at, found


@compiled
def _read_band(
    packets: _Bytes, bits: _Bits, band: _Ints, grid: _Ints, precinct: int, table: Table, found: int
) -> tuple[int, _Bits]:
    """Read what a packet header says of one sub-band's code-blocks; the table's rows, -1 for nonsense."""
    left = precinct % grid[ACROSS] << grid[WIDE]
    top = precinct // grid[ACROSS] << grid[HIGH]
    right, bottom = min(band[COLS], left + (1 << grid[WIDE])), min(band[ROWS], top + (1 << grid[HIGH]))
    if left >= right or top >= bottom:
        return found, bits
    columns = ((right - left - 1) >> grid[BLOCK_WIDTH]) + 1
    rows = ((bottom - top - 1) >> grid[BLOCK_HEIGHT]) + 1
    inclusion = np.zeros(2 * columns * rows + columns + rows + 64, np.int64)
    zero_planes = np.zeros(inclusion.size, np.int64)
    for y in range(rows):
        for x in range(columns):
            included, bits = _below(packets, bits, inclusion, columns, rows, x, y, 1)
            if not included:
                continue
            if found == table.shape[0]:
                return int64(-1), bits
            row = table[found]
            zeros, bits = _zero_planes(packets, bits, zero_planes, columns, rows, x, y)
            row[PASSES], row[LENGTH], bits = _contribution(packets, bits)
            if zeros < 0 or row[LENGTH] < 0:
                return int64(-1), bits
            block_left, block_top = left + (x << grid[BLOCK_WIDTH]), top + (y << grid[BLOCK_HEIGHT])
            row[BAND] = band[ORIENTATION]
            row[WIDTH] = min(right, block_left + (1 << grid[BLOCK_WIDTH])) - block_left
            row[HEIGHT] = min(bottom, block_top + (1 << grid[BLOCK_HEIGHT])) - block_top
            row[PLANES] = band[MOST_PLANES] - zeros
            wanted = band[FIRST] >= 0
            row[TARGET] = band[FIRST] + block_top * band[ROW_STEP] + block_left if wanted else -1
            row[STRIDE] = band[ROW_STEP]
            found += 1
    return found, bits


@compiled
def _zero_planes(
    packets: _Bytes, bits: _Bits, tree: _Ints, columns: int, rows: int, x: int, y: int
) -> tuple[int, _Bits]:
    """How many bit-planes of a code-block are not coded (B.10.5); -1 for more than there can be."""
    for planes in range(_MOST_ZERO_PLANES):
        below, bits = _below(packets, bits, tree, columns, rows, x, y, planes + 1)
        if below:
            return int64(planes), bits
    return int64(-1), bits


@compiled
def _contribution(packets: _Bytes, bits: _Bits) -> tuple[int, int, _Bits]:
    """Coding passes of a code-block and its bytes (B.10.6, B.10.7.1), -1 for more than there can be."""
    passes, bits = _passes(packets, bits)
    length_bits, more = 3, 1
    while more:
        more, bits = _bit(packets, bits)
        length_bits += more
        if length_bits > _MOST_LENGTH_BITS:
            return passes, int64(-1), bits
    count = passes
    while count > 1:
        count >>= 1
        length_bits += 1
    length, bits = _number(packets, bits, length_bits)
    if bits[0] > packets.size or length > packets.size:
        length = int64(-1)
    return passes, length, bits


@compiled
def _bit(packets: _Bytes, bits: _Bits) -> tuple[int, _Bits]:
    """The next bit; zeros beyond the end, where the position goes on. After a byte FF come seven (B.10.1)."""
    position, byte, left = bits
    if left == 0:
        left = 7 if byte == 0xFF else 8
        byte = int64(packets[position]) if position < packets.size else int64(0)
        position += 1
    left -= 1
    return byte >> left & 1, (position, byte, left)


@compiled
def _number(packets: _Bytes, bits: _Bits, count: int) -> tuple[int, _Bits]:
    value = int64(0)
    for _ in range(count):
        bit, bits = _bit(packets, bits)
        value = value << 1 | bit
    return value, bits


@compiled
def _passes(packets: _Bytes, bits: _Bits) -> tuple[int, _Bits]:
    """Number of coding passes (T.800 table B.4)."""
    first = 1
    for width in (1, 1, 2, 5, 7):
        value, bits = _number(packets, bits, width)
        if value != (1 << width) - 1 or width == 7:
            return first + value, bits
        first += value
    return first, bits


@compiled
def _below(
    packets: _Bytes, bits: _Bits, tree: _Ints, columns: int, rows: int, x: int, y: int, threshold: int
) -> tuple[bool, _Bits]:
    """Whether a leaf of a tag tree is below `threshold` (B.10.2).

    tree: 2 × value, + 1 once it is final; level after level, leaves first.
    """
    depth, width, height = 0, columns, rows
    while width > 1 or height > 1:
        width, height = (width + 1) >> 1, (height + 1) >> 1
        depth += 1
    low, final = int64(0), int64(0)
    for level in range(depth, -1, -1):
        offset, width, height = 0, columns, rows
        for _ in range(level):
            offset += width * height
            width, height = (width + 1) >> 1, (height + 1) >> 1
        node = offset + (y >> level) * width + (x >> level)
        low, final = max(low, tree[node] >> 1), tree[node] & 1
        while low < threshold and not final:
            final, bits = _bit(packets, bits)
            if not final:
                low += 1
        tree[node] = low << 1 | final
    return low < threshold and final == 1, bits
