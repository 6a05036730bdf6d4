"""Who and what an object is: its kind by SOP Class, its identity by layout and header.

In:  Attributes, the SourceFile's identity (what the layout says).
Out: Identity with patient_id and image_id never None; a RejectedInput for objects that are no images.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import fields

from pydicom.uid import UID

from preprocess._attributes import Attributes, Tag, quiet
from preprocess._image_header import functional_groups
from preprocess.errors import RejectedInput
from preprocess.records import Identity

_DIRECTORY = "1.2.840.10008.1.3.10"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_STRUCTURED_REPORTS = (_STORAGE + "88.",)
_PRESENTATION_STATES = (_STORAGE + "11.",)
_REPORT_MODALITIES = frozenset(("SR", "KO"))
_IMAGE_ATTRIBUTES = (Tag.ROWS, Tag.COLUMNS, Tag.BITS_ALLOCATED, Tag.PHOTOMETRIC_INTERPRETATION)
_UID = re.compile(r"[0-9A-Za-z._-]{1,64}")
"""Letters too: de-identification often puts hashes in the place of UIDs, which are as good as keys."""
_DIGITS = 16
_LONGEST_ID = 64
_INEXACT = frozenset("\\\N{REPLACEMENT CHARACTER}")
_PADDING = b" \0\t\r\n"

_VIEW_CODES = {
    "CC": ("R-10242", "399162004"),
    "MLO": ("R-10226", "399368009"),
    "ML": ("R-10224", "399260004"),
    "LM": ("R-10228", "399352003"),
    "LMO": ("R-10230", "399099002"),
    "FB": ("R-10244", "399196006"),
    "SIO": ("R-102D0", "399188001"),
    "ISO": ("R-40AAA", "441555000"),
    "XCCL": ("R-1024A", "399192008", "Y-X1771"),
    "XCCM": ("R-1024B", "399101009", "Y-X1772"),
    "XCC": ("Y-X1770",),
}
"""Mammography views of PS3.16 CID 4014 by their codes, retired ones included."""
_VIEW_OF_CODE = {code: view for view, codes in _VIEW_CODES.items() for code in codes}
_VIEW_OF_MEANING = {
    "CRANIOCAUDAL": "CC",
    "MEDIOLATERALOBLIQUE": "MLO",
    "MEDIOLATERAL": "ML",
    "LATEROMEDIAL": "LM",
    "LATEROMEDIALOBLIQUE": "LMO",
    "CAUDOCRANIAL": "FB",
}
_VIEW_POSITION = re.compile(
    rf"[LRMS]?(?:{'|'.join(_VIEW_CODES)}|AT|AX|CV)(?:ID|RL|RM|RI|RS|TAN|[DMST])?|AP|PA|LL|RL|[LR]LO|[LR]LD"
)
"""Mammography views with the usual letters for side, magnification, spot and modifiers; plain projections.
Free text in View Position could name anybody."""


def reject_non_images(attributes: Attributes, sop_class_uid: str | None) -> None:
    """Refuse what is DICOM but no image by its SOP Class (PS3.4 B.5), or, without one, by its Modality.

    Raises:
        RejectedInput: dicomdir, structured_report, presentation_state.
    """
    uid = sop_class_uid or ""
    modality = attributes.text(Tag.MODALITY)
    if uid == _DIRECTORY or Tag.DIRECTORY_RECORD_SEQUENCE in attributes:
        raise RejectedInput("dicomdir", "a DICOMDIR index")
    if uid.startswith(_STRUCTURED_REPORTS) or (not uid and modality in _REPORT_MODALITIES):
        raise RejectedInput("structured_report", "a structured report")
    if uid.startswith(_PRESENTATION_STATES) or (not uid and modality == "PR"):
        raise RejectedInput("presentation_state", "a presentation state")


def without_pixels(attributes: Attributes, sop_class_uid: str | None) -> RejectedInput:
    """Why an object has no Pixel Data: an image that lost them, or no image in the first place."""
    if (
        not sop_class_uid
        or _is_image_class(sop_class_uid)
        or any(tag in attributes for tag in _IMAGE_ATTRIBUTES)
    ):
        return RejectedInput("no_pixel_data", "an image object without Pixel Data")
    return RejectedInput("non_image", "an object of a SOP Class without images")


def _is_image_class(sop_class_uid: str) -> bool:
    with quiet():
        return "Image Storage" in UID(sop_class_uid).name


def uid(attributes: Attributes, tag: Tag) -> str | None:
    """A UID, None if absent, empty, several or not like one: a part of a value is nobody's id."""
    text = "\\".join(attributes.texts(tag))
    return text if _UID.fullmatch(text) else None


