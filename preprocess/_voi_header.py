"""Modality transform, VOI alternatives and pixel padding as typed values; nothing is chosen or applied here.

In:  Attributes (top level, then functional groups).
Out: ModalityTransform, VoiHeader, Padding. Decimal strings stay exact (Fraction of their text).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction

from preprocess._attributes import Attributes, Tag
from preprocess._image_header import functional_groups
from preprocess.errors import RejectedInput
from preprocess.records import ImageHeader, Lut, ModalityTransform, Padding, VoiFunction, VoiHeader, Window

_MOST_ALTERNATIVES = 64
_MOST_ENTRIES = 65_536


def read_voi(attributes: Attributes, image: ImageHeader) -> VoiHeader:
    """Windows, function and LUTs (PS3.3 C.11.2): of the top level, else of the frame, else shared.

    A centre or width that is no number drops its window; the longer of unequal lists is cut.

    Raises:
        RejectedInput: corrupt_header, if a sequence cannot be parsed.
    """
    header = _voi_of(attributes, image)
    if header.windows or header.luts:
        return header
    for group in functional_groups(attributes, image.frame):
        item = group.first_item(Tag.FRAME_VOI_LUT_SEQUENCE)
        if item is not None:
            found = _voi_of(item, image)
            if found.windows or found.luts:
                return found
    return header


def read_modality_transform(attributes: Attributes, image: ImageHeader) -> ModalityTransform:
    """Modality LUT, or rescale slope and intercept (PS3.3 C.11.1); identity where neither is there.

    An item whose attributes are all empty is none.

    Raises:
        RejectedInput: invalid_voi (slope 0 or no number, an empty LUT), corrupt_header.
    """
    item = attributes.first_item(Tag.MODALITY_LUT_SEQUENCE)
    if item is not None and (item.raw(Tag.LUT_DESCRIPTOR)[0] or item.raw(Tag.LUT_DATA)[0]):
        lut = _lut(item, image)
        if lut is None:
            raise RejectedInput("invalid_voi", "the modality LUT has no entries")
        return ModalityTransform(lut=lut)
    where = attributes
    if not attributes.decimals(Tag.RESCALE_SLOPE) and not attributes.decimals(Tag.RESCALE_INTERCEPT):
        for group in functional_groups(attributes, image.frame):
            item = group.first_item(Tag.PIXEL_VALUE_TRANSFORMATION_SEQUENCE)
            if item is not None:
                where = item
                break
    slope = _rescale(where, Tag.RESCALE_SLOPE, Fraction(1))
    if slope == 0:
        raise RejectedInput("invalid_voi", f"{Tag.RESCALE_SLOPE} is 0")
    return ModalityTransform(slope=slope, intercept=_rescale(where, Tag.RESCALE_INTERCEPT, Fraction(0)))


def read_padding(attributes: Attributes, image: ImageHeader) -> Padding | None:
    """Pixel Padding Value and Range Limit as stored values: US or SS by Pixel Representation, not by VR."""
    value = _stored(attributes, Tag.PIXEL_PADDING_VALUE, image)
    if value is None:
        return None
    limit = _stored(attributes, Tag.PIXEL_PADDING_RANGE_LIMIT, image)
    other = value if limit is None else limit
    return Padding(min(value, other), max(value, other))


def _voi_of(attributes: Attributes, image: ImageHeader) -> VoiHeader:
    centers, widths = attributes.decimals(Tag.WINDOW_CENTER), attributes.decimals(Tag.WINDOW_WIDTH)
    windows = tuple(
        Window(center, width)
        for center, width in list(zip(centers, widths, strict=False))[:_MOST_ALTERNATIVES]
        if center is not None and width is not None
    )
    items = attributes.items(Tag.VOI_LUT_SEQUENCE)[:_MOST_ALTERNATIVES]
    luts = tuple(lut for item in items if (lut := _lut(item, image)) is not None)
    return VoiHeader(_function(attributes.text(Tag.VOI_LUT_FUNCTION)), windows, luts)


def _function(text: str | None) -> VoiFunction:
    """Missing, empty, lower-case or unknown text means LINEAR, except that the other two are known too."""
    name = (text or "").upper()
    return VoiFunction(name) if name in VoiFunction.__members__ else VoiFunction.LINEAR


def _rescale(attributes: Attributes, tag: Tag, default: Fraction) -> Fraction:
    values = attributes.decimals(tag)
    if not values or (values[0] is None and not attributes.text(tag)):
        return default
    if values[0] is None:
        raise RejectedInput("invalid_voi", f"{tag} is not a usable number")
    return values[0]


def _stored(attributes: Attributes, tag: Tag, image: ImageHeader) -> int | None:
    value = attributes.integer(tag)
    if value is None:
        return None
    return _as_represented(value, image)


def _as_represented(value: int, image: ImageHeader) -> int:
    """The 16-bit pattern of a value, signed or not by Pixel Representation."""
    pattern = value & 0xFFFF
    return pattern - 0x10000 if image.pixel_representation and pattern >= 0x8000 else pattern


def _lut(item: Attributes, image: ImageHeader) -> Lut | None:
    """A LUT whose descriptor's quirks are resolved; None if it has no usable entries.

    0 entries means 65,536. The first mapped value is signed by Pixel Representation, or if its VR says so.
    Bits outside 8…16, or fewer than the entries need, are corrected from the entries. Data shorter than the
    descriptor says are taken as they are; the last entry then maps all larger inputs.
    """
    descriptor = item.integers(Tag.LUT_DESCRIPTOR)
    if len(descriptor) < 3:
        return None
    count = descriptor[0] & 0xFFFF or _MOST_ENTRIES
    bits = descriptor[2] & 0xFFFF
    entries = _lut_entries(item, count, bits)
    if not entries:
        return None
    signed_by_vr = item.raw(Tag.LUT_DESCRIPTOR)[1] == "SS"
    first = descriptor[1] if signed_by_vr else _as_represented(descriptor[1], image)
    needed = max(entries).bit_length()
    if not 8 <= bits <= 16 or bits < needed:
        bits = max(8, needed)
    return Lut(first, bits, tuple(entries))


def _lut_entries(item: Attributes, count: int, bits: int) -> Iterable[int] | None:
    data, vr = item.raw(Tag.LUT_DATA)
    if not data:
        return None
    if bits <= 8 and len(data) < 2 * count:
        # Two 8-bit entries a word, the first in the low byte (C.11.1.1.1): swapped in big-endian words.
        if not item.little and vr != "OB":
            data = struct.pack(f"<{len(data) // 2}H", *struct.unpack_from(f">{len(data) // 2}H", data))
        return data[:count]
    words = min(count, len(data) // 2)
    return struct.unpack_from(f"{'<' if item.little else '>'}{words}H", data)
