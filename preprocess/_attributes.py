"""Values of data elements, typed: text, integers, exact decimals, items. Everything lenient, nothing loud.

In:  Container and Header.
Out: Attributes: for each tag a value, or None / () where it is absent, empty or cannot be what it should be.
"""

from __future__ import annotations

import logging
import math
import re
import struct
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import IntEnum
from fractions import Fraction
from functools import cache

from pydicom import config as pydicom_config
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import TEXT_VR_DELIMS

from preprocess._container import Container
from preprocess._elements import Header
from preprocess.errors import RejectedInput

PYDICOM_ERRORS = (
    ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError, RecursionError,
    TypeError, ValueError, struct.error,
)  # fmt: skip
"""What pydicom raises on hostile bytes (ValueError covers UnicodeError and BytesLengthException)."""

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_LONGEST_DECIMAL = 64
_LARGEST_DECIMAL = 10**30
_INTEGER = re.compile(r"[+-]?\d{1,15}", re.ASCII)
_TEXT_VRS = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC",
                       "UI", "UR", "UT"))  # fmt: skip
_WIDE = {"SL": "i", "UL": "I", "SV": "q", "UV": "Q", "OL": "I", "OV": "Q"}
_FLOATS = {"FL": "f", "FD": "d", "OF": "f", "OD": "d"}


class Tag(IntEnum):
    """The data elements that are read, by DICOM keyword."""

    SPECIFIC_CHARACTER_SET = 0x00080005
    SOP_CLASS_UID = 0x00080016
    SOP_INSTANCE_UID = 0x00080018
    MODALITY = 0x00080060
    PRESENTATION_INTENT_TYPE = 0x00080068
    MANUFACTURER = 0x00080070
    CODE_VALUE = 0x00080100
    CODE_MEANING = 0x00080104
    MANUFACTURER_MODEL_NAME = 0x00081090
    DIRECTORY_RECORD_SEQUENCE = 0x00041220
    PATIENT_ID = 0x00100020
    IMAGER_PIXEL_SPACING = 0x00181164
    NOMINAL_SCANNED_PIXEL_SPACING = 0x00182010
    VIEW_POSITION = 0x00185101
    STUDY_INSTANCE_UID = 0x0020000D
    SERIES_INSTANCE_UID = 0x0020000E
    LATERALITY = 0x00200060
    IMAGE_LATERALITY = 0x00200062
    FRAME_ANATOMY_SEQUENCE = 0x00209071
    FRAME_LATERALITY = 0x00209072
    SAMPLES_PER_PIXEL = 0x00280002
    PHOTOMETRIC_INTERPRETATION = 0x00280004
    NUMBER_OF_FRAMES = 0x00280008
    ROWS = 0x00280010
    COLUMNS = 0x00280011
    PIXEL_SPACING = 0x00280030
    BITS_ALLOCATED = 0x00280100
    BITS_STORED = 0x00280101
    HIGH_BIT = 0x00280102
    PIXEL_REPRESENTATION = 0x00280103
    PIXEL_PADDING_VALUE = 0x00280120
    PIXEL_PADDING_RANGE_LIMIT = 0x00280121
    BURNED_IN_ANNOTATION = 0x00280301
    WINDOW_CENTER = 0x00281050
    WINDOW_WIDTH = 0x00281051
    RESCALE_INTERCEPT = 0x00281052
    RESCALE_SLOPE = 0x00281053
    VOI_LUT_FUNCTION = 0x00281056
    MODALITY_LUT_SEQUENCE = 0x00283000
    LUT_DESCRIPTOR = 0x00283002
    LUT_DATA = 0x00283006
    VOI_LUT_SEQUENCE = 0x00283010
    PIXEL_MEASURES_SEQUENCE = 0x00289110
    FRAME_VOI_LUT_SEQUENCE = 0x00289132
    PIXEL_VALUE_TRANSFORMATION_SEQUENCE = 0x00289145
    VIEW_CODE_SEQUENCE = 0x00540220
    PRESENTATION_LUT_SHAPE = 0x20500020
    SHARED_FUNCTIONAL_GROUPS_SEQUENCE = 0x52009229
    PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE = 0x52009230
    EXTENDED_OFFSET_TABLE = 0x7FE00001
    EXTENDED_OFFSET_TABLE_LENGTHS = 0x7FE00002

    def __str__(self) -> str:
        """`(gggg,eeee)`, as messages name it."""
        return f"({self >> 16:04X},{self & 0xFFFF:04X})"


