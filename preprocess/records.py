"""The values that pass between stages: frozen, slotted, typed. No dict travels between stages.

    SourceFile ─dicom→ Instance ─decode→ Mammogram ─roi→ BreastBox ─render→ Prepared ─shards→ ShardResult
         └── any stage may instead raise RejectedInput, which the pipeline turns into a Reject ──┘

Array order is (row, column) everywhere. Lengths in millimetres end in `_mm`. Full-size coordinates are
those of the original image: pixel n covers [n, n+1).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.errors import Stage

StoredPixels = npt.NDArray[Any]
"""2-D stored values: uint8, int8, uint16 or int16 (BitsAllocated width by PixelRepresentation)."""

IndexPixels = npt.NDArray[np.uint16]
"""2-D table indices: the stored value, +32768 if PixelRepresentation is 1."""


class Status(StrEnum):
    """Outcome of one input, as in `status` of instances.parquet."""

    PREPARED = "prepared"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"


class LabelLevel(StrEnum):
    """What a label is said of."""

    IMAGE = "image"
    BREAST = "breast"
    PATIENT = "patient"


LabelValue = int | float | str | None


@dataclass(frozen=True, slots=True)
class Label:
    """One label of one input under its own name (`cancer`, `BIRADS`, …); None where unknown."""

    name: str
    value: LabelValue


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """A label's declaration in the manifest's schema: kind is int64, float64 or string."""

    name: str
    kind: str
    level: LabelLevel


@dataclass(frozen=True, slots=True)
class Identity:
    """Who and what an input is, as far as its layout or header says; None where it does not."""

    patient_id: str | None = None
    image_id: str | None = None
    laterality: str | None = None
    """L or R."""
    view: str | None = None
    """CC, MLO, ML, LM, LMO, AT, …"""
    site_id: str | None = None
    machine_id: str | None = None
    split: str | None = None
    """train or test, where the layout says so."""


@dataclass(frozen=True, slots=True, order=True)
class SourceFile:
    """One input as found: its stable name, and how to open it. Ordered by `source` in UTF-8 bytes."""

    source: str
    """Relative to its input root, `/`-separated, `archive.zip::member` for members. Never absolute."""
    path: str
    """Local absolute path or fsspec URL to open."""
    member: str | None = None
    """Member name inside the zip archive at `path`."""
    explicit: bool = False
    """Named by the user or called .dcm/.dicom: if it is not DICOM, it is a Reject, not ignored."""
    identity: Identity = Identity()
    """What the layout says (it wins over the header, except that None yields to it)."""
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """One of the header's windows: centre and width as exact decimals (DS), in modality units."""

    center: Fraction
    width: Fraction


class VoiFunction(StrEnum):
    """VOI LUT Function (0028,1056), PS3.3 C.11.2.1.2-3."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class Lut:
    """A modality or VOI LUT item after its descriptor's quirks are resolved (PS3.3 C.11.1.1, C.11.2.1.1)."""

    first_mapped: int
    bits: int
    """Bits per entry, 8…16 (third descriptor value, corrected where the data contradict it)."""
    entries: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ModalityTransform:
    """Modality LUT, or rescale slope and intercept (identity where absent)."""

    slope: Fraction = Fraction(1)
    intercept: Fraction = Fraction(0)
    lut: Lut | None = None


@dataclass(frozen=True, slots=True)
class VoiHeader:
    """All VOI alternatives of the header, in its order."""

    function: VoiFunction = VoiFunction.LINEAR
    windows: tuple[Window, ...] = ()
    luts: tuple[Lut, ...] = ()


@dataclass(frozen=True, slots=True)
class Padding:
    """Pixel Padding Value (0028,0120) and Range Limit (0028,0121) as stored values, low ≤ high."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Image Pixel module and acquisition facts; everything decode and render may rely on."""

    transfer_syntax_uid: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    """0 unsigned, 1 two's complement."""
    photometric_interpretation: str
    """MONOCHROME1 or MONOCHROME2."""
    inverted: bool
    """True if a larger VOI output displays darker: MONOCHROME1 or PresentationLUTShape INVERSE."""
    number_of_frames: int = 1
    frame: int = 0
    """Index of the frame taken, from 0."""
    pixel_spacing_row_mm: float | None = None
    pixel_spacing_column_mm: float | None = None
    modality: str | None = None
    manufacturer: str | None = None
    manufacturer_model_name: str | None = None
    presentation_intent_type: str | None = None
    """FOR PRESENTATION, FOR PROCESSING or None."""
    has_overlay_in_pixels: bool = False
    """An overlay group with Overlay Bits Allocated ≠ 1: unused high bits may hold overlay planes."""
    burned_in_annotation: str | None = None
    """YES, NO or None."""


class Compression(StrEnum):
    """Families of transfer syntaxes, by decoder."""

    NATIVE = "native"
    RLE = "rle"
    JPEG = "jpeg"
    """Baseline and extended (.50, .51)."""
    JPEG_LOSSLESS = "jpeg_lossless"
    JPEG_LS = "jpeg_ls"
    JPEG_2000 = "jpeg_2000"
    HTJ2K = "htj2k"


@dataclass(frozen=True, slots=True)
class CodestreamFacts:
    """What a compressed image says of itself, read without decoding (`codestream.read_facts`)."""

    compression: Compression
    rows: int
    columns: int
    components: int
    precision: int
    signed: bool
    levels: int
    """Wavelet decompositions usable for every tile and component (minimum over COD/COC); 0 for others."""
    lossless: bool
    """By content: 5/3 in every COD/COC, JPEG SOF3, JPEG-LS NEAR 0."""
    tile_rows: int = 0
    tile_columns: int = 0
    tiles: int = 1
    layers: int = 1
    progression: str | None = None
    predictor: int | None = None
    near: int | None = None
    boxed: bool = False
    """JP2/JPH boxes around the codestream."""
    has_eoc: bool = True
    subsampled: bool = False
    offset: bool = False
    """Image or tile origin is not (0, 0)."""
    has_roi: bool = False
    """An RGN marker."""
    codestream_start: int = 0
    codestream_bytes: int = 0
    """Bytes from start to the end of EOC (or of the data)."""
    complete: bool = True
    """False if the data end before the tiles, tile-parts or scans they declare (then never decoded)."""


