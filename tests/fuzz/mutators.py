"""Damage, as disks, networks, scripts and other people's software do it.

In:  a valid file and a random generator.
Out: another file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from random import Random

from bench.phantom_dicom import SYNTAXES

PIXEL_DATA = (0x7FE0, 0x0010)
_LIES: dict[tuple[int, int], tuple[int, ...]] = {
    (0x0028, 0x0002): (0, 2, 3, 65535),
    (0x0028, 0x0010): (0, 1, 2, 63, 65, 100, 128, 199, 201, 400, 65535),
    (0x0028, 0x0011): (0, 1, 2, 63, 65, 100, 128, 151, 260, 300, 65535),
    (0x0028, 0x0100): (0, 1, 8, 12, 16, 32, 64),
    (0x0028, 0x0101): (0, 1, 7, 8, 10, 12, 15, 16, 17),
    (0x0028, 0x0102): (0, 6, 7, 9, 11, 14, 15, 16),
    (0x0028, 0x0103): (0, 1, 2, 65535),
}


def flip_bits(data: bytearray, rng: Random) -> None:
    """One to eight single bits anywhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(132, len(data))] ^= 1 << rng.randrange(8)


def flip_header_bit(data: bytearray, rng: Random) -> None:
    """One bit before the pixels."""
    data[rng.randrange(132, _pixels(data)[0])] ^= 1 << rng.randrange(8)


def flip_pixel_bit(data: bytearray, rng: Random) -> None:
    """One bit of Pixel Data."""
    start, end = _pixels(data)
    data[rng.randrange(start, max(end, start + 1))] ^= 1 << rng.randrange(8)


def change_bytes(data: bytearray, rng: Random) -> None:
    """A few neighbouring bytes, to zeros, ones or noise: a bad sector in small."""
    start, size = rng.randrange(132, len(data)), rng.choice((1, 2, 4, 16, 64))
    for at in range(start, min(start + size, len(data))):
        data[at] = rng.choice((0, 0xFF, rng.randrange(256)))


def truncate(data: bytearray, rng: Random) -> None:
    """The end is missing."""
    del data[rng.choice((rng.randrange(len(data)), len(data) - rng.randrange(1, 64))) :]


def zero_tail(data: bytearray, rng: Random) -> None:
    """The end was never written: zeros."""
    start = rng.randrange(132, len(data))
    data[start:] = bytes(len(data) - start)


def zero_block(data: bytearray, rng: Random) -> None:
    """A block of the file is lost."""
    start = rng.randrange(132, len(data))
    size = min(rng.choice((32, 512, 4096)), len(data) - start)
    data[start : start + size] = bytes(size)


def delete_block(data: bytearray, rng: Random) -> None:
    """Bytes are missing in the middle."""
    start = rng.randrange(132, len(data))
    del data[start : start + rng.choice((1, 2, 8, 64, 512))]


def duplicate_block(data: bytearray, rng: Random) -> None:
    """Bytes come twice."""
    start = rng.randrange(132, len(data))
    data[start:start] = data[start : start + rng.choice((1, 2, 8, 64, 512))]


def move_block(data: bytearray, rng: Random) -> None:
    """Bytes are found elsewhere."""
    start, size = rng.randrange(132, len(data)), rng.choice((2, 16, 256, 1024))
    block = data[start : start + size]
    del data[start : start + size]
    to = rng.randrange(132, len(data) + 1)
    data[to:to] = block


def lie_in_header(data: bytearray, rng: Random) -> None:
    """Another value where a decoder looks for size, width or sign."""
    tag = rng.choice(sorted(_LIES))
    order = _order(data)
    at = _find(data, tag)
    if at is not None:
        data[at : at + 2] = struct.pack(order + "H", rng.choice(_LIES[tag]))


