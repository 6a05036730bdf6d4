"""JPEG Lossless (ITU-T T.81 process 14, SOF3) of one component, decoded to the last bit.

In:  a complete frame, SOI to EOI, whose segments `read_jpeg` accepted.
Out: its samples, or RejectedInput where the entropy-coded data hold other than exactly the declared samples.

Huffman codes have no checksum; but a damaged code changes how many bits are read, and after the last sample
the decoder stands elsewhere than the data end. So each restart interval must end within the last byte of its
data, and what fills that byte must be all ones, as T.81 F.1.2.3 says, or all zeros, as some encoders do.

The first bits of what is to be read index a table of whole differences (code and extra bits together): nearly
all of them are that short. Longer ones take two steps.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from numba import int64, uint64

from preprocess._huffman import LOSSLESS, Codes, Frame, read_frame
from preprocess.compiled import compiled, inlined
from preprocess.errors import RejectedInput

_Bytes = npt.NDArray[np.uint8]
_Table = npt.NDArray[np.int32]
_Tables = tuple[_Table, _Table]
_Samples = npt.NDArray[np.uint16]

_SHORT_BITS = 13
"""Bits that index the table of short differences: 32 KB nearly stay in the fastest cache."""
_PER_FILL = 4
"""Short differences that are read before the buffer of 56 or more bits is looked after again."""
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_MOST_BITS = 16
_HALVING = 5
"""Predictors from here on halve what they add: samples that wrap matter."""

_ONES = uint64(0xFFFF_FFFF_FFFF_FFFF)
_LOW_BITS = uint64(0x0101_0101_0101_0101)
_HIGH_BITS = uint64(0x8080_8080_8080_8080)
_SHORT_SHIFT = uint64(64 - _SHORT_BITS)


def decode(data: bytes) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Decode a lossless frame: uint8 for precisions up to 8, else uint16, (rows, columns).

    Raises:
        RejectedInput: decode_failed for codes that do not exist, more or fewer bits than the samples need,
            values beyond the precision, restart intervals that are not whole rows.
    """
    frame = read_frame(data)
    if frame is None or frame.process != LOSSLESS or not 1 <= frame.predictor <= 7:
        raise _failed("the lossless scan has no code table, no data or no predictor")
    if not 0 <= frame.shift < frame.precision or frame.restart_interval % frame.columns:
        raise _failed("impossible point transform, or restart intervals that are not whole rows")
    if any(code >> length for length, code in frame.first):
        raise _failed("a code table of more codes than there are")
    pixels = np.empty((frame.rows, frame.columns), np.uint16)
    used = _decode_intervals(frame, pixels)
    if frame.precision <= 8 and frame.predictor < _HALVING:
        used &= (
            0xFF  # encoders may reckon modulo 2^8: the predictions are the same, and decoders keep no more
        )
    if used >> (frame.precision - frame.shift):
        raise _failed(f"decoded values of more than {frame.precision} bits")
    if frame.shift:
        pixels <<= np.uint16(frame.shift)
    return pixels.astype(np.uint8) if frame.precision <= 8 else pixels


def _decode_intervals(frame: Frame, pixels: _Samples) -> int:
    """Fill the rows, interval by interval; all samples OR-ed."""
    entropy = np.frombuffer(frame.data, np.uint8)
    tables = _short_differences(frame.first), _long_codes(frame.first)
    first_value = 1 << (frame.precision - frame.shift - 1)
    step = frame.restart_interval // frame.columns or frame.rows
    starts = range(0, frame.rows, step)
    spans = _intervals(frame)
    if len(spans) != len(starts):
        raise _failed(f"{len(spans)} restart intervals, {len(starts)} expected")
    used = 0
    for row, span in zip(starts, spans, strict=True):
        rows = pixels[row : row + step]
        exact, seen = _decode_rows(entropy, span, tables, frame.predictor, first_value, rows)
        if not exact:
            raise _failed("the entropy-coded data hold more or less than is declared")
        used |= int(seen)
    return used


def _intervals(frame: Frame) -> list[tuple[int, int]]:
    """Where each restart interval's data begin and end, without fill bytes and marker."""
    if not frame.restart_interval:
        return [(frame.scan, frame.end)]
    spans, start = [], frame.scan
    for match in _RESTART.finditer(frame.data, frame.scan, frame.end):
        end = match.start()
        while end > start and frame.data[end - 1] == 0xFF:
            end -= 1
        spans.append((start, end))
        start = match.end()
    return [*spans, (start, frame.end)]


def _failed(message: str) -> RejectedInput:
    return RejectedInput("decode_failed", message)


def _short_differences(codes: Codes) -> _Table:
    """Per first bits: (difference << 6) + bits of code and extra bits together; 0 where they are more."""
    table = np.zeros(1 << _SHORT_BITS, np.int32)
    for (length, code), symbol in codes.items():
        bits = length + symbol
        if symbol >= _MOST_BITS or bits > _SHORT_BITS:
            continue
        extra = np.arange(1 << symbol)
        half = 1 << symbol >> 1
        difference = np.where(extra < half, extra - (1 << symbol) + 1, extra)
        entries = np.repeat((difference << 6) + bits, 1 << (_SHORT_BITS - bits))
        start = code << (_SHORT_BITS - length)
        table[start : start + entries.size] = entries
    return table


def _long_codes(codes: Codes) -> _Table:
    """Per 16 bits: (symbol << 5) + bits of the code; 0 where there is no such code."""
    table = np.zeros(1 << _MOST_BITS, np.int32)
    for (length, code), symbol in codes.items():
        if symbol <= _MOST_BITS:
            start = code << (_MOST_BITS - length)
            table[start : start + (1 << (_MOST_BITS - length))] = (symbol << 5) + length
    return table


