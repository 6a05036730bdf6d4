"""What a Huffman-coded JPEG frame of one component says: its tables, where its data are, where to append to.

In:  a complete frame, SOI to EOI, whose segments `read_jpeg` accepted.
Out: Frame; a frame with more rows and more entropy-coded bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

DHT, DRI, SOS = 0xC4, 0xDD, 0xDA
SEQUENTIAL = frozenset((0xC0, 0xC1))
LOSSLESS = 0xC3
_NO_CODE_BITS = 17
"""libjpeg-turbo reads as many bits before it says that there is no such code, and goes on with symbol 0."""
MOST_ROWS = 65_535

Codes = dict[tuple[int, int], int]
"""(length in bits, code) → symbol."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One scan of one component."""

    data: bytes
    process: int
    """Low byte of SOF."""
    rows_at: int
    rows: int
    columns: int
    precision: int
    restart_interval: int
    """Samples (blocks, if sequential) between restart markers; 0: there are none."""
    first: Codes
    """The DC table, or the only one of a lossless scan."""
    second: Codes
    """The AC table."""
    predictor: int
    """Ss."""
    shift: int
    """Al."""
    scan: int
    """Where the entropy-coded data begin."""
    end: int
    """Where they end."""

    def fills(self) -> tuple[str, ...]:
        """The bits that may lie between the last code and the last byte's end: 0 to 7, all 1 or all 0."""
        entropy = self.data[self.scan : self.end]
        last = entropy[-2] if entropy.endswith(b"\xff\x00") else entropy[-1]
        ends = (f"{last:08b}"[8 - fill :] for fill in range(8))
        return tuple(end for end in ends if len(set(end)) < 2)

    def extended(self, rows: int, bits: str) -> bytes:
        """The same frame with `rows` rows, and `bits` after its entropy-coded data."""
        changed = bytearray(self.data[: self.end])
        struct.pack_into(">H", changed, self.rows_at, rows)
        # A last byte of ones without its stuffing would make a marker of what follows.
        stuffing = b"\0" if self.data[self.end - 1] == 0xFF else b""
        padded = bits + "1" * (-len(bits) % 8)
        packed = int(padded, 2).to_bytes(len(padded) // 8).replace(b"\xff", b"\xff\x00")
        return bytes(changed) + stuffing + packed + b"\xff\xd9"


def read_frame(data: bytes) -> Frame | None:  # noqa: C901 - one walk, a branch a marker
    """Walk the segments to the scan; None where it has no process of ours, no code table, or no data."""
    position, process, rows_at, precision, rows, columns, restart_interval = 2, 0, 0, 0, 0, 0, 0
    tables: dict[int, Codes] = {}
    while True:
        while data[position + 1] == 0xFF:
            position += 1
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        body = data[position + 4 : position + 2 + length]
        position += 2 + length
        if marker == DHT:
            tables |= _tables(body)
        elif marker == DRI:
            restart_interval = int.from_bytes(body[:2])
        elif marker in SEQUENTIAL or marker == LOSSLESS:
            process, rows_at = marker, position - length + 3
            precision, rows, columns = struct.unpack_from(">BHH", body)
        elif marker == SOS:
            break
    end = len(data) - 2
    while data[end - 1] == 0xFF:  # fill bytes before EOI
        end -= 1
    first, second = tables.get(body[2] >> 4, {}), tables.get(0x10 | body[2] & 15, {})
    usable = process and first and end > position
    if not usable:
        return None
    return Frame(
        data=data,
        process=process,
        rows_at=rows_at,
        rows=rows,
        columns=columns,
        precision=precision,
        restart_interval=restart_interval,
        first=first,
        second=second,
        predictor=body[-3],
        shift=body[-1] & 15,
        scan=position,
        end=end,
    )


def _tables(body: bytes) -> dict[int, Codes]:
    """Class and destination → codes (T.81 B.2.4.2, C.2)."""
    tables: dict[int, Codes] = {}
    position = 0
    while position + 17 <= len(body):
        counts = body[position + 1 : position + 17]
        symbols = body[position + 17 : position + 17 + sum(counts)]
        codes: Codes = {}
        code = used = 0
        for length, count in enumerate(counts, 1):
            for symbol in symbols[used : used + count]:
                codes[length, code] = symbol
                code += 1
            used += count
            code <<= 1
        tables[body[position]] = codes
        position += 17 + sum(counts)
    return tables


def next_symbol(bits: str, position: int, codes: Codes) -> tuple[int, int]:
    """Symbol of the code at `position`, and where it ends."""
    for length in range(1, 17):
        symbol = codes.get((length, int(bits[position : position + length], 2)))
        if symbol is not None:
            return symbol, position + length
    return 0, position + _NO_CODE_BITS
