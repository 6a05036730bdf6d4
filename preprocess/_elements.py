"""One pass over a data set's structure: limits first, values untouched.

In:  Container.
Out: Header: the raw elements that anybody asks for, and where Pixel Data is. Sequences are walked, not
     parsed, so nesting and lengths are checked at no cost in memory; no recursion, whatever the nesting.

pydicom's reader is not given the file: it recurses, buffers every element before Pixel Data (names
included), and reports a cut-off header only to its log. It interprets the elements that are kept.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from preprocess._container import ALL_VRS, LONG_VRS, Container, Incomplete
from preprocess.errors import RejectedInput

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA = 0x7FE00008, 0x7FE00009, 0x7FE00010
_PIXELS = frozenset((FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA))
_OVERLAY_BITS = 0x0100


class Element(NamedTuple):
    """A data element's place: value in data[start:end]; `end` excludes a sequence delimiter."""

    tag: int
    vr: str | None
    start: int
    end: int
    implicit: bool
    undefined: bool


@dataclass(frozen=True, slots=True)
class Header:
    """Structure of a data set up to Pixel Data."""

    elements: tuple[Element, ...]
    """Top-level elements that were asked for, and Overlay Bits Allocated of any overlay group."""
    pixel: Element | None
    """Pixel Data or one of its float variants; `end` is what the length field says, or start if undefined."""
    truncated: bool
    """The file ends inside an element before Pixel Data."""


class _Kind(Enum):
    SEQUENCE = auto()
    ITEM = auto()
    FRAGMENTS = auto()


class _Frame(NamedTuple):
    kind: _Kind
    end: int
    """Where it ends, or UNDEFINED."""
    implicit: bool


class _Walker:
    """Reads element headers of one data set."""

    def __init__(self, container: Container, max_depth: int) -> None:
        self.data = container.data
        self.explicit_syntax = not container.encoding.implicit
        self.max_depth = max_depth
        order = "<" if container.encoding.little else ">"
        self._tag_length = struct.Struct(order + "HHI").unpack_from
        self._tag_vr = struct.Struct(order + "HH2sH").unpack_from
        self._long = struct.Struct(order + "I").unpack_from
        self._item_tag = struct.pack(order + "HH", 0xFFFE, 0xE000)

    def element(self, position: int, implicit: bool) -> Element:
        """Read one header; `end` is not checked, and equals `start` where the length is undefined."""
        try:
            group, element, vr, length = self._tag_vr(self.data, position)
            start = position + 8
            text: str | None = None
            # An explicit data set may hold single elements without VR (seen in the wild): by its bytes.
            if implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
                group, element, length = self._tag_length(self.data, position)
                implicit = True
            else:
                text = vr.decode("ascii")
                if vr in LONG_VRS:
                    length = self._long(self.data, position + 8)[0]
                    start = position + 12
        except struct.error:
            raise EOFError from None
        undefined = length == UNDEFINED
        return Element(
            group << 16 | element, text, start, start + length * (not undefined), implicit, undefined
        )

    def is_sequence(self, element: Element) -> bool:
        """Whether there are items inside: by VR, by undefined length, or (implicit) by content."""
        if element.undefined or element.vr == "SQ":
            return True
        return element.implicit and self.data[element.start : element.start + 4] == self._item_tag

    def end_of(self, element: Element) -> tuple[int, int]:
        """Walk a sequence; where its value ends, and where the next element begins.

        Raises:
            EOFError: the data end inside.
            RejectedInput: sequence_too_deep, corrupt_header.
        """
        stack = [self._frame(element)]
        position = value_end = element.start
        while stack:
            frame = stack[-1]
            if frame.end != UNDEFINED and position >= frame.end:
                position = value_end = stack.pop().end
                continue
            value_end = position
            position = self._step(stack, self.element(position, frame.implicit))
            if position > len(self.data):
                raise EOFError
        return value_end, position

    def _frame(self, element: Element) -> _Frame:
        fragments = element.undefined and element.vr not in (None, "SQ", "UN")
        kind = _Kind.FRAGMENTS if fragments else _Kind.SEQUENCE
        return _Frame(kind, UNDEFINED if element.undefined else element.end, element.implicit)

    def _step(self, stack: list[_Frame], element: Element) -> int:
        """Take one header inside a sequence, item or fragment list; where to go on."""
        frame = stack[-1]
        if frame.kind is _Kind.ITEM:
            return self._in_item(stack, element)
        if element.tag == SEQUENCE_END:
            stack.pop()
        elif element.tag == ITEM and frame.kind is _Kind.FRAGMENTS:
            return element.end
        elif element.tag == ITEM:
            end = UNDEFINED if element.undefined else min(element.end, frame.end)
            stack.append(_Frame(_Kind.ITEM, end, self._implicit_item(element.start, frame.implicit)))
        elif element.tag != ITEM_END:
            return self._give_up(stack)
        return element.start

    def _in_item(self, stack: list[_Frame], element: Element) -> int:
        frame_end = stack[-1].end
        if element.tag == ITEM_END:
            stack.pop()
            return element.start
        if element.tag == SEQUENCE_END:  # the item's own delimiter is missing
            stack.pop()
            return element.start - 8
        if self.is_sequence(element):
            if sum(frame.kind is _Kind.SEQUENCE for frame in stack) >= self.max_depth:
                raise RejectedInput("sequence_too_deep", f"sequences nested deeper than {self.max_depth}")
            child = self._frame(element)
            stack.append(
                child._replace(end=min(child.end, stack[-1].end)) if not element.undefined else child
            )
            return element.start
        return min(element.end, frame_end)  # a lie inside an item of known length stays inside

    def _implicit_item(self, start: int, implicit: bool) -> bool:
        """Items of an explicit data set may be implicit (UN of undefined length, CP-246; broken writers)."""
        if not self.explicit_syntax:
            return True
        vr = self.data[start + 4 : start + 6]
        return vr not in ALL_VRS if len(vr) == 2 else implicit

    def _give_up(self, stack: list[_Frame]) -> int:
        """Nonsense inside: go on after the innermost level whose length is known."""
        while stack:
            frame = stack.pop()
            if frame.end != UNDEFINED:
                return frame.end
        raise RejectedInput("corrupt_header", "a sequence of undefined length has no items and no end")


