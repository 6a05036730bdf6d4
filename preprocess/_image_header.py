"""ImageHeader out of the attributes, with everything checked that could mislead a decoder.

In:  Attributes and the config's limits.
Out: ImageHeader, or RejectedInput with the reason.

High Bit: the standard fixes it at Bits Stored − 1 (PS3.3 Table C.7-11c). A smaller one, or one outside Bits
Allocated, cannot be true and is replaced by that; a larger one that fits is believed (data in high bits).
"""

from __future__ import annotations

import re
from fractions import Fraction

from preprocess._attributes import Attributes, Tag
from preprocess.config import BurnedIn, Frames, ResultConfig
from preprocess.errors import RejectedInput
from preprocess.records import ImageHeader

_GRAYSCALE = frozenset(("MONOCHROME1", "MONOCHROME2"))
_LARGEST_SPACING_MM = Fraction(100)
_SPACINGS = (Tag.PIXEL_SPACING, Tag.IMAGER_PIXEL_SPACING, Tag.NOMINAL_SCANNED_PIXEL_SPACING)
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
_PRODUCT = re.compile(r"(?!.*\d{6})[\w .,&()/+®™-]{1,64}")
"""Names of makers and models: at most 64 characters (LO), none of those that persons' names (^) or addresses
(@) need, no number of six digits and more (dates, serial numbers, telephones)."""
_MODALITIES = frozenset(
    """
    AR AU BDUS BI BMD CR CT CFM DG DMS DX ECG EPS ES GM HD IO IOL IVOCT IVUS KER LEN LS MG MR NM OAM OCT OP
    OPM OPT OPTBSV OPTENF OPV OSS OT PT PX RESP RF RG RTDOSE RTIMAGE SEG SM SMR SRF STAIN TG US VA XA XC
    AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF
    """.split()  # noqa: SIM905 - reads better as words
)
"""Defined terms of PS3.3 C.7.3.1.1.1 that images have; in the last line, retired ones."""
_INTENTS = frozenset(("FOR PRESENTATION", "FOR PROCESSING"))