@compiled
def _decode_rows(
    data: _Bytes, span: tuple[int, int], tables: _Tables, predictor: int, first: int, rows: _Samples
) -> tuple[bool, int]:
    """Decode one restart interval, data[span[0]:span[1]], into `rows` (T.81 H.1.2, H.2).

    Returns:
        Whether it holds exactly these samples; all samples OR-ed.
    """
    sums = np.empty(rows.shape[1], np.uint16)
    position, buffer, bits, seen = span[0], uint64(0), 0, 0
    end = span[1]
    for row in range(rows.shape[0]):
        plain = row == 0 or predictor == 1
        before = first if row == 0 else int64(rows[row - 1, 0])
        position, buffer, bits, row_seen = _read_row(
            data, position, end, buffer, bits, tables, before if plain else 0, rows[row] if plain else sums
        )
        if bits < 0:
            return False, seen
        seen |= row_seen if plain else _undo(sums, predictor, rows[row - 1], rows[row])
    position, buffer, bits = _fill_by_bytes(data, position, end, buffer, bits)
    fill = buffer >> uint64(56)
    kept = uint64(0xFF00) >> uint64(bits) & uint64(0xFF) if bits <= 7 else uint64(0)
    return position >= end and bits <= 7 and (fill & kept == 0 or fill & kept == kept), seen


@compiled
def _read_row(
    data: _Bytes, position: int, end: int, buffer: int, bits: int, tables: _Tables, value: int, row: _Samples
) -> tuple[int, int, int, int]:
    """Read a row's differences and sum them up from `value` on, modulo 2^16: predictor 1 (T.81 table H.1).

    Returns:
        position, buffer, bits in it (−1 where code or data are missing), all sums OR-ed. The buffer's highest
        bit is the next one; bits below the valid ones may be set, as in the bytes to come.
    """
    short, long = tables
    index, seen = 0, np.uint16(0)
    while index < row.size:
        word = _ONES
        if position + 8 <= end:
            word = _word(data, position)
        if (~word - _LOW_BITS) & word & _HIGH_BITS == 0:  # no byte is FF
            buffer |= word >> uint64(bits)
            taken = (63 - bits) >> 3
            position += taken
            bits += taken << 3
        else:
            position, buffer, bits = _fill_by_bytes(data, position, end, buffer, bits)
        stop = min(row.size, index + _PER_FILL)
        while index < stop:
            entry = short[buffer >> _SHORT_SHIFT]
            if entry == 0:
                stop = index + 1
                difference, position, buffer, bits = _long(data, position, end, buffer, bits, long)
                value += difference
            else:
                value += entry >> 6
                buffer <<= uint64(entry & 63)
                bits -= entry & 63
            row[index] = value
            seen |= np.uint16(value)
            index += 1
        if bits < 0:
            return position, buffer, -1, int64(seen)
    return position, buffer, bits, int64(seen)


@inlined
def _word(data: _Bytes, position: int) -> int:
    """Eight bytes, the first one highest."""
    word: int = uint64(0)
    for offset in range(8):
        word |= uint64(data[position + offset]) << uint64(56 - 8 * offset)
    return word


@compiled
def _fill_by_bytes(data: _Bytes, position: int, end: int, buffer: int, bits: int) -> tuple[int, int, int]:
    """Fill the buffer, without what is stuffed after FF (T.81 F.1.2.3) and fill bytes (B.1.1.2)."""
    buffer &= ~(_ONES >> uint64(bits))
    while bits <= 55 and position < end:
        byte = data[position]
        position += 1
        if byte == 0xFF:
            while position < end and data[position] == 0xFF:
                position += 1
            position += 1
        buffer |= uint64(byte) << uint64(56 - bits)
        bits += 8
    return position, buffer, bits


@compiled
def _long(
    data: _Bytes, position: int, end: int, buffer: int, bits: int, long: _Table
) -> tuple[int, int, int, int]:
    """One difference of any length: (difference, position, buffer, bits), bits −1 where there is no code."""
    if bits < 0:
        return 0, position, buffer, -1
    position, buffer, bits = _fill_by_bytes(data, position, end, buffer, bits)
    entry = int64(long[buffer >> uint64(48)])
    length, size = entry & 31, entry >> 5
    if length == 0:
        return 0, position, buffer, -1
    buffer <<= uint64(length)
    bits -= length
    if size == 0 or size == 16:
        return 32768 if size else 0, position, buffer, bits
    extra = int64(buffer >> uint64(64 - size))
    if extra < 1 << (size - 1):
        extra -= (1 << size) - 1
    return extra, position, buffer << uint64(size), bits - size


@compiled
def _undo(sums: _Samples, predictor: int, above: _Samples, row: _Samples) -> int:
    """Predictors 2 to 7 (T.81 table H.1), modulo 2^16; the first sample from above. All samples OR-ed.

    sums: of the row's differences so far.
    """
    a: int = (int64(above[0]) + int64(sums[0])) & 0xFFFF
    row[0] = a
    seen = a
    for column in range(1, row.size):
        b, c = int64(above[column]), int64(above[column - 1])
        if predictor == 2:
            prediction = b
        elif predictor == 3:
            prediction = c
        elif predictor == 4:
            prediction = a + b - c
        elif predictor == 5:
            prediction = a + ((b - c) >> 1)
        elif predictor == 6:
            prediction = b + ((a - c) >> 1)
        else:
            prediction = (a + b) >> 1
        a = (prediction + int64(sums[column]) - int64(sums[column - 1])) & 0xFFFF
        row[column] = a
        seen |= a
    return seen
