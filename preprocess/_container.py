"""Where the data set of a DICOM file lies, and how it is encoded.

In:  the file's bytes (or the first of them).
Out: Container: the data set's bytes (inflated where deflated), its encoding, its transfer syntax.

Files in the wild have no preamble, a preamble of another length, no file meta information, a wrong group
length, or a transfer syntax that the data set does not follow; each is found by content (PS3.10 7.1, 7.3).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from preprocess.config import ResultConfig
from preprocess.errors import RejectedInput

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""VRs with a 32-bit length after two reserved bytes (PS3.5 Table 7.1-1)."""
SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split(),
)
ALL_VRS = LONG_VRS | SHORT_VRS

_META_SEARCH = 1024
_META_START = re.compile(rb"\x02\x00[\x00\x01\x02\x03\x10]\x00(?:UL|OB|UI)", re.DOTALL)
_FIRST_GROUPS = (0x0000, 0x0004, 0x0008, 0x0010)
_LONGEST_FIRST_VALUE = 1024
_INFLATE_STEP = 1 << 20


class Incomplete(Exception):
    """The header goes on beyond the bytes at hand: a request for more. Never leaves preprocess.dicom."""


@dataclass(frozen=True, slots=True)
class VrEncoding:
    """How data elements are written."""

    implicit: bool
    little: bool


@dataclass(frozen=True, slots=True)
class Container:
    """A data set inside a file."""

    data: bytes
    """File bytes, or the inflated data set."""
    start: int
    """Where the data set begins in `data`."""
    encoding: VrEncoding
    transfer_syntax_uid: str
    """As declared, or guessed from the data set where there is none."""
    media_sop_class_uid: str | None
    inflated: bool = False


def looks_like_dicom(head: bytes) -> bool:
    """Say whether content is DICOM, by the first 132 or more bytes, also without preamble or file meta.

    Args:
        head: The first bytes of a file; 1,024 suffice for every case that `scan` accepts.
    """
    return head[128:132] == b"DICM" or _meta_start(head) is not None or _sniff(head, 0) is not None


def open_container(data: bytes, config: ResultConfig, *, whole: bool) -> Container:
    """Find the data set.

    Args:
        data: The file's bytes, or the first of them.
        config: Limits of inflation.
        whole: Whether `data` is the whole file.

    Raises:
        Incomplete: `data` is not the whole file, and the data set is deflated or begins later.
        RejectedInput: not_dicom, corrupt_header, inflate_limit.
    """
    start = _meta_start(data)
    if start is None:
        encoding = _sniff(data, 0)
        if encoding is None:
            code = "corrupt_header" if data[128:132] == b"DICM" else "not_dicom"
            raise RejectedInput(code, "no DICOM file meta information or data set found")
        return Container(data, 0, encoding, _guess(encoding), None)
    meta, position = _read_meta(data, start, whole=whole)
    syntax, media = meta.get(0x0010), meta.get(0x0002)
    if syntax == DEFLATED:
        if not whole:
            raise Incomplete
        inflated = inflate(data[position:], config)
        return Container(inflated, 0, _encoding(inflated, 0, syntax), syntax, media, inflated=True)
    encoding = _encoding(data, position, syntax)
    return Container(data, position, encoding, syntax or _guess(encoding), media)


def inflate(data: bytes, config: ResultConfig) -> bytes:
    """Inflate a deflated data set within the byte and ratio limits (PS3.5 A.5: raw deflate).

    Raises:
        RejectedInput: inflate_limit, corrupt_header (not deflate data, or cut short).
    """
    limit = min(config.max_inflate_bytes, max(len(data) * config.max_inflate_ratio, _INFLATE_STEP))
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    size, pending = 0, data
    try:
        while not stream.eof and (pending or parts):
            part = stream.decompress(pending, min(_INFLATE_STEP, limit + 1 - size))
            pending = stream.unconsumed_tail
            size += len(part)
            if size > limit:
                raise RejectedInput("inflate_limit", f"the data set inflates beyond {limit} bytes")
            if not part and not pending:
                break
            parts.append(part)
    except zlib.error:
        raise RejectedInput("corrupt_header", "the deflated data set cannot be inflated") from None
    if not stream.eof:
        raise RejectedInput("corrupt_header", "the deflated data set ends early")
    inflated = b"".join(parts)
    # Some writers leave gzip's trailer, which is a checksum; others pad. Anything else is left of damage.
    trailer = struct.pack("<II", zlib.crc32(inflated), len(inflated) & 0xFFFFFFFF)
    if stream.unused_data.strip(b"\0") and stream.unused_data != trailer:
        raise RejectedInput("corrupt_header", "neither padding nor a checksum follows the deflated data set")
    return inflated


def _meta_start(data: bytes) -> int | None:
    """Position of group 0002, looked for after the prefix first."""
    if data[128:132] == b"DICM" and data[132:134] == b"\x02\x00":
        return 132
    found = _META_START.search(data[:_META_SEARCH])
    return found.start() if found else None


def _read_meta(data: bytes, start: int, *, whole: bool) -> tuple[dict[int, str], int]:
    """UIDs of group 0002 by element, and where it ends. The group length is often wrong: not used."""
    meta: dict[int, str] = {}
    position = start
    while data[position : position + 2] == b"\x02\x00" and position + 8 <= len(data):
        element, vr, length = struct.unpack_from("<H2sH", data, position + 2)
        value = position + 8
        if vr in LONG_VRS and position + 12 <= len(data):
            length, value = struct.unpack_from("<I", data, position + 8)[0], position + 12
        elif vr not in SHORT_VRS:
            length = struct.unpack_from("<I", data, position + 4)[0]
        if value + length > len(data):
            if not whole:
                raise Incomplete
            raise RejectedInput("corrupt_header", f"(0002,{element:04X}) ends after the end of the file")
        if vr == b"UI" or element in (0x0002, 0x0010):
            meta[element] = data[value : value + length].decode("ascii", "replace").strip("\0 ")
        position = value + length
    return meta, position


def _encoding(data: bytes, position: int, syntax: str | None) -> VrEncoding:
    """The encoding that the transfer syntax says, unless the first data element shows another."""
    declared = VrEncoding(implicit=syntax == IMPLICIT_LITTLE, little=syntax != EXPLICIT_BIG)
    return _sniff(data, position) or declared


def _guess(encoding: VrEncoding) -> str:
    if not encoding.little:
        return EXPLICIT_BIG
    return IMPLICIT_LITTLE if encoding.implicit else EXPLICIT_LITTLE


def _sniff(data: bytes, position: int) -> VrEncoding | None:
    """Encoding of the data element at `position`, None if there is none that a data set begins with."""
    if position + 12 > len(data):
        return None
    for little in (True, False):
        order = "<" if little else ">"
        group, element, length = struct.unpack_from(order + "HHI", data, position)
        if group not in _FIRST_GROUPS or (group == 0 and element):
            continue
        if data[position + 4 : position + 6] in ALL_VRS:
            return VrEncoding(implicit=False, little=little)
        if little and length <= _LONGEST_FIRST_VALUE and _follows(data, position, length):
            return VrEncoding(implicit=True, little=True)
    return None


def _follows(data: bytes, position: int, length: int) -> bool:
    """Whether an implicit element of this length is followed by a plausible, larger tag."""
    following = position + 8 + length
    if length % 2 or following + 8 > len(data):
        return False
    group, element = struct.unpack_from("<HH", data, position)
    next_group, next_element = struct.unpack_from("<HH", data, following)
    return bool((group, element) < (next_group, next_element) and next_group <= 0x0040)
