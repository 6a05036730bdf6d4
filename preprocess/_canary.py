"""Whether a JPEG's entropy-coded data hold exactly the declared pixels, at the price of one more row.

In:  a complete sequential JPEG frame (T.81 Annex F) of one component.
Out: the frame with a known row appended; later, whether that row was decoded as it must be.

Huffman codes have no checksum, and libjpeg-turbo fills in for what is missing and leaves what is too much.
But a damaged code changes how many bits are read, and after the last pixel the decoder stands elsewhere than
the data end. So a row of known content (the canary) is appended and the frame header says one row more:
decoded wrongly, it tells of damage anywhere before it. The bits that fill the last byte (0 to 7; ones, says
T.81 F.1.2.3, which not all encoders heed, but never a mixture) come between, and are decoded as whatever they
look like: each number of them is a case that is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess._huffman import MOST_ROWS, SEQUENTIAL, Codes, Frame, next_symbol, read_frame

_SYMBOLS = 128
"""Length of the canary; the rest of its row is whatever the decoder makes of no data."""
_SEEN = 24
"""How much of it is compared."""
_BLOCK = 8
_FEWEST_BLOCKS = 6
_LONGEST_SYMBOL = 33
"""Bits of a code that does not exist and of 16 extra bits."""
_LARGEST_AC = 7
"""Bits of the canary's coefficient: far from 0, and within what any quantisation leaves in range."""

_Pixels = npt.NDArray[np.integer[Any]]


@dataclass(slots=True)
class Canary:
    """A frame with a canary row."""

    data: bytes
    rows: int
    """Rows of the image itself."""
    cases: tuple[tuple[bool | None, ...], ...]
    """Which blocks of the row are flat, for each number of fill bits; None where it cannot be said."""

    def survived(self, decoded: _Pixels) -> bool:
        """Whether what was decoded of `data` ends with the canary, for any number of fill bits."""
        blocks = min(_SEEN, decoded.shape[1] // _BLOCK)
        if blocks < _FEWEST_BLOCKS:
            return True
        row = decoded[-_BLOCK:, : blocks * _BLOCK].reshape(_BLOCK, blocks, _BLOCK)
        flat = row.max(axis=(0, 2)) == row.min(axis=(0, 2))
        return any(
            all(wanted in (None, bool(seen)) for wanted, seen in zip(case, flat, strict=False))
            for case in self.cases
        )


def with_canary(data: bytes) -> Canary | None:
    """Append a canary row; None where there can be none.

    Restart intervals, a point transform, 65,535 rows, progressive scans, tables of too few codes (an image of
    one value).

    Args:
        data: SOI to EOI, of one component, whose segments `read_jpeg` accepted.
    """
    frame = read_frame(data)
    if frame is None or frame.process not in SEQUENTIAL or frame.restart_interval or frame.shift:
        return None
    if frame.rows < 2 or frame.rows + 2 * _BLOCK > MOST_ROWS:
        return None
    return _sequential(frame)


def _numbers() -> Sequence[int]:
    """Fixed numbers without a pattern, below 2^31."""
    state, numbers = 1, []
    for _ in range(_SYMBOLS):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        numbers.append(state)
    return numbers


def _coded(codes: Codes, symbol: int) -> str:
    length, code = min(key for key, there in codes.items() if there == symbol)
    return f"{code:0{length}b}"


def _difference(symbol: int, extra: str) -> int:
    """T.81 H.1.2.2: as many bits as the symbol says, negative if the first is 0; 16 is 32,768, no bits."""
    if symbol == 0:
        return 0
    if symbol >= 16:
        return 32_768
    number = int(extra, 2)
    return number if extra[0] == "1" else number - (1 << symbol) + 1


def _sequential(frame: Frame) -> Canary | None:
    """Blocks without a DC difference, where the table has that; some with the first AC coefficient."""
    strong = max((s for s in frame.second.values() if s >> 4 == 0 and 2 <= s <= _LARGEST_AC), default=0)
    if not strong or 0 not in frame.second.values() or 0 not in frame.first.values():
        return None
    end, parts = _coded(frame.second, 0), []
    for number in _numbers():
        parts.append(_coded(frame.first, 0))
        parts.append((_coded(frame.second, strong) + "1" * strong if number >> 16 & 1 else "") + end)
    bits = "".join(parts)
    cases = tuple(tuple(_read_blocks(fill + bits, frame, strong)) for fill in frame.fills())
    blocks = -(-frame.rows // _BLOCK) + 1
    return Canary(frame.extended(blocks * _BLOCK, bits), frame.rows, cases)


def _read_blocks(bits: str, frame: Frame, strong: int) -> list[bool | None]:
    blocks: list[bool | None] = []
    position = offset = 0
    while len(blocks) < _SEEN and position + _LONGEST_SYMBOL <= len(bits):
        level, position = next_symbol(bits, position, frame.first)
        # Fill bits taken for a code may shift all blocks, perhaps so far that no coefficient is seen.
        offset += _difference(level, bits[position : position + level % 16])
        position += level % 16
        coefficients: list[tuple[int, int]] = []
        k = 1
        while k < _BLOCK * _BLOCK:
            if position + _LONGEST_SYMBOL > len(bits):
                return [*blocks, None]
            symbol, position = next_symbol(bits, position, frame.second)
            run, size = symbol >> 4, symbol & 15
            if size == 0 and run != 15:
                break
            k += run + 1
            if size:
                coefficients.append((k - 1, size))
                position += size
        known = not coefficients or (coefficients == [(1, strong)] and abs(offset) << 2 <= 1 << strong)
        blocks.append(not coefficients if known else None)
    return blocks