def claim_frames(data: bytearray, rng: Random) -> None:
    """A Number of Frames, or another one."""
    order, at = _order(data), _find(data, (0x0028, 0x0010))
    if at is None:
        return
    text = rng.choice((b"0 ", b"2 ", b"10", b"10000 ", b"-1", b"1e", b"\xff\xff"))
    explicit = data[at - 4 : at - 2] == b"US"
    head = struct.pack(order + "HH", 0x0028, 0x0008)
    length = b"IS" + struct.pack(order + "H", len(text)) if explicit else struct.pack("<I", len(text))
    data[at - 8 : at - 8] = head + length + text


def swap_syntax(data: bytearray, rng: Random) -> None:
    """Another transfer syntax in the file meta information."""
    at = data.find(b"\x02\x00\x10\x00UI")
    if at < 0:
        return
    (length,) = struct.unpack_from("<H", data, at + 6)
    uid = rng.choice(sorted(SYNTAXES.values())).encode()
    uid += b"\0" * (len(uid) % 2)
    data[at + 6 : at + 8 + length] = struct.pack("<H", len(uid)) + uid


def edit_segment(data: bytearray, rng: Random) -> None:
    """A byte of a marker segment of the codestream, or its length."""
    segments = _segments(data)
    if not segments:
        return flip_pixel_bit(data, rng)
    start, end = rng.choice(segments)
    if rng.random() < 0.25:
        data[start + 2 : start + 4] = struct.pack(">H", rng.choice((0, 1, 2, 3, end - start, 65535)))
    else:
        at = rng.randrange(start + 1, end)
        data[at] = rng.choice((0, 1, 0xFF, data[at] ^ (1 << rng.randrange(8))))
    return None


def edit_segments(data: bytearray, rng: Random) -> None:
    """A marker segment less, one twice, or two in another order; half the time the fragment fits again."""
    segments = _segments(data)
    if len(segments) < 2:
        return move_block(data, rng)
    one, other = sorted(rng.sample(segments, 2))
    first, second = bytes(data[slice(*one)]), bytes(data[slice(*other)])
    before = len(data)
    kind = rng.randrange(3)
    if kind == 0:
        del data[slice(*one)]
    elif kind == 1:
        data[other[0] : other[0]] = first
    else:
        data[slice(*other)] = first
        data[slice(*one)] = second
    if rng.random() < 0.5:
        _adjust_fragment(data, one[0], len(data) - before)
    return None


