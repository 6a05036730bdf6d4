"""CMMD, the Chinese Mammography Database (TCIA).

Expects a folder per patient, `D1-0001` … `D2-0749`, with any tree below it as TCIA's downloader makes it,
and in the folder that holds them, or one above, `CMMD_clinicaldata_revision.csv` (TCIA gives a
spreadsheet: save it as CSV; `,` or `;`), one row per breast:

    ID1, LeftRight, Age, number, abnormality, classification, subtype

patient_id is the folder; image_id, laterality and view are the header's (file names such as `1-1.dcm`
repeat in every series). Columns keep their names; `cancer` (int64) is added: 1 for Malignant, 0 for
Benign, both proven by biopsy. All are said of a breast, Age of the patient.
"""

from __future__ import annotations

import re

from preprocess.label_profiles import TableProfile
from preprocess.label_values import fold
from preprocess.layouts.base import Layout, Place
from preprocess.records import Identity
from preprocess.tables import Table

_PATIENT = re.compile(r"(?:^|/)(D[12]-\d{4})/(?=[^/])")
_TABLES = ("CMMD_clinicaldata_revision.csv", "CMMD_clinicaldata_revision_CSV.csv")
_CANCER = {"malignant": "1", "benign": "0"}


def _recognise(path: str) -> Place | None:
    found = _PATIENT.search(path)
    if found is None:
        return None
    below = path.count("/", found.end()) + 1
    return Place(Identity(patient_id=found[1]), roots=(below + 1, below + 2), tables=_TABLES)


def _assume(path: str) -> Place:
    return _recognise(path) or Place()


def _clinical(table: Table) -> Table:
    names = [fold(column) for column in table.columns]
    at = names.index("classification")
    rows = tuple((*row, _CANCER.get((row[at] or "").lower())) for row in table.rows)
    return Table(table.name, (*table.columns, "cancer"), rows)


CLINICAL = TableProfile(
    "cmmd",
    required=frozenset({"id1", "leftright", "abnormality", "classification", "subtype"}),
    identity=(("id1", "patient_id"), ("leftright", "laterality")),
    derive=_clinical,
)

LAYOUT = Layout(
    "cmmd",
    recognise=_recognise,
    assume=_assume,
    profiles=(CLINICAL,),
    expects="folders from D1-0001 to D2-0749",
)
