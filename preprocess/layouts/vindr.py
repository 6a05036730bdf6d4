"""VinDr-Mammo (PhysioNet, 1.0.0).

Expects `images/<study_id>/<image_id>.dicom` (both 32 hexadecimal digits) and beside `images`:

    breast-level_annotations.csv  study_id, series_id, image_id, laterality, view_position, height, width,
                                  breast_birads (`BI-RADS 4`), breast_density (`DENSITY C`), split
    finding_annotations.csv       the same and finding_categories (`['Mass', 'Nipple Retraction']`),
                                  finding_birads, xmin, ymin, xmax, ymax; one row per finding
    metadata.csv                  Patient's Age (`053Y`) by SOP Instance UID, which is the image_id

The data set has no patients, only exams: patient_id is study_id. Text columns stay as they are; numbers
and letters whose mapping is certain are added: BIRADS (int64, of the breast), density (A-D, of the
breast), finding_count (int64) and finding_categories (a sorted union, `;` between) of the image.
Boxes are not labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from preprocess.label_profiles import TableProfile
from preprocess.label_values import fold
from preprocess.layouts.base import Layout, Place
from preprocess.records import Identity, LabelLevel
from preprocess.tables import Cell, Row, Table

_TREE = re.compile(r"(?:^|/)([0-9a-f]{32})/([0-9a-f]{32})\.(?:dicom|dcm)\Z", re.IGNORECASE)
_ANY = re.compile(r"(?:(?:^|/)([^/]+)/)?([^/]+?)(?:\.dcm|\.dicom)?\Z", re.IGNORECASE)
_TABLES = ("breast-level_annotations.csv", "finding_annotations.csv", "metadata.csv")


def _recognise(path: str) -> Place | None:
    found = _TREE.search(path)
    return _place(found) if found else None


def _assume(path: str) -> Place:
    found = _ANY.search(path)
    return _place(found) if found else Place()


def _place(found: re.Match[str]) -> Place:
    return Place(Identity(patient_id=found[1], image_id=found[2]), roots=(3,), tables=_TABLES)


def birads(cell: Cell) -> Cell:
    """`BI-RADS 4` → `4`; None where it is not a single category."""
    found = re.fullmatch(r"BI-?RADS\s*([0-6])", cell or "", re.IGNORECASE)
    return found[1] if found else None


def density(cell: Cell) -> Cell:
    """`DENSITY C` → `C`; None where it is not one of A to D."""
    found = re.fullmatch(r"DENSITY\s*([A-D])", cell or "", re.IGNORECASE)
    return found[1].upper() if found else None


def _breast_level(table: Table) -> Table:
    columns = {fold(column): index for index, column in enumerate(table.columns)}
    at, to = columns["breastbirads"], columns["breastdensity"]
    rows = tuple((*row, birads(row[at]), density(row[to])) for row in table.rows)
    return Table(table.name, (*table.columns, "BIRADS", "density"), rows)


def _findings(table: Table) -> Table:
    """One row per image: the union of its categories, the highest category, and how many boxes."""
    columns = {fold(column): index for index, column in enumerate(table.columns)}
    study, image = columns["studyid"], columns["imageid"]
    images: dict[tuple[Cell, Cell], list[Row]] = {}
    for row in table.rows:
        images.setdefault((row[study], row[image]), []).append(row)
    rows = tuple(
        (
            *key,
            _union(row[columns["findingcategories"]] for row in found),
            max((row[columns["findingbirads"]] for row in found), key=lambda cell: cell or ""),
            str(sum(row[columns["xmin"]] is not None for row in found)),
        )
        for key, found in images.items()
    )
    names = ("study_id", "image_id", "finding_categories", "finding_birads", "finding_count")
    return Table(table.name, names, rows)


def _union(cells: Iterable[Cell]) -> str:
    """`['Mass', 'Nipple Retraction']`, one such list a finding, as sorted names with `;` between."""
    quoted = (found for cell in cells for found in re.findall(r"'([^']+)'|\"([^\"]+)\"", cell or ""))
    return ";".join(sorted({single or double for single, double in quoted}))


def _metadata(table: Table) -> Table:
    columns = {fold(column): index for index, column in enumerate(table.columns)}
    image, age = columns["sopinstanceuid"], columns["patientsage"]
    return Table(table.name, ("image_id", "age"), tuple((row[image], _years(row[age])) for row in table.rows))


def _years(cell: Cell) -> Cell:
    """Age String (PS3.5 6.2, VR AS) in whole years: `053Y` → `53`; None for months and days."""
    found = re.fullmatch(r"0*(\d+)Y?", cell or "", re.IGNORECASE)
    return found[1] if found else None


_STUDY = (("studyid", "patient_id"),)
_LEVELS = (
    ("breastbirads", LabelLevel.BREAST),
    ("breastdensity", LabelLevel.BREAST),
    ("density", LabelLevel.BREAST),
)

FINDINGS = TableProfile(
    "vindr-findings",
    required=frozenset({"studyid", "imageid", "findingcategories", "findingbirads", "xmin"}),
    identity=_STUDY,
    derive=_findings,
)
BREAST_LEVEL = TableProfile(
    "vindr-breast-level",
    required=frozenset({"studyid", "seriesid", "imageid", "laterality", "breastbirads", "breastdensity"}),
    identity=_STUDY,
    levels=_LEVELS,
    leave_out=frozenset({"height", "width"}),
    derive=_breast_level,
)
METADATA = TableProfile(
    "vindr-metadata",
    required=frozenset({"sopinstanceuid", "patientsage", "imagelaterality", "viewposition"}),
    levels=(("age", LabelLevel.PATIENT),),
    derive=_metadata,
)

LAYOUT = Layout(
    "vindr",
    recognise=_recognise,
    assume=_assume,
    profiles=(FINDINGS, BREAST_LEVEL, METADATA),
    expects="<study_id>/<image_id>.dicom of 32 hexadecimal digits each",
)
