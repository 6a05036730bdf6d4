"""Everything that can go wrong, as one tree. Every class has a stable `code`; codes are a contract.

    BcdError
    ├── UsageError                usage            exit 2: options, config, inputs that cannot be meant
    │   └── ConfigMismatch        config_mismatch  exit 2: OUT holds a dataset made with another config
    ├── RunAborted                aborted          exit 1: the run cannot go on (disk full, OUT vanished)
    │   └── OutputLocked          output_locked    exit 1: another live run writes to OUT
    ├── DatasetDamaged            damaged          a reader found bytes that differ from what was written
    │   └── DatasetUnreadable     unreadable       the disk failed to give the bytes: they may well be whole
    └── RejectedInput             one input cannot be prepared; becomes a Reject row, never ends a run
            (code is an instance attribute, one of REJECT_CODES)

`REJECT_CODES` is the one list of reasons; the table in docs/reject-codes.md is made from it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Stage(StrEnum):
    """Stages of the pipeline, as they appear in `reject_stage`."""

    DISCOVER = "discover"
    PARSE = "parse"
    PLAN = "plan"
    DECODE = "decode"
    ROI = "roi"
    RENDER = "render"
    WRITE = "write"


class RejectCode(NamedTuple):
    """One documented reason: the stage that finds it, what it means, what to do about it."""

    stage: Stage
    meaning: str
    remedy: str


REJECT_CODES: dict[str, RejectCode] = {
    # discover
    "unreadable": RejectCode(
        Stage.DISCOVER, "The file could not be opened or read.", "Check permissions, links and the disk."
    ),
    "file_too_large": RejectCode(
        Stage.DISCOVER, "The file is larger than --max-file-bytes.", "Raise the limit if the file is genuine."
    ),
    # parse
    "not_dicom": RejectCode(
        Stage.PARSE,
        "Named as DICOM or given explicitly, but the content is not DICOM.",
        "Remove or re-export.",
    ),
    "corrupt_header": RejectCode(
        Stage.PARSE, "The data set could not be parsed as its transfer syntax says.", "Re-export the file."
    ),
    "unsupported_transfer_syntax": RejectCode(
        Stage.PARSE, "No decoder for this transfer syntax.", "Convert the file to a listed transfer syntax."
    ),
    "inflate_limit": RejectCode(
        Stage.PARSE,
        "A deflated data set grows beyond the byte or ratio limit.",
        "Raise the limit if genuine.",
    ),
    "sequence_too_deep": RejectCode(
        Stage.PARSE, "Sequences are nested deeper than the limit.", "The file is malformed; re-export."
    ),
    "no_pixel_data": RejectCode(
        Stage.PARSE, "An image object without Pixel Data.", "Fetch the object again with its pixels."
    ),
    "float_pixel_data": RejectCode(
        Stage.PARSE, "Float or double float pixel data.", "Parametric maps are not mammograms; leave it out."
    ),
    "structured_report": RejectCode(
        Stage.PARSE, "A structured report, not an image.", "None needed; does not count as a failure."
    ),
    "presentation_state": RejectCode(
        Stage.PARSE, "A presentation state, not an image.", "None needed; does not count as a failure."
    ),
    "dicomdir": RejectCode(Stage.PARSE, "A DICOMDIR index.", "None needed; does not count as a failure."),
    "non_image": RejectCode(
        Stage.PARSE, "Another DICOM object without an image (PDF, waveform, …).", "None needed."
    ),
    "color": RejectCode(Stage.PARSE, "A colour image.", "Only grayscale images are prepared."),
    "multi_frame": RejectCode(
        Stage.PARSE, "More than one frame (tomosynthesis, cine).", "Choose with --frames first|middle."
    ),
    "modality": RejectCode(Stage.PARSE, "Another modality than --modality asks for.", "Widen --modality."),
    "missing_attribute": RejectCode(
        Stage.PARSE, "An attribute without which pixels cannot be read is absent.", "Re-export the file."
    ),
    "invalid_attribute": RejectCode(
        Stage.PARSE, "An attribute has an impossible value (zero size, 3 bits allocated, …).", "Re-export."
    ),
    "unsupported_bits": RejectCode(
        Stage.PARSE, "More than 16 bits stored, or 1-bit data.", "Only 2 to 16 bits stored are prepared."
    ),
    "too_many_pixels": RejectCode(
        Stage.PARSE, "Rows × columns exceed --max-pixels.", "Raise the limit if the image is genuine."
    ),
    "pixel_data_length": RejectCode(
        Stage.PARSE,
        "Native Pixel Data are shorter than rows × columns need, or longer by more than padding, or what "
        "follows Pixel Data is no data element.",
        "The file is truncated, or bytes of it moved; fetch it again.",
    ),
    "invalid_encapsulation": RejectCode(
        Stage.PARSE, "The fragments or offset tables of encapsulated Pixel Data make no sense.", "Re-export."
    ),
    "invalid_voi": RejectCode(
        Stage.PARSE,
        "Window, VOI LUT or modality LUT cannot be applied (width 0, empty LUT, …).",
        "Use --window minmax or percentile, or correct the header.",
    ),
    "burned_in_annotation": RejectCode(
        Stage.PARSE,
        "Burned In Annotation is YES and --burned-in is reject.",
        "Leave it out, or use --burned-in keep with --background blank, and look.",
    ),
    # decode
    "codestream_invalid": RejectCode(
        Stage.DECODE, "The compressed image's own headers are not readable.", "The file is damaged."
    ),
    "codestream_mismatch": RejectCode(
        Stage.DECODE,
        "The compressed image contradicts the DICOM header (size, components, precision).",
        "The file is damaged or mislabelled; re-export.",
    ),
    "codestream_truncated": RejectCode(
        Stage.DECODE, "The compressed image ends before all of it is there.", "Fetch the file again."
    ),
    "unsupported_codestream": RejectCode(
        Stage.DECODE, "A valid compressed image with features no pinned decoder handles.", "Convert the file."
    ),
    "decode_failed": RejectCode(
        Stage.DECODE, "The decoder reported an error.", "The file is damaged; fetch it again."
    ),
    "decoder_crashed": RejectCode(
        Stage.DECODE,
        "The image crashed its process, alone in a fresh one too.",
        "Keep the file, report it, leave it out.",
    ),
    "out_of_memory": RejectCode(
        Stage.DECODE,
        "The worker's memory limit was reached on this image.",
        "Raise --worker-memory, and add --retry.",
    ),
    "timeout": RejectCode(
        Stage.DECODE,
        "The image took longer than --image-timeout-s, alone too.",
        "Raise the limit if genuine, and add --retry.",
    ),
    "pixels_above_bits_stored": RejectCode(
        Stage.DECODE,
        "Pixels use more bits than Bits Stored allows and --bits-overflow is reject.",
        "Use --bits-overflow clamp.",
    ),
    "blank_image": RejectCode(
        Stage.ROI, "All pixels are equal (or all are padding).", "Nothing to learn from; leave it out."
    ),
    # identity
    "conflicting_duplicate": RejectCode(
        Stage.PLAN, "Same SOP Instance UID as an earlier input, but other pixels.", "Find out which is right."
    ),
    "ambiguous_identity": RejectCode(
        Stage.PLAN, "Two inputs would get the same image_id in one patient.", "Rename one of them."
    ),
    # anything else
    "internal_error": RejectCode(
        Stage.RENDER,
        "A fault of this program on this input.",
        "Please report it; other inputs are unaffected.",
    ),
}

UNCOUNTED_CODES = frozenset({"structured_report", "presentation_state", "dicomdir", "non_image", "modality"})
"""Non-image DICOM, and what --modality was asked to leave out: never counted against --max-rejected."""


class BcdError(Exception):
    """Root of the tree; `code` is stable, the message is for people."""

    code = "error"


class UsageError(BcdError):
    """Options, config or inputs that cannot be meant (exit 2)."""

    code = "usage"


class ConfigMismatch(UsageError):
    """OUT holds a dataset made with another result config; the message names the fields (exit 2)."""

    code = "config_mismatch"


class RunAborted(BcdError):
    """The run cannot go on; what is finished stays and can be resumed (exit 1)."""

    code = "aborted"


class OutputLocked(RunAborted):
    """Another live run holds OUT (exit 1)."""

    code = "output_locked"


class DatasetDamaged(BcdError):
    """A reader found bytes that are not those that were written."""

    code = "damaged"


class DatasetUnreadable(DatasetDamaged):
    """The disk or store failed to give the bytes, which may well be whole."""

    code = "unreadable"


class RejectedInput(BcdError):
    """One input cannot be prepared. Caught at the pipeline's one boundary and turned into a Reject.

    Messages must not carry header text (names, dates): only numbers, tags, keywords and codes.
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in REJECT_CODES:
            raise ValueError(f"{code!r} is not in REJECT_CODES")
        super().__init__(message)
        self.code = code

    @property
    def stage(self) -> Stage:
        """The stage that this code belongs to."""
        return REJECT_CODES[self.code].stage

    @property
    def message(self) -> str:
        """The message for people."""
        return str(self)


OF_THE_RUN = frozenset({"timeout", "out_of_memory", "decoder_crashed", "internal_error"})
"""Codes that say as much of the run as of the image: its limits, its machine, its libraries."""
