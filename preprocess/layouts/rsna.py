"""RSNA screening mammography (2022) and trees of its shape, such as our phantoms.

Expects `<split>_images/<patient_id>/<image_id>.dcm`, split being train, test, val, valid, validation,
dev or holdout, and, beside that folder or by --labels, `<split>.csv`:

    site_id, patient_id, image_id, laterality, view, age, cancer, biopsy, invasive, BIRADS, implant,
    density, machine_id, difficult_negative_case        (test.csv: no labels but age and implant, and
                                                         prediction_id, which is no label)

patient_id is the folder and image_id the file's stem, with or without a table. Levels: cancer, biopsy,
invasive, BIRADS, difficult_negative_case and implant are said of a breast, age and density of a patient.
(One of the two sites knows implants per patient only: then both breasts have the same value.) A level
that a table contradicts yields to the next finer one.
"""

from __future__ import annotations

import re

from preprocess.label_profiles import TableProfile
from preprocess.layouts.base import Layout, Place
from preprocess.records import Identity

_TREE = re.compile(
    r"(?:^|/)(train|test|val|valid|validation|dev|holdout)_images/([^/]+)/([^/]+?)(?:\.dcm|\.dicom)?\Z",
    re.IGNORECASE,
)
_ANY = re.compile(r"(?:(?:^|/)([^/]+)/)?([^/]+?)(?:\.dcm|\.dicom)?\Z", re.IGNORECASE)

TRAIN = TableProfile(
    "rsna",
    required=frozenset({"siteid", "patientid", "imageid", "laterality", "view", "machineid"}),
)


def _recognise(path: str) -> Place | None:
    found = _TREE.search(path)
    if found is None:
        return None
    split = found[1].lower()
    identity = Identity(patient_id=found[2], image_id=found[3], split=split)
    return Place(identity, roots=(3,), tables=(f"{split}.csv",))


def _assume(path: str) -> Place:
    found = _ANY.search(path)
    if (place := _recognise(path)) or found is None:
        return place or Place()
    identity = Identity(patient_id=found[1], image_id=found[2])
    return Place(identity, roots=(3, 2), tables=("train.csv", "test.csv"))


LAYOUT = Layout(
    "rsna",
    recognise=_recognise,
    assume=_assume,
    profiles=(TRAIN,),
    expects="<split>_images/<patient_id>/<image_id>.dcm",
)