class _Quiet:
    """pydicom neither warns nor logs while anybody is inside: its texts quote header values.

    Counted, because warning filters and pydicom's settings are global: the last thread out restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._enter()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._leave()

    def _enter(self) -> None:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        warnings.simplefilter("ignore")
        self._mode = pydicom_config.settings.reading_validation_mode
        pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
        self._disabled = logging.getLogger("pydicom").disabled
        logging.getLogger("pydicom").disabled = True

    def _leave(self) -> None:
        logging.getLogger("pydicom").disabled = self._disabled
        pydicom_config.settings.reading_validation_mode = self._mode
        self._caught.__exit__(None, None, None)


quiet = _Quiet()


class Attributes:
    """Data elements of a data set or of a sequence item."""

    def __init__(self, dataset: Dataset, little: bool, tags: Collection[int] | None = None) -> None:
        self._dataset = dataset
        self._tags = dataset.keys() if tags is None else tags
        self.little = little
        """Byte order of binary values."""

    @classmethod
    def of(cls, container: Container, header: Header) -> Attributes:
        """The elements that a walk kept."""
        data, little = container.data, container.encoding.little
        raw: dict[BaseTag, DataElement | RawDataElement] = {
            BaseTag(e.tag): RawDataElement(
                BaseTag(e.tag), e.vr, e.end - e.start, data[e.start : e.end], 0, e.implicit, little
            )
            for e in header.elements
        }
        return cls(Dataset(raw), little, raw.keys())

    def _element(self, tag: int) -> RawDataElement | DataElement | None:
        # Most tags are absent, which pydicom takes long to say.
        return self._dataset.get_item(BaseTag(tag)) if tag in self._tags else None

    def __contains__(self, tag: int) -> bool:
        return self._element(tag) is not None

    def raw(self, tag: int) -> tuple[bytes, str | None]:
        """Value bytes and VR (the dictionary's where there is none); empty if absent or a sequence."""
        element = self._element(tag)
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            return element.value, _dictionary_vr(tag) if element.VR in (None, "UN") else element.VR
        return b"", None

    def text(self, tag: int) -> str | None:
        """First value as stripped ASCII; None if absent or empty."""
        return next(iter(self.texts(tag)), "") or None

    def texts(self, tag: int) -> tuple[str, ...]:
        """All values as stripped ASCII, empty ones included."""
        value, _ = self.raw(tag)
        if not value:
            return ()
        return tuple(part.strip(" \0\t\r\n") for part in value.decode("ascii", "replace").split("\\"))

    def localized(self, tag: int) -> str | None:
        """First value in the data set's character set, printable characters only; None if absent or empty."""
        text = "".join(c for c in self.decoded(tag).split("\\")[0] if c.isprintable()).strip()
        return text or None

    def decoded(self, tag: int) -> str:
        """The whole value in the data set's character set, without padding; impossible bytes give U+FFFD."""
        value, _ = self.raw(tag)
        with quiet():
            try:
                encodings = convert_encodings(list(self.texts(Tag.SPECIFIC_CHARACTER_SET)) or None)
                text = decode_bytes(value, encodings, TEXT_VR_DELIMS)
            except PYDICOM_ERRORS:
                text = value.decode("ascii", "replace")
        return text.strip(" \0\t\r\n")

    def integers(self, tag: int) -> tuple[int, ...]:
        """Values of a binary or text element as integers; () if any is not one. Signed only by VR."""
        value, vr = self.raw(tag)
        if vr in _TEXT_VRS:
            texts = [text for text in self.texts(tag) if text]
            return tuple(int(text) for text in texts) if all(map(_INTEGER.fullmatch, texts)) else ()
        code = "h" if vr == "SS" else _WIDE.get(vr or "", "H")
        count = len(value) // struct.calcsize(code)
        return struct.unpack_from(f"{'<' if self.little else '>'}{count}{code}", value) if count else ()

    def integer(self, tag: int) -> int | None:
        """First value as an integer; None if absent, empty or not one."""
        return next(iter(self.integers(tag)), None)

    def decimals(self, tag: int) -> tuple[Fraction | None, ...]:
        """Decimal strings exactly; None in the place of one that is no number or absurdly large."""
        value, vr = self.raw(tag)
        if vr in _FLOATS:
            code = _FLOATS[vr or ""]
            count = len(value) // struct.calcsize(code)
            floats = struct.unpack_from(f"{'<' if self.little else '>'}{count}{code}", value)
            return tuple(Fraction(number) if math.isfinite(number) else None for number in floats)
        if vr is not None and vr not in _TEXT_VRS:
            return tuple(Fraction(number) for number in self.integers(tag))
        return tuple(_decimal(text) for text in self.texts(tag))

    def items(self, tag: int) -> tuple[Attributes, ...]:
        """Items of a sequence; () if absent or empty.

        Raises:
            RejectedInput: corrupt_header, if it is there but cannot be parsed.
        """
        if tag not in self:
            return ()
        with quiet():
            try:
                value = self._dataset[BaseTag(tag)].value
            except PYDICOM_ERRORS:
                raise RejectedInput("corrupt_header", f"sequence {Tag(tag)} cannot be parsed") from None
        if not isinstance(value, Sequence):
            return ()
        return tuple(Attributes(item, self.little) for item in value)

    def first_item(self, tag: int) -> Attributes | None:
        """First item of a sequence; None if there is none. Raises as `items`."""
        return next(iter(self.items(tag)), None)


@cache
def _dictionary_vr(tag: int) -> str:
    """The VR that the standard gives a tag; of `US or SS` the first."""
    try:
        return dictionary_VR(tag).split(" or ")[0]
    except KeyError:
        return "UN"


def _decimal(text: str) -> Fraction | None:
    if len(text) > _LONGEST_DECIMAL or not _DECIMAL.fullmatch(text):
        return None
    number = Fraction(text)
    return number if abs(number) < _LARGEST_DECIMAL else None
