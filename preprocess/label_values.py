"""What the columns of a label table are: identity, label or neither; and the type of each label.

In:  columns of text.
Out: identity fields, int64/float64/string values, and which columns must not be kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from preprocess.names import stem
from preprocess.records import LabelValue
from preprocess.schema import COLUMN_NAMES
from preprocess.tables import Cell

MAX_TEXT = 200
"""A text column with a longer value is free text (a report), not a label."""

IDENTITY_ALIASES: dict[str, str] = {
    "patientid": "patient_id",
    "patient": "patient_id",
    "subjectid": "patient_id",
    "empianon": "patient_id",
    "imageid": "image_id",
    "image": "image_id",
    "sopinstanceuid": "image_id",
    "laterality": "laterality",
    "imagelaterality": "laterality",
    "breastlaterality": "laterality",
    "side": "laterality",
    "view": "view",
    "viewposition": "view",
    "siteid": "site_id",
    "site": "site_id",
    "machineid": "machine_id",
    "machine": "machine_id",
    "split": "split",
}
"""Folded column name → field of records.Identity. The first alias in this order wins."""

PATH_ALIASES = (
    "path",
    "file",
    "filepath",
    "filename",
    "dicompath",
    "dicomfile",
    "dcmpath",
    "imagepath",
    "imagefilepath",
    "anondicompath",
    "url",
    "uri",
)
"""Folded names of a column that says where the file is; the first in this order wins."""

_NO_LABELS = frozenset(
    {"predictionid", "studyid", "seriesid", "studyinstanceuid", "seriesinstanceuid", "sopclassuid"}
)
_RESERVED = frozenset(COLUMN_NAMES) | {"image", "format", "encoded", "path", "bytes"}

_PERSONAL_WORDS = frozenset(
    """
    name names surname forename dob birth birthday birthdate date dates datetime time timestamp
    address street city zip zipcode postcode postal phone telephone mobile fax email mail ssn mrn
    physician radiologist doctor operator technician institution hospital accession
    comment comments report note notes
    """.split()  # noqa: SIM905 - reads better as words
)
_PERSONAL_PARTS = ("birth", "surname", "firstname", "lastname", "fullname", "patientname", "patientsname")
_PERSONAL_ENDS = ("date", "datetime", "address", "phone", "accessionnumber")
_HARMLESS = frozenset({"update", "candidate", "validate", "mandate"})

_INTEGER = re.compile(r"[+-]?(?:0|[1-9]\d{0,17})(?:\.0+)?")
_FLOAT = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_BOOLEAN = {"true": 1, "false": 0}
_LATERALITY = {"l": "L", "left": "L", "r": "R", "right": "R", "b": "B", "both": "B", "bilateral": "B"}
_SPLIT = {"training": "train", "testing": "test"}
_WIDTH = {"int64": 0, "float64": 1, "string": 2}


def fold(column: str) -> str:
    """A column name without case, spaces and punctuation: `Patient ID`, `patient_id` → `patientid`."""
    return re.sub(r"[^a-z0-9]", "", column.lower())


def identity_value(field: str, cell: Cell) -> str | None:
    """A cell as the given field of Identity in the schema's words (L/R/B, CC, train); None if unknown."""
    if cell is None:
        return None
    if field == "laterality":
        return _LATERALITY.get(cell.lower())
    if field == "view":
        return cell.upper()
    if field == "split":
        return _SPLIT.get(cell.lower(), cell.lower())
    return stem(cell.replace("\\", "/")) if field == "image_id" else cell


def identifiers(cells: Sequence[Cell]) -> list[Cell]:
    """A column of ids; `10006.0` throughout (a column that passed through floats) becomes `10006`."""
    if all(c is None or (c.endswith(".0") and c[:-2].isdigit()) for c in cells):
        return [None if c is None else c[:-2] for c in cells]
    return list(cells)


def why_not_label(column: str, cells: Sequence[Cell]) -> str | None:
    """Why a column that is no identity is not kept as a label, or None if it is one.

    `""` stands for a column that is silently no label (ids of studies, predictions).
    """
    if fold(column) in _NO_LABELS or fold(column) in PATH_ALIASES:
        return ""
    if column in _RESERVED or column.startswith("image/"):  # the image's own keys in TFRecords
        return "is the name of a column that every dataset has; rename it to keep it"
    if _is_personal(column):
        return "may name a person or a date"
    if any(c is not None and (len(c) > MAX_TEXT or "^" in c) for c in cells):
        return "holds free text or names of persons"
    return None


def typed(cells: Sequence[Cell], default: str = "string") -> tuple[str, list[LabelValue]]:
    """Kind and values of a label column: whole numbers and booleans int64, numbers float64, else string.

    Whole numbers may be written `1.0` (columns with gaps that passed through floats); `007` is text,
    a code. `default` is the kind of a column without a single value.
    """
    present = [c for c in cells if c is not None]
    if not present:
        return default, list(cells)
    if all(_INTEGER.fullmatch(c) or c.lower() in _BOOLEAN for c in present):
        return "int64", [None if c is None else _integer(c) for c in cells]
    if all(_FLOAT.fullmatch(c) for c in present):
        return "float64", [None if c is None else float(c) + 0.0 for c in cells]  # -0.0 is 0.0
    return "string", list(cells)


def widest(kinds: Sequence[str]) -> str:
    """The narrowest kind that holds all given ones."""
    return max(kinds, key=_WIDTH.__getitem__)


def cast(value: LabelValue, kind: str) -> LabelValue:
    """A value as a wider kind."""
    if value is None or kind == "int64":
        return value
    return float(value) if kind == "float64" else str(value)


def _integer(cell: str) -> int:
    known = _BOOLEAN.get(cell.lower())
    return int(cell.partition(".")[0]) if known is None else known


def _is_personal(column: str) -> bool:
    folded = fold(column)
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", column)
    if not _PERSONAL_WORDS.isdisjoint(word.lower() for word in words):
        return True
    if folded in _HARMLESS:
        return False
    return folded.endswith(_PERSONAL_ENDS) or any(part in folded for part in _PERSONAL_PARTS)