def cut_codestream(data: bytearray, rng: Random) -> None:
    """Entropy-coded bytes less or more, and a fragment whose length knows of it."""
    fragment = _fragments(data)[-1] if _fragments(data) else None
    if fragment is None or fragment[1] - fragment[0] < 80:
        return truncate(data, rng)
    size = 2 * rng.choice((1, 2, 8, 32, (fragment[1] - fragment[0]) // 8))
    at = rng.randrange(fragment[0] + 40, fragment[1] - 1)
    if rng.random() < 0.5:
        size = min(size, fragment[1] - at)
        del data[at : at + size]
        _adjust_fragment(data, at - 1, -size)
    else:
        data[at:at] = bytes(rng.randrange(256) for _ in range(size))
        _adjust_fragment(data, at - 1, size)
    return None


def edit_item(data: bytearray, rng: Random) -> None:
    """The length of a fragment, an offset table where none was, or a delimiter less."""
    fragments = _fragments(data)
    if not fragments:
        return lie_in_header(data, rng)
    start, end = rng.choice(fragments)
    kind = rng.randrange(3)
    if kind == 0:
        lengths = (0, 1, 2, end - start - 2, end - start + 2, 0x7FFFFFFF, 0xFFFFFFFF)
        data[start - 4 : start] = struct.pack("<I", rng.choice(lengths) & 0xFFFFFFFF)
    elif kind == 1:
        table = data.rfind(b"\xfe\xff\x00\xe0\x00\x00\x00\x00", 0, fragments[0][0])
        if table >= 0:
            offsets = [rng.choice((0, 8, end - start, 0xFFFFFFF0)) for _ in range(rng.choice((1, 2, 5)))]
            raw = struct.pack(f"<{len(offsets)}I", *offsets)
            data[table + 4 : table + 8] = struct.pack("<I", len(raw)) + raw
    else:
        del data[len(data) - rng.choice((4, 8)) :]
    return None


MUTATORS: dict[str, Callable[[bytearray, Random], None]] = {
    function.__name__: function
    for function in (
        flip_bits, flip_header_bit, flip_pixel_bit, change_bytes, truncate, zero_tail, zero_block,
        delete_block, duplicate_block, move_block, lie_in_header, claim_frames, swap_syntax,
        edit_segment, edit_segments, cut_codestream, edit_item,
    )
}  # fmt: skip
_DEFLATED = SYNTAXES["deflated"].encode()


def mutate(data: bytes, rng: Random) -> tuple[bytes, str]:
    """A mutant and the name of what was done to it. A deflated data set is opened for it half the time."""
    name = rng.choice(sorted(MUTATORS))
    start = _deflated_from(data)
    if start is None or rng.random() < 0.5:
        mutant = bytearray(data)
        MUTATORS[name](mutant, rng)
        return bytes(mutant), name
    plain = bytearray(data[:start] + zlib.decompress(data[start:], -zlib.MAX_WBITS))
    MUTATORS[name](plain, rng)
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return bytes(plain[:start]) + packer.compress(bytes(plain[start:])) + packer.flush(), name + " inside"


def _deflated_from(data: bytes) -> int | None:
    """Where a deflated data set begins."""
    if _DEFLATED not in data[:600]:
        return None
    (length,) = struct.unpack_from("<I", data, 140)
    return 144 + int(length)


def _order(data: bytearray) -> str:
    return ">" if SYNTAXES["big-endian"].encode() + b"\0" in data[:600] else "<"


def _find(data: bytearray, tag: tuple[int, int]) -> int | None:
    """Position of a 16-bit value."""
    order = _order(data)
    head = struct.pack(order + "HH", *tag)
    for kind in (b"US" + struct.pack(order + "H", 2), struct.pack("<I", 2)):
        at = data.find(head + kind)
        if at >= 0:
            return at + 8
    return None


def _pixels(data: bytearray) -> tuple[int, int]:
    """Where the value of Pixel Data is; the second half of the file where it cannot be found."""
    at = data.rfind(struct.pack(_order(data) + "HH", *PIXEL_DATA))
    if at < 0 or at + 14 > len(data):
        return max(133, len(data) // 2), len(data)
    explicit = data[at + 4 : at + 6] in (b"OB", b"OW")
    return at + (12 if explicit else 8), len(data)


def _fragments(data: bytearray) -> list[tuple[int, int]]:
    """Start and end of each fragment, the offset table left out."""
    position, end = _pixels(data)
    found: list[tuple[int, int]] = []
    while data[position : position + 4] == b"\xfe\xff\x00\xe0":
        (length,) = struct.unpack_from("<I", data, position + 4)
        found.append((position + 8, min(position + 8 + length, end)))
        position += 8 + length
    return found[1:]


def _segments(data: bytearray) -> list[tuple[int, int]]:
    """Marker segments of the codestream's headers, from marker to end."""
    fragments = _fragments(data)
    if not fragments:
        return []
    start, end = fragments[0][0], fragments[-1][1]
    bare = data.find(b"\xff\x4f\xff\x51", start, end)
    position = bare + 2 if bare >= 0 else start + 2
    found: list[tuple[int, int]] = []
    while position + 4 <= end and data[position] == 0xFF and len(found) < 100:
        marker = data[position + 1]
        if marker in (0x93, 0xD9):
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        found.append((position, min(position + 2 + length, end)))
        position += 2 + length
        if marker == 0xDA:
            break
    return found


def _adjust_fragment(data: bytearray, inside: int, change: int) -> None:
    """Let the length of the fragment around `inside` follow a change that was made in it."""
    at = data.rfind(b"\xfe\xff\x00\xe0", 0, inside + 1)
    if at >= 0:
        (length,) = struct.unpack_from("<I", data, at + 4)
        data[at + 4 : at + 8] = struct.pack("<I", max(0, length + change) & 0xFFFFFFFF)
