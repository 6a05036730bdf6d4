"""One frame's bytes out of Pixel Data, by structure only (PS3.5 A.4, PS3.3 C.7.6.3.1.8).

In:  the data set's bytes, where Pixel Data is, how many frames there are and which is wanted.
Out: the frame's bytes, fragments joined.

Nothing is ever found by looking for an image's first bytes: several JPEG processes begin alike. A marker is
consulted in one case only, as in pydicom.encaps: many frames, more fragments than frames and no offset table.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import NamedTuple

from preprocess._elements import ITEM, SEQUENCE_END, UNDEFINED
from preprocess.errors import RejectedInput

_END_OF_IMAGE = b"\xff\xd9"
_TRAILER = 10
_PIXEL_DATA = (0x7FE0, 0x0010)
_SEQUENCE_END = struct.pack("<HH", SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF)


class Fragment(NamedTuple):
    """data[start:end] of one fragment; its item tag is at start − 8."""

    start: int
    end: int


class OffsetTable(NamedTuple):
    """Extended Offset Table and its lengths, one entry a frame."""

    offsets: tuple[int, ...]
    lengths: tuple[int, ...]


class NativeValue(NamedTuple):
    """Native Pixel Data: data[start:end], as far as the file goes."""

    data: bytes
    start: int
    end: int


def native_frame(value: NativeValue, frame_bytes: int, frame: int, *, swapped: bool) -> bytes:
    """A frame of native Pixel Data. More bytes than needed (padding, undeclared frames) are left alone.

    Args:
        value: Where Pixel Data lies.
        frame_bytes: Bytes of one frame.
        frame: Index of the frame wanted, from 0.
        swapped: Whether the bytes of each 16-bit word change places.

    Raises:
        RejectedInput: pixel_data_length.
    """
    check_native_length(value.end - value.start, frame_bytes, frame)
    first = frame * frame_bytes
    if not swapped:
        return value.data[value.start + first : value.start + first + frame_bytes]
    even = first & ~1  # words are counted from the start of Pixel Data, frames may begin inside one
    words = bytearray(value.data[value.start + even : min(value.start + first + frame_bytes + 1, value.end)])
    pairs = len(words) & ~1
    words[0:pairs:2], words[1:pairs:2] = words[1:pairs:2], words[0:pairs:2]
    return bytes(words[first - even : first - even + frame_bytes])


def check_native_length(available: int, frame_bytes: int, frame: int) -> None:
    """Refuse native Pixel Data that end before the wanted frame does.

    Raises:
        RejectedInput: pixel_data_length.
    """
    needed = (frame + 1) * frame_bytes
    if available < needed:
        raise RejectedInput("pixel_data_length", f"{available} bytes of {needed} that the frame needs")


def check_native_surplus(value: bytes, needed: int, row_bytes: int) -> None:
    """Refuse native Pixel Data that hold more than all frames and some padding: a size that is too small.

    Args:
        value: Pixel Data, as far as the file goes.
        needed: Bytes of all frames.
        row_bytes: Bytes of a row: no writer pads with more zeros than that.

    Raises:
        RejectedInput: pixel_data_length.
    """
    surplus = len(value) - needed
    if surplus > max(row_bytes, 1) or (surplus > 1 and any(value[needed:])):
        raise RejectedInput("pixel_data_length", f"{surplus} bytes more than the {needed} of all frames")


def check_after_pixels(data: bytes, end: int, *, little: bool) -> None:
    """Refuse what cannot follow Pixel Data: neither zeros nor a data element of a higher tag, so bytes moved.

    Raises:
        RejectedInput: pixel_data_length.
    """
    head = data[end : end + 8]
    if not head or (not any(head) and not any(data[end:])):
        return
    group, element = struct.unpack_from("<HH" if little else ">HH", head.ljust(4, b"\0"))
    if len(head) < 8 or (group, element) <= _PIXEL_DATA:
        raise RejectedInput("pixel_data_length", "Pixel Data are followed by bytes that are no data element")


def encapsulated_frame(
    data: bytes, start: int, frames: int, frame: int, extended: OffsetTable | None = None
) -> bytes:
    """A frame of encapsulated Pixel Data.

    Args:
        data: Bytes of the data set.
        start: Where the value of Pixel Data begins.
        frames: Number of Frames.
        frame: Index of the frame wanted, from 0.
        extended: Extended Offset Table (7FE0,0001) and Lengths (7FE0,0002), if there is one.

    Raises:
        RejectedInput: invalid_encapsulation.
    """
    table, fragments = read_fragments(data, start)
    if not fragments:
        raise _invalid("no fragments")
    exact = _extended_fragment(extended, fragments, frame) if extended is not None else None
    if extended is not None and exact is None and frames > 1:
        raise _invalid("the extended offset table does not point at the frame")
    chosen = [exact] if exact else _frame_fragments(data, table, fragments, (frames, frame))
    if len(chosen) == 1:
        return data[chosen[0].start : chosen[0].end]
    return b"".join(data[fragment.start : fragment.end] for fragment in chosen)


def end_of_fragments(data: bytes, start: int) -> int:
    """Where encapsulated Pixel Data end: after the delimiter, or after the last fragment where it is missing.

    Raises:
        RejectedInput: invalid_encapsulation.
    """
    _, fragments = read_fragments(data, start)
    end = fragments[-1].end if fragments else start + 8
    return end + 8 if data[end : end + 4] == _SEQUENCE_END else end


def read_fragments(data: bytes, start: int) -> tuple[tuple[int, ...], list[Fragment]]:
    """Basic Offset Table and the fragments after it. A missing delimiter at the end of the data is tolerated.

    Raises:
        RejectedInput: invalid_encapsulation.
    """
    fragments: list[Fragment] = []
    position = start
    while position + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, position)
        tag = group << 16 | element
        if tag == SEQUENCE_END:
            break
        if tag != ITEM or length == UNDEFINED:
            raise _invalid(f"no fragment at byte {position - start} of Pixel Data")
        position += 8
        if position + length > len(data):
            missing = position + length - len(data)
            raise _invalid(f"fragment {len(fragments)} ends {missing} bytes after the file")
        fragments.append(Fragment(position, position + length))
        position += length
    if not fragments:
        raise _invalid("no basic offset table")
    first = fragments.pop(0)
    entries = (first.end - first.start) // 4
    return struct.unpack_from(f"<{entries}I", data, first.start), fragments


def _frame_fragments(
    data: bytes, table: tuple[int, ...], fragments: list[Fragment], which: tuple[int, int]
) -> list[Fragment]:
    frames, frame = which
    groups = _by_table(table, fragments)
    if groups is not None and len(groups) == frames:
        return groups[frame]
    # With one frame a table has nothing to say, so a wrong one does no harm: all fragments are that frame.
    if frames == 1:
        return fragments
    if table:
        raise _invalid(f"the basic offset table does not divide the fragments into {frames} frames")
    if len(fragments) == frames:
        return [fragments[frame]]
    groups = _by_markers(data, fragments)
    if len(groups) != frames:
        raise _invalid(f"{len(fragments)} fragments and no offset table for {frames} frames")
    return groups[frame]


def _by_table(table: tuple[int, ...], fragments: list[Fragment]) -> list[list[Fragment]] | None:
    """Fragments of each frame, None if the offsets are not those of fragments in ascending order."""
    origin = fragments[0].start - 8
    index = {fragment.start - 8 - origin: n for n, fragment in enumerate(fragments)}
    starts = [index.get(offset) for offset in table]
    if not starts or starts[0] != 0 or None in starts:
        return None
    edges = [n for n in starts if n is not None] + [len(fragments)]
    if any(left >= right for left, right in pairwise(edges)):
        return None
    return [fragments[left:right] for left, right in pairwise(edges)]


def _by_markers(data: bytes, fragments: list[Fragment]) -> list[list[Fragment]]:
    """Frames end with the fragments whose last bytes hold an end-of-image marker (as pydicom.encaps)."""
    groups: list[list[Fragment]] = [[]]
    for fragment in fragments:
        groups[-1].append(fragment)
        if _END_OF_IMAGE in data[max(fragment.start, fragment.end - _TRAILER) : fragment.end]:
            groups.append([])
    return groups if groups[-1] else groups[:-1]


def _extended_fragment(table: OffsetTable, fragments: list[Fragment], frame: int) -> Fragment | None:
    """One fragment a frame, its exact length from the table (PS3.3 C.7.6.3.1.8); None if that is wrong."""
    if frame >= min(len(table.offsets), len(table.lengths)):
        return None
    start = fragments[0].start + table.offsets[frame]
    fragment = next((f for f in fragments if f.start == start), None)
    length = table.lengths[frame]
    if fragment is None or not 0 < length <= fragment.end - fragment.start:
        return None
    return Fragment(start, start + length)


def _invalid(message: str) -> RejectedInput:
    return RejectedInput("invalid_encapsulation", message)
