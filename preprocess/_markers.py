"""Bytes that no encoder leaves inside JPEG 2000 packets: what damage looks like that decoders read over.

In:  a bare, complete codestream with headers that `_j2k.read_j2k` accepted.
Out: where its first impossible byte pair lies, or None.

Bit stuffing keeps the pairs FF90 to FFFF out of packet headers and bodies (T.800 B.10.1 and C.2.2, T.814 7.1
for HT code-blocks), but for the markers SOP and EPH where COD allows them.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from preprocess._j2k import COD, EOC_BYTES, SOD, SOT
from preprocess.compiled import compiled

_SOP, _EPH = 0x02, 0x04
"""Bits of Scod."""


def impossible(codestream: bytes) -> int | None:
    """Byte offset of the first pair above FF8F inside a packet that is no marker allowed there."""
    data = np.frombuffer(codestream, np.uint8)
    style, position = 0, 2
    while position + 4 <= len(codestream):
        marker, length = struct.unpack_from(">HH", codestream, position)
        if 0xFF30 <= marker <= 0xFF3F:
            position += 2
            continue
        if marker == SOT:
            position = _after_tile_part(codestream, data, position, style)
            if position < 0:
                return -1 - position
            continue
        if marker == COD:
            style = codestream[position + 4]
        position += 2 + length
    return None


def _after_tile_part(codestream: bytes, data: npt.NDArray[np.uint8], position: int, style: int) -> int:
    """Where a tile-part ends; −1 − offset where something impossible is in it."""
    (psot,) = struct.unpack_from(">I", codestream, position + 6)
    end = position + psot if psot else codestream.find(EOC_BYTES, position)
    at = position + 12
    while True:
        (marker,) = struct.unpack_from(">H", codestream, at)
        if marker == SOD:
            break
        if 0xFF30 <= marker <= 0xFF3F:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", codestream, at + 2)
        if marker == COD:
            style = codestream[at + 4]
        at += 2 + length
    found = int(_first_impossible(data, at + 2, end, bool(style & _SOP), bool(style & _EPH)))
    return end if found < 0 else -1 - found


@compiled
def _first_impossible(data: npt.NDArray[np.uint8], start: int, end: int, sop: bool, eph: bool) -> int:
    place = start
    while place + 1 < end:
        if data[place] != 0xFF or data[place + 1] <= 0x8F:
            place += 1
        elif sop and data[place + 1] == 0x91 and place + 6 <= end and data[place + 3] == 4:
            place += 6  # its Nsop may be any number
        elif eph and data[place + 1] == 0x92:
            place += 2
        else:
            return place
    return -1