def read_header(container: Container, wanted: Collection[int], max_depth: int, *, whole: bool) -> Header:
    """Walk a data set to Pixel Data or its end.

    Args:
        container: The data set.
        wanted: Tags to keep.
        max_depth: Deepest nesting of sequences allowed.
        whole: Whether the container's data are all there is.

    Raises:
        Incomplete: the header goes on and `whole` is false.
        RejectedInput: sequence_too_deep, corrupt_header.
    """
    kept: dict[int, Element] = {}
    pixel, truncated = None, False
    try:
        for element in _top_level(container, max_depth):
            if element.tag in _PIXELS:
                pixel = element
            elif element.tag in wanted or _is_overlay_bits(element.tag):
                kept[element.tag] = element
    except EOFError:
        truncated = True
    if pixel is None and not whole:
        raise Incomplete
    return Header(tuple(kept.values()), pixel, truncated)


def _top_level(container: Container, max_depth: int) -> Iterator[Element]:
    """Elements of the data set, Pixel Data last. Raises EOFError if the data end inside one."""
    walker = _Walker(container, max_depth)
    position, size = container.start, len(container.data)
    while position + 8 <= size:
        element = walker.element(position, container.encoding.implicit)
        if element.tag in _PIXELS:
            yield element
            return
        if element.tag == 0 and position > container.start:  # zeros after the last element
            return
        value_end = position = element.end
        if walker.is_sequence(element):
            value_end, position = walker.end_of(element)
        if position > size:
            raise EOFError
        yield element if value_end == element.end else element._replace(end=value_end)
    if any(container.data[position:]):  # less than an element's header, and no padding
        raise EOFError


def _is_overlay_bits(tag: int) -> bool:
    return tag & 0xFFFF == _OVERLAY_BITS and 0x6000 <= tag >> 16 <= 0x60FF
