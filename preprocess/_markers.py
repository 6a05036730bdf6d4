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

from preprocess._j2k import COD, EOC_BYTES, segments
from preprocess.compiled import compiled

_SOT = b"\xff\x90"
_SOP, _EPH = 0x02, 0x04
"""Bits of Scod."""


def impossible(codestream: bytes) -> int | None:
    """Byte offset of the first pair above FF8F inside a packet that is no marker allowed there."""
    data = np.frombuffer(codestream, np.uint8)
    style, position = _header(codestream, 2, 0)
    while codestream[position : position + 2] == _SOT:
        (psot,) = struct.unpack_from(">I", codestream, position + 6)
        end = position + psot if psot else codestream.find(EOC_BYTES, position)
        own, start = _header(codestream, position + 12, style)
        found = int(_first_impossible(data, start + 2, end, bool(own & _SOP), bool(own & _EPH)))
        if found >= 0:
            return found
        position = end
    return None


def _header(codestream: bytes, position: int, style: int) -> tuple[int, int]:
    """Scod after a header, `style` where it does not say, and the place of the marker that ends it."""
    end = position
    for marker, end in segments(codestream, position):
        if marker == COD:
            style = codestream[end + 4]
    return style, end


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