def read_identity(
    attributes: Attributes, layout: Identity, frame: int, sha256: Callable[[], str]
) -> Identity:
    """Combine what the layout says (which wins, field by field) with the header.

    Args:
        attributes: The header.
        layout: Identity from the input's place; None in it yields to the header.
        frame: Index of the frame taken.
        sha256: Gives the file's sha256 in hex; called only where nothing else names the image.
    """
    patient = layout.patient_id or _patient_id(attributes)
    if patient is None:
        study = uid(attributes, Tag.STUDY_INSTANCE_UID)
        patient = f"study-{_hash(study)}" if study else f"file-{sha256()[:_DIGITS]}"
    image = layout.image_id or uid(attributes, Tag.SOP_INSTANCE_UID) or f"file-{sha256()[:_DIGITS]}"
    header = Identity(patient, image, _laterality(attributes, frame), _view(attributes))
    merged = {
        field.name: getattr(header, field.name)
        if getattr(layout, field.name) is None
        else getattr(layout, field.name)
        for field in fields(Identity)
    }
    return Identity(**(merged | {"patient_id": patient, "image_id": image}))


def _patient_id(attributes: Attributes) -> str | None:
    """Patient ID (0010,0020) as it is; what cannot be shown whole and exactly is hashed.

    Too long, several values, control and bidirectional characters, bytes that the character set does not
    know: leaving out a part would make one patient of two.
    """
    text = attributes.decoded(Tag.PATIENT_ID)
    if not text:
        return None
    if len(text) <= _LONGEST_ID and text.isprintable() and not _INEXACT & set(text):
        return text
    value, _ = attributes.raw(Tag.PATIENT_ID)
    return f"patient-{hashlib.sha256(value.strip(_PADDING)).hexdigest()[:_DIGITS]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _laterality(attributes: Attributes, frame: int) -> str | None:
    """L or R by Image Laterality, Laterality or Frame Laterality; both sides or anything else is None."""
    texts = [attributes.text(Tag.IMAGE_LATERALITY), attributes.text(Tag.LATERALITY)]
    for group in functional_groups(attributes, frame):
        anatomy = group.first_item(Tag.FRAME_ANATOMY_SEQUENCE)
        texts.append(anatomy.text(Tag.FRAME_LATERALITY) if anatomy else None)
    sides = (text.upper() for text in texts if text)
    return next((side for side in sides if side in ("L", "R")), None)


def _view(attributes: Attributes) -> str | None:
    """View Position, or the code or meaning of the View Code Sequence (PS3.3 C.8.11.7.1.1)."""
    position = (attributes.text(Tag.VIEW_POSITION) or "").upper()
    if _VIEW_POSITION.fullmatch(position):
        return position
    try:
        item = attributes.first_item(Tag.VIEW_CODE_SEQUENCE)
    except RejectedInput:  # a view is welcome, not needed: a broken sequence of it spoils no pixel
        return None
    if item is None:
        return None
    meaning = re.sub(r"[^A-Z]", "", (item.text(Tag.CODE_MEANING) or "").upper())
    return _VIEW_OF_CODE.get(item.text(Tag.CODE_VALUE) or "") or _VIEW_OF_MEANING.get(meaning)
