"""Whether a lossless JPEG's entropy-coded data hold exactly the declared pixels, at the price of one more row.

In:  a complete JPEG Lossless frame (T.81 Annex H), one component.
Out: the frame with one row more, of known differences; later, whether that row was decoded as it must be.

Huffman codes have no checksum, and libjpeg-turbo fills in for what is missing and leaves what is too much. But a
damaged code changes how many bits are read, and after the last pixel the decoder stands elsewhere than the data
end. So a row of known differences (the canary) is appended and the frame header says one row more: decoded
wrongly, it tells of damage anywhere before it. The bits that fill the last byte (0 to 7; ones, says T.81 F.1.2.3,
which not all encoders heed) come between, and are decoded as whatever they look like: all eight cases are right.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DHT, DRI, SOF3, SOS = 0xC4, 0xDD, 0xC3, 0xDA
_SYMBOLS = 40
"""Length of the canary; the rest of its row is whatever the decoder makes of no data."""
_SEEN = 24
"""How many of its differences are compared."""
_STUFFED, _MARKER = b"\xff\x00", b"\xff"
_MOST_ROWS = 65_535

Code = tuple[int, int]
"""Length in bits, value."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A frame with a canary row, and what that row may be."""

    data: bytes
    predictor: int
    expected: tuple[tuple[int, ...], ...]
    """First differences of the row, for each number of fill bits."""

    def survived(self, decoded: npt.NDArray[np.integer[Any]]) -> bool:
        """Whether the last row of what was decoded is the canary, for any number of fill bits."""
        columns = min(_SEEN, decoded.shape[1])
        seen = [int(value) for value in decoded[-1, :columns]]
        above = [int(value) for value in decoded[-2, :columns]]
        wrap = (1 << (8 * decoded.dtype.itemsize)) - 1
        return any(seen == _row(case, above, self.predictor, wrap) for case in self.expected)


@dataclass(slots=True)
class _Frame:
    """What the segments say that a canary needs."""

    rows_at: int = 0
    rows: int = 0
    tables: dict[int, dict[Code, int]] | None = None
    table: int = 0
    predictor: int = 0
    shift: int = 0
    scan: int = 0


def with_canary(data: bytes) -> Canary | None:
    """Append a canary row; None where there can be none.

    Restart markers, a point transform, 65,535 rows, or a table of a single code (an image of one value).

    Args:
        data: SOI to EOI, of one component, whose segments `read_jpeg` accepted.
    """
    frame = _read(data)
    if frame is None or frame.shift or not 2 <= frame.rows < _MOST_ROWS or not 1 <= frame.predictor <= 7:
        return None
    codes = (frame.tables or {}).get(frame.table, {})
    bits = _canary_bits(codes)
    end = len(data) - 2
    while data[end - 1 : end] == _MARKER:  # fill bytes before EOI
        end -= 1
    entropy = data[frame.scan : end]
    if bits is None or not entropy:
        return None
    last = entropy[-2] if entropy.endswith(_STUFFED) else entropy[-1]
    cases = tuple(_parse(f"{last:08b}"[8 - fill :] + bits, codes) for fill in range(8))
    changed = bytearray(data[:end])
    struct.pack_into(">H", changed, frame.rows_at, frame.rows + 1)
    # A last byte of ones and no stuffing after it would make a marker of the canary.
    stuffing = b"\0" if entropy.endswith(_MARKER) else b""
    return Canary(bytes(changed) + stuffing + _packed(bits) + b"\xff\xd9", frame.predictor, cases)


def _read(data: bytes) -> _Frame | None:
    """Walk the segments to the scan; None if there are restart intervals."""
    frame, position = _Frame(), 2
    tables: dict[int, dict[Code, int]] = {}
    while True:
        while data[position + 1] == 0xFF:
            position += 1
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        body = data[position + 4 : position + 2 + length]
        if marker == DHT:
            tables |= _tables(body)
        elif marker == DRI and any(body):
            return None
        elif marker == SOF3:
            frame.rows_at = position + 5
            (frame.rows,) = struct.unpack_from(">H", body, 1)
        elif marker == SOS:
            frame.table, frame.predictor, frame.shift = body[2] >> 4, body[-3], body[-1] & 15
            frame.tables, frame.scan = tables, position + 2 + length
            return frame
        position += 2 + length


def _tables(body: bytes) -> dict[int, dict[Code, int]]:
    """Destination → code → symbol (T.81 B.2.4.2, C.2)."""
    tables: dict[int, dict[Code, int]] = {}
    position = 0
    while position + 17 <= len(body):
        counts = body[position + 1 : position + 17]
        symbols = body[position + 17 : position + 17 + sum(counts)]
        codes: dict[Code, int] = {}
        code = used = 0
        for length, count in enumerate(counts, 1):
            for symbol in symbols[used : used + count]:
                codes[length, code] = symbol
                code += 1
            used += count
            code <<= 1
        tables[body[position] & 15] = codes
        position += 17 + sum(counts)
    return tables


def _canary_bits(codes: dict[Code, int]) -> str | None:
    """A fixed walk through the four shortest codes, with varying differences, as text of 0 and 1."""
    usable = sorted((code, symbol) for code, symbol in codes.items() if symbol < 16)[:4]
    if len(usable) < 2:
        return None
    parts = []
    state = 1
    for _ in range(_SYMBOLS):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        (length, code), symbol = usable[(state >> 16) % len(usable)]
        parts.append(f"{code:0{length}b}")
        if symbol:
            parts.append(f"{(state >> 8) & ((1 << symbol) - 1):0{symbol}b}")
    return "".join(parts)


def _parse(bits: str, codes: dict[Code, int]) -> tuple[int, ...]:
    """Differences as libjpeg-turbo decodes them: no code of 16 bits is one of 17, and means 0."""
    values: list[int] = []
    position = 0
    while len(values) < _SEEN:
        symbol, length = 0, 17
        for tried in range(1, 17):
            found = codes.get((tried, int(bits[position : position + tried], 2)))
            if found is not None:
                symbol, length = found, tried
                break
        position += length
        values.append(_difference(symbol, bits[position : position + symbol % 16]))
        position += symbol % 16
    return tuple(values)


def _difference(symbol: int, extra: str) -> int:
    """T.81 H.1.2.2: as many bits as the symbol says, negative if the first is 0; 16 is 32,768 without bits."""
    if symbol == 0:
        return 0
    if symbol >= 16:
        return 32_768
    number = int(extra, 2)
    return number if extra[0] == "1" else number - (1 << symbol) + 1


def _packed(bits: str) -> bytes:
    padded = bits + "1" * (-len(bits) % 8)
    raw = int(padded, 2).to_bytes(len(padded) // 8)
    return raw.replace(_MARKER, _STUFFED)


def _row(differences: Sequence[int], above: Sequence[int], predictor: int, wrap: int) -> list[int]:
    """Samples of a row from its differences and the row above (T.81 H.1.2.1): 16 bits, of which `wrap` are kept."""
    row = [(above[0] + differences[0]) & 0xFFFF]
    for x in range(1, len(above)):
        a, b, c = row[-1], above[x], above[x - 1]
        prediction = (
            a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1,
        )[predictor - 1]  # fmt: skip
        row.append((prediction + differences[x]) & 0xFFFF)
    return [value & wrap for value in row]