def functional_groups(attributes: Attributes, frame: int) -> tuple[Attributes, ...]:
    """The frame's own functional groups, then the shared ones, as far as there are any (PS3.3 C.7.6.16).

    Raises:
        RejectedInput: corrupt_header.
    """
    per_frame = attributes.items(Tag.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
    own = per_frame[frame : frame + 1]
    return own + attributes.items(Tag.SHARED_FUNCTIONAL_GROUPS_SEQUENCE)[:1]


def read_image_header(attributes: Attributes, transfer_syntax_uid: str, config: ResultConfig) -> ImageHeader:
    """Read and check the Image Pixel module (PS3.3 C.7.6.3) and the acquisition facts.

    Raises:
        RejectedInput: too_many_pixels, color, missing_attribute, invalid_attribute, unsupported_bits,
            multi_frame, burned_in_annotation, corrupt_header.
    """
    rows, columns = _size(attributes, config.max_pixels)
    photometric = _photometric(attributes)
    bits_allocated, bits_stored, high_bit = _bits(attributes)
    representation = attributes.integer(Tag.PIXEL_REPRESENTATION) or 0
    if representation not in (0, 1):
        raise RejectedInput("invalid_attribute", f"{Tag.PIXEL_REPRESENTATION} is {representation}")
    frames, frame = _frames(attributes, config.frames)
    spacing = _spacing(attributes, frame)
    shape = _code(attributes, Tag.PRESENTATION_LUT_SHAPE)
    intent = _code(attributes, Tag.PRESENTATION_INTENT_TYPE)
    modality = _code(attributes, Tag.MODALITY)
    burned_in = _burned_in(attributes, config.burned_in)
    return ImageHeader(
        transfer_syntax_uid=transfer_syntax_uid,
        rows=rows,
        columns=columns,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=high_bit,
        pixel_representation=representation,
        photometric_interpretation=photometric,
        # MONOCHROME1 goes with INVERSE: one inversion said twice, not two.
        inverted=photometric == "MONOCHROME1" or shape == "INVERSE",
        number_of_frames=frames,
        frame=frame,
        pixel_spacing_row_mm=spacing[0] if spacing else None,
        pixel_spacing_column_mm=spacing[1] if spacing else None,
        modality=modality if modality in _MODALITIES else None,
        manufacturer=_product(attributes, Tag.MANUFACTURER),
        manufacturer_model_name=_product(attributes, Tag.MANUFACTURER_MODEL_NAME),
        presentation_intent_type=intent if intent in _INTENTS else None,
        has_overlay_in_pixels=_overlay_in_pixels(attributes),
        burned_in_annotation=burned_in,
    )


def _burned_in(attributes: Attributes, policy: BurnedIn) -> str | None:
    """YES, NO or None (PS3.3 C.7.6.1); rejected where it is YES and that is not wanted."""
    value = _code(attributes, Tag.BURNED_IN_ANNOTATION)
    if value == "YES" and policy is BurnedIn.REJECT:
        raise RejectedInput("burned_in_annotation", f"{Tag.BURNED_IN_ANNOTATION} is YES")
    return value if value in ("YES", "NO") else None


def _required(attributes: Attributes, tag: Tag) -> int:
    value = attributes.integer(tag)
    if value is None:
        raise RejectedInput("missing_attribute", f"{tag} is absent, empty or not a number")
    return value


def _size(attributes: Attributes, max_pixels: int) -> tuple[int, int]:
    rows, columns = _required(attributes, Tag.ROWS), _required(attributes, Tag.COLUMNS)
    if not (0 < rows <= 0xFFFF and 0 < columns <= 0xFFFF):
        raise RejectedInput("invalid_attribute", f"{rows} rows, {columns} columns")
    if rows * columns > max_pixels:
        raise RejectedInput("too_many_pixels", f"{rows}x{columns} pixels, allowed are {max_pixels}")
    return rows, columns


def _photometric(attributes: Attributes) -> str:
    samples = attributes.integer(Tag.SAMPLES_PER_PIXEL)
    photometric = (attributes.text(Tag.PHOTOMETRIC_INTERPRETATION) or "").upper()
    if samples is not None and samples < 1:
        raise RejectedInput("invalid_attribute", f"{samples} samples per pixel")
    if samples is not None and samples > 1:
        raise RejectedInput("color", f"{samples} samples per pixel")
    if not photometric:
        raise RejectedInput("missing_attribute", f"{Tag.PHOTOMETRIC_INTERPRETATION} is absent or empty")
    if photometric not in _GRAYSCALE:
        raise RejectedInput("color", "the photometric interpretation is neither MONOCHROME1 nor MONOCHROME2")
    return photometric


def _bits(attributes: Attributes) -> tuple[int, int, int]:
    allocated = _required(attributes, Tag.BITS_ALLOCATED)
    if allocated in (1, 32, 64):
        raise RejectedInput("unsupported_bits", f"{allocated} bits allocated")
    if allocated not in (8, 16):
        raise RejectedInput("invalid_attribute", f"{allocated} bits allocated")
    stored = attributes.integer(Tag.BITS_STORED)
    if stored is None:
        stored = allocated
    if not 1 <= stored <= allocated:
        raise RejectedInput("invalid_attribute", f"{stored} bits stored of {allocated} allocated")
    if stored == 1:
        raise RejectedInput("unsupported_bits", "1 bit stored")
    high = attributes.integer(Tag.HIGH_BIT)
    if high is None or not stored - 1 <= high < allocated:
        high = stored - 1
    return allocated, stored, high


def _frames(attributes: Attributes, policy: Frames) -> tuple[int, int]:
    """Number of Frames (absent or 0: one), and the index of the one to take."""
    declared = attributes.integer(Tag.NUMBER_OF_FRAMES)
    if declared is None and attributes.text(Tag.NUMBER_OF_FRAMES):
        raise RejectedInput("invalid_attribute", f"{Tag.NUMBER_OF_FRAMES} is not a number")
    frames = declared or 1
    if frames < 1:
        raise RejectedInput("invalid_attribute", f"{frames} frames")
    if frames == 1:
        return 1, 0
    if policy is Frames.SINGLE:
        raise RejectedInput("multi_frame", f"{frames} frames")
    return frames, frames // 2 if policy is Frames.MIDDLE else 0


def _spacing(attributes: Attributes, frame: int) -> tuple[float, float] | None:
    """Row and column spacing in mm: Pixel Spacing, at the detector, of the scanner, of the frame."""
    for tag in _SPACINGS:
        if spacing := _pair(attributes, tag):
            return spacing
    for group in functional_groups(attributes, frame):
        measures = group.first_item(Tag.PIXEL_MEASURES_SEQUENCE)
        if measures and (spacing := _pair(measures, Tag.PIXEL_SPACING)):
            return spacing
    return None


def _pair(attributes: Attributes, tag: Tag) -> tuple[float, float] | None:
    values = attributes.decimals(tag)
    if len(values) < 2 or values[0] is None or values[1] is None:
        return None
    if not all(0 < value <= _LARGEST_SPACING_MM for value in (values[0], values[1])):
        return None
    return float(values[0]), float(values[1])


def _code(attributes: Attributes, tag: Tag) -> str | None:
    """A code string in upper case; None if it is not one (free text could say anything)."""
    text = (attributes.text(tag) or "").upper()
    return text if _CODE_STRING.fullmatch(text) else None


def _product(attributes: Attributes, tag: Tag) -> str | None:
    """A maker's or model's name, or None where it holds what such names do not need."""
    text = attributes.localized(tag)
    return text if text and _PRODUCT.fullmatch(text) else None


def _overlay_in_pixels(attributes: Attributes) -> bool:
    return any(
        attributes.integer(group << 16 | 0x0100) not in (None, 1) for group in range(0x6000, 0x6020, 2)
    )