@dataclass(frozen=True, slots=True)
class Partial:
    """What has been read of a codestream, where its file is not read whole (--read needed)."""

    at: int
    """Where the codestream begins in its file, bytes."""
    head: bytes = field(repr=False)
    """Its first bytes."""
    facts: CodestreamFacts
    """What the whole of it says of itself."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One image's headers as typed values, and its still encoded frame."""

    source: SourceFile
    identity: Identity
    """Layout and header combined; patient_id and image_id are never None here."""
    image: ImageHeader
    modality_transform: ModalityTransform
    voi: VoiHeader
    padding: Padding | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    sop_instance_uid: str | None
    file_bytes: int
    file_sha256: str | None
    """None where the file was not read whole."""
    payload: bytes = field(repr=False)
    """The frame's encoded bytes (fragments joined), or its native bytes; not decoded. Where only a part was
    read: a codestream of what has been asked for so far."""
    codestream: CodestreamFacts | None = None
    """None for native and RLE."""
    partial: Partial | None = None
    bytes_read: int = 0
    """Of the file, headers included; more than it has where a part did not do."""

    def bare(self) -> Instance:
        """The same without what only decoding needs."""
        return replace(self, payload=b"", partial=None)


@dataclass(frozen=True, slots=True)
class Mammogram:
    """Decoded stored values at one wavelet level. pixels: (ceil(rows/2^level), ceil(columns/2^level))."""

    instance: Instance
    pixels: StoredPixels = field(repr=False)
    level: int
    decoder: str
    above_bits_stored: int = 0
    """Pixels clamped to BitsStored's range at level 0 (data above BitsStored); 0 at other levels."""
    value_range: tuple[int, int] | None = None
    """Smallest and largest of the pixels, where the decoder has seen them."""

    def extremes(self) -> tuple[int, int]:
        """Smallest and largest of the pixels."""
        return self.value_range or (int(self.pixels.min()), int(self.pixels.max()))


class RoiMethod(StrEnum):
    """How the box was found, as in column `roi`."""

    BREAST = "breast"
    WHOLE_FRAME = "whole_frame"
    DETECTOR = "detector"


@dataclass(frozen=True, slots=True)
class BreastBox:
    """Box in full-size rows and columns, half-open [row, row+rows)."""

    method: RoiMethod
    row: int
    column: int
    rows: int
    columns: int
    flipped: bool
    """True if the picture must be mirrored left-right to bring the chest wall to the left edge."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a box of the original lies in the prepared image, and back. All integers, exactly invertible."""

    box: BreastBox
    height: int
    width: int
    content_row: int
    content_column: int
    content_rows: int
    content_columns: int

    def to_prepared(self, row: Fraction, column: Fraction) -> tuple[Fraction, Fraction]:
        """Map a point in full-size coordinates to prepared-image coordinates, exactly."""
        along_row = (row - self.box.row) * Fraction(self.content_rows, self.box.rows)
        along_column = (column - self.box.column) * Fraction(self.content_columns, self.box.columns)
        if self.box.flipped:
            along_column = self.content_columns - along_column
        return self.content_row + along_row, self.content_column + along_column

    def to_original(self, row: Fraction, column: Fraction) -> tuple[Fraction, Fraction]:
        """Map a point in prepared-image coordinates to full-size coordinates: the exact inverse."""
        along_row = Fraction(row) - self.content_row
        along_column = Fraction(column) - self.content_column
        if self.box.flipped:
            along_column = self.content_columns - along_column
        return (
            self.box.row + along_row * Fraction(self.box.rows, self.content_rows),
            self.box.column + along_column * Fraction(self.box.columns, self.content_columns),
        )


class VoiSource(StrEnum):
    """Where the window came from, as in column `voi_source`."""

    WINDOW = "window"
    LUT = "lut"
    MINMAX = "minmax"
    PERCENTILE = "percentile"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class VoiChoice:
    """The VOI transformation that is applied, and what the table records of it."""

    source: VoiSource
    function: VoiFunction | None = None
    """None for a LUT."""
    window: Window | None = None
    lut: Lut | None = None
    index: int = 0
    reason: str = ""
    """For `inspect`: why this one."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A finished image: pixels (height, width) uint8 or uint16, MONOCHROME2, and how it came about."""

    mammogram: Mammogram
    geometry: Geometry
    voi: VoiChoice
    pixels: npt.NDArray[Any] = field(repr=False)
    bits: int
    decoded_sha256: str
    pixels_sha256: str
    background_blanked: bool = False
    """Whether what lies beside the breast was replaced by fill (--background blank, and a breast found)."""


@dataclass(frozen=True, slots=True)
class Reject:
    """An input that was not prepared: kept beside the data, never lost."""

    source: SourceFile
    stage: Stage
    code: str
    message: str
    instance: Instance | None = None
    """What was known of it when it failed."""
    file_bytes: int | None = None
    file_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """What planning needs to know of one readable DICOM image, from its headers only."""

    source: SourceFile
    identity: Identity
    """Layout and header combined; patient_id and image_id are never None here."""
    sop_instance_uid: str | None
    """None if absent or empty: an absent UID is never a key."""
    file_bytes: int
    modified_ns: int = 0
    """When the file was last written; 0 where nobody knows."""
