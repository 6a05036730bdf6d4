"""Every known layout maps to one schema: identity by path, labels and levels by its tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocess.discover import Discovery, discover
from preprocess.errors import UsageError
from preprocess.labels import join
from preprocess.layouts import GENERIC, LAYOUT_NAMES, place, profile_of
from preprocess.layouts.vindr import birads, density
from preprocess.records import Identity, LabelLevel, LabelValue, ScannedFile, SourceFile
from preprocess.tables import Table
from tests.preprocess.trees import DICOM, RSNA_COLUMNS, RSNA_ROWS, archive, dicom, rsna, text

STUDY, OTHER_STUDY = "0a" * 16, "0b" * 16
IMAGE, OTHER_IMAGE = "1c" * 16, "1d" * 16


def labels_of(source: SourceFile) -> dict[str, LabelValue]:
    return {label.name: label.value for label in source.labels}


def levels_of(found: Discovery) -> dict[str, LabelLevel]:
    return {column.name: column.level for column in found.label_columns}


# ── RSNA ─────────────────────────────────────────────────────────────────────────────────────────────


def test_rsna_tree_with_its_table(tmp_path: Path) -> None:
    found = discover([str(rsna(tmp_path))])
    assert found.layout == "rsna"
    assert (found.label_rows_unmatched, found.images_unmatched, found.ignored) == (0, 0, 1)
    positive = found.sources[1]
    assert positive.source == "train_images/10006/1864590858.dcm"
    assert positive.identity == Identity("10006", "1864590858", "R", "MLO", "2", "29", "train")
    assert labels_of(positive) == {
        "age": 61,
        "cancer": 1,
        "biopsy": 1,
        "invasive": 1,
        "BIRADS": 0,
        "implant": 0,
        "density": "B",
        "difficult_negative_case": 0,
    }
    assert labels_of(found.sources[3])["difficult_negative_case"] == 1
    assert labels_of(found.sources[0])["BIRADS"] is None


def test_rsna_label_kinds_and_levels(tmp_path: Path) -> None:
    found = discover([str(rsna(tmp_path))])
    assert {c.name: c.kind for c in found.label_columns} == {
        "age": "int64",
        "cancer": "int64",
        "biopsy": "int64",
        "invasive": "int64",
        "BIRADS": "int64",
        "implant": "int64",
        "density": "string",
        "difficult_negative_case": "int64",
    }
    levels = levels_of(found)
    assert {name for name, level in levels.items() if level is LabelLevel.PATIENT} == {"age", "density"}
    assert {levels[name] for name in levels.keys() - {"age", "density"}} == {LabelLevel.BREAST}


def test_rsna_kinds_do_not_depend_on_the_subset(tmp_path: Path) -> None:
    rsna(tmp_path / "all")
    part = rsna(tmp_path / "part", table=False)
    text(part / "train.csv", RSNA_COLUMNS, *RSNA_ROWS[:2])  # no value of BIRADS, none of density
    everything, some = discover([str(tmp_path / "all")]), discover([str(part)])
    assert some.label_columns == everything.label_columns
    assert some.images_unmatched == 2


def test_rsna_identity_without_a_table(tmp_path: Path) -> None:
    found = discover([str(rsna(tmp_path, table=False))])
    assert found.sources[0].identity == Identity("10006", "1459541791", split="train")
    assert (found.labels, found.label_columns) == (None, ())


@pytest.mark.parametrize("inside", ["train_images", "train_images/10006", "train_images/10006/462822612.dcm"])
def test_rsna_may_be_given_from_any_folder_down(tmp_path: Path, inside: str) -> None:
    found = discover([str(rsna(tmp_path) / inside)])
    whole = {s.path: s for s in discover([str(tmp_path)]).sources}
    for source in found.sources:
        assert (source.identity, source.labels) == (whole[source.path].identity, whole[source.path].labels)


def test_rsna_in_an_archive_with_its_table(tmp_path: Path) -> None:
    members = {f"train_images/{r.split(',')[1]}/{r.split(',')[2]}.dcm": DICOM for r in RSNA_ROWS}
    table = "\n".join((RSNA_COLUMNS, *RSNA_ROWS)).encode()
    path = archive(tmp_path / "rsna.zip", **members, **{"train.csv": table})
    packed = discover([str(path)])
    unpacked = discover([str(rsna(tmp_path / "tree"))])
    assert [(s.identity, s.labels) for s in packed.sources] == [
        (s.identity, s.labels) for s in unpacked.sources
    ]


def test_archive_named_like_an_images_folder_counts_as_one(tmp_path: Path) -> None:
    path = archive(tmp_path / "train_images.zip", **{"10006/462822612.dcm": DICOM})
    text(tmp_path / "train.csv", RSNA_COLUMNS, *RSNA_ROWS)
    (source,) = discover([str(path)]).sources
    assert source.identity.view == "CC"
    assert labels_of(source)["cancer"] == 0


def test_rsna_test_set_has_no_cancer_and_prediction_id_is_no_label(tmp_path: Path) -> None:
    rsna(tmp_path)
    dicom(tmp_path / "test_images" / "10116" / "472095321.dcm")
    columns = "site_id,patient_id,image_id,laterality,view,age,implant,machine_id,prediction_id"
    text(tmp_path / "test.csv", columns, "2,10116,472095321,L,CC,67.0,0,29,10116_L")
    found = discover([str(tmp_path)])
    assert labels_of(found.sources[0])["age"] == 67
    assert labels_of(found.sources[0])["cancer"] is None
    assert found.sources[0].identity.split == "test"
    assert "prediction_id" not in levels_of(found)
    assert found.label_columns == discover([str(tmp_path / "train_images")]).label_columns
    assert found.label_rows_unmatched == 0


def test_explicit_labels_replace_those_beside_but_not_the_identity(tmp_path: Path) -> None:
    rsna(tmp_path / "set")
    table = text(tmp_path / "mine.csv", "patient_id,laterality,score", "10006,R,0.5")
    found = discover([str(tmp_path / "set")], labels=str(table))
    assert [labels_of(s) for s in found.sources] == [{}, {"score": 0.5}, {}, {}]
    assert found.sources[1].identity.view == "MLO"
    assert found.images_unmatched == 3


def test_implausible_table_beside_is_left_alone(tmp_path: Path) -> None:
    text(rsna(tmp_path, table=False) / "train.csv", "a,b", "1,2")
    assert discover([str(tmp_path)]).label_columns == ()


def test_other_inputs_change_nobodys_identity(tmp_path: Path) -> None:
    rsna(tmp_path / "set")
    dicom(tmp_path / "pacs" / "IM1")
    alone = {s.path: s.identity for s in discover([str(tmp_path / "set")]).sources}
    both = discover([str(tmp_path / "pacs"), str(tmp_path / "set")])
    assert both.layout == "pacs+rsna"
    assert {s.path: s.identity for s in both.sources if s.path in alone} == alone


def test_named_layout_reads_unusual_folders(tmp_path: Path) -> None:
    for row in RSNA_ROWS:
        dicom(tmp_path / "dicoms" / row.split(",")[1] / row.split(",")[2])
    text(tmp_path / "train.csv", RSNA_COLUMNS, *RSNA_ROWS)
    assert discover([str(tmp_path / "dicoms")]).layout == "pacs"
    named = discover([str(tmp_path / "dicoms")], layout="rsna")
    assert named.sources[0].identity.patient_id == "10006"
    assert labels_of(named.sources[1])["cancer"] == 1


def test_a_named_layout_that_does_not_fit_is_said_with_what_was_found(tmp_path: Path) -> None:
    root = str(rsna(tmp_path / "set"))
    [note] = discover([root], layout="vindr").notes
    assert "vindr expects <study_id>/<image_id>.dicom" in note
    assert (
        "4 inputs lie otherwise, 4 as in rsna; their patient_id and image_id are names of folder and" in note
    )
    [note] = discover([root], layout="cmmd").notes
    assert "4 as in rsna; their patient_id and image_id are what the headers say" in note
    dicom(tmp_path / "other" / "a.dcm")
    [note] = discover([root, str(tmp_path / "other")], layout="rsna").notes
    assert "1 inputs lie otherwise;" in note
    for layout in ("rsna", "auto", "pacs"):
        assert discover([root], layout=layout).notes == ()


def test_tables_that_a_data_set_comes_with_are_missed(tmp_path: Path) -> None:
    assert discover([str(rsna(tmp_path / "set", table=False))]).tables_missing == ("train.csv",)
    dicom(tmp_path / "vindr" / "images" / STUDY / f"{IMAGE}.dicom")
    assert len(discover([str(tmp_path / "vindr")]).tables_missing) == 3
    text(tmp_path / "own.csv", "image_id,cancer", "462822612,0")
    for labels, folder in ((None, rsna(tmp_path / "whole")), (str(tmp_path / "own.csv"), tmp_path / "set")):
        assert discover([str(folder)], labels).tables_missing == ()


def test_nobody_misses_labels_of_a_test_split_or_of_unknown_files(tmp_path: Path) -> None:
    dicom(tmp_path / "a" / "test_images" / "10008" / "736471439.dcm")
    dicom(tmp_path / "b" / "x.dcm")
    assert discover([str(tmp_path)]).tables_missing == ()


def test_pacs_by_name_turns_recognition_off(tmp_path: Path) -> None:
    found = discover([str(rsna(tmp_path))], layout="pacs")
    assert {s.identity for s in found.sources} == {Identity()}
    assert found.label_columns == ()


def test_unknown_layout_is_a_usage_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="auto, rsna, vindr, cmmd, pacs"):
        discover([str(tmp_path)], layout="rnsa")


# ── VinDr-Mammo ──────────────────────────────────────────────────────────────────────────────────────

BREAST_COLUMNS = (
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,split"
)
FINDING_COLUMNS = f"{BREAST_COLUMNS[:-6]},finding_categories,finding_birads,xmin,ymin,xmax,ymax,split"


def vindr(root: Path) -> Path:
    dicom(root / "images" / STUDY / f"{IMAGE}.dicom")
    dicom(root / "images" / OTHER_STUDY / f"{OTHER_IMAGE}.dicom")
    first = f"{STUDY},{'5e' * 16},{IMAGE},L,MLO,3518,2800,BI-RADS 4,DENSITY C"
    second = f"{OTHER_STUDY},{'5f' * 16},{OTHER_IMAGE},R,CC,3518,2800,BI-RADS 1,DENSITY B"
    text(root / "breast-level_annotations.csv", BREAST_COLUMNS, f"{first},training", f"{second},test")
    mass = "\"['Mass', 'Nipple Retraction']\""
    text(
        root / "finding_annotations.csv",
        FINDING_COLUMNS,
        f"{first},{mass},BI-RADS 4,1.5,2.5,10,20,training",
        f"{first},['Suspicious Calcification'],BI-RADS 3,1,2,10,20,training",
        f"{second},['No Finding'],,,,,,test",
    )
    header = "SOP Instance UID,Patient's Age,View Position,Image Laterality,Manufacturer's Model Name"
    text(root / "metadata.csv", header, f"{IMAGE},053Y,MLO,L,X", f"{OTHER_IMAGE},,CC,R,X")
    return root


def test_vindr_tree_with_its_tables(tmp_path: Path) -> None:
    found = discover([str(vindr(tmp_path))])
    assert found.layout == "vindr"
    assert found.sources[0].identity == Identity(STUDY, IMAGE, "L", "MLO", split="train")
    assert found.sources[1].identity == Identity(OTHER_STUDY, OTHER_IMAGE, "R", "CC", split="test")
    assert labels_of(found.sources[0]) == {
        "breast_birads": "BI-RADS 4",
        "breast_density": "DENSITY C",
        "BIRADS": 4,
        "density": "C",
        "finding_categories": "Mass;Nipple Retraction;Suspicious Calcification",
        "finding_birads": "BI-RADS 4",
        "finding_count": 2,
        "age": 53,
    }
    assert labels_of(found.sources[1])["finding_categories"] == "No Finding"
    assert labels_of(found.sources[1])["finding_count"] == 0
    assert (found.label_rows_unmatched, found.images_unmatched) == (0, 0)


def test_vindr_levels(tmp_path: Path) -> None:
    levels = levels_of(discover([str(vindr(tmp_path))]))
    assert {n for n, level in levels.items() if level is LabelLevel.BREAST} == {
        "breast_birads",
        "breast_density",
        "BIRADS",
        "density",
    }
    assert levels["finding_categories"] is LabelLevel.IMAGE
    assert levels["age"] is LabelLevel.PATIENT


@pytest.mark.parametrize(
    ("cell", "number"), [("BI-RADS 4", "4"), ("BI-RADS 0", "0"), ("4a", None), (None, None)]
)
def test_birads_becomes_a_number_only_where_that_is_certain(cell: str | None, number: str | None) -> None:
    assert birads(cell) == number


def test_density_becomes_a_letter_only_where_that_is_certain() -> None:
    assert [density(cell) for cell in ("DENSITY A", "density d", "DENSITY E", None)] == ["A", "D", None, None]


# ── CMMD ─────────────────────────────────────────────────────────────────────────────────────────────


def cmmd(root: Path, separator: str = ",") -> Path:
    for series in ("1.000000-NA-70244", "1.000000-NA-70245"):
        dicom(root / "CMMD" / "D1-0001" / "07-18-2010-NA-NA-79377" / series / "1-1.dcm", series.encode())
    dicom(root / "CMMD" / "D2-0749" / "07-18-2011-NA-NA-1" / "1.000000-NA-1" / "1-1.dcm")
    rows = (
        "ID1,LeftRight,Age,number,abnormality,classification,subtype",
        "D1-0001,R,44,2,calcification,Benign,",
        "D2-0749,L,50,2,both,Malignant,Luminal A",
        "D2-0749,R,50,2,mass,Benign,",
    )
    text(root / "CMMD_clinicaldata_revision.csv", *(row.replace(",", separator) for row in rows))
    return root


def scanned(source: SourceFile, **header: str) -> ScannedFile:
    fields = {"patient_id": source.identity.patient_id, "image_id": "1.2.3"} | header
    return ScannedFile(source, Identity(**fields), "1.2.3", 1)


@pytest.mark.parametrize("separator", [",", ";"])
def test_cmmd_labels_join_once_headers_tell_the_side(tmp_path: Path, separator: str) -> None:
    found = discover([str(cmmd(tmp_path, separator))])
    assert found.layout == "cmmd"
    assert [s.identity.patient_id for s in found.sources] == ["D1-0001", "D1-0001", "D2-0749"]
    assert [s.labels for s in found.sources] == [(), (), ()]
    sides = ("R", "R", "L")
    files = [scanned(s, laterality=side) for s, side in zip(found.sources, sides, strict=True)]
    joined = join(found.labels, files)
    assert [labels_of(f.source)["cancer"] for f in joined.files] == [0, 0, 1]
    assert labels_of(joined.files[2].source) == {
        "Age": 50,
        "number": 2,
        "abnormality": "both",
        "classification": "Malignant",
        "subtype": "Luminal A",
        "cancer": 1,
    }
    assert (joined.rows_unmatched, joined.images_unmatched) == (1, 0)


def test_cmmd_levels(tmp_path: Path) -> None:
    levels = levels_of(discover([str(cmmd(tmp_path))]))
    assert levels.pop("Age") is LabelLevel.PATIENT
    assert set(levels.values()) == {LabelLevel.BREAST}


def test_cmmd_table_may_lie_in_the_images_folder(tmp_path: Path) -> None:
    cmmd(tmp_path)
    (tmp_path / "CMMD_clinicaldata_revision.csv").rename(tmp_path / "CMMD" / "CMMD_clinicaldata_revision.csv")
    assert "cancer" in levels_of(discover([str(tmp_path / "CMMD" / "D1-0001")]))


# ── recognition ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "layout"),
    [
        ("d/train_images/10006/462822612.dcm", "rsna"),
        ("test_images/1/2", "rsna"),
        ("d/my_images/10006/462822612.dcm", "pacs"),
        ("d/train_images/462822612.dcm", "pacs"),
        ("d/train_images/10006/x/462822612.dcm", "pacs"),
        (f"images/{STUDY}/{IMAGE}.dicom", "vindr"),
        (f"{STUDY}/{IMAGE}.dicom", "vindr"),
        (f"images/{STUDY[1:]}/{IMAGE}.dicom", "pacs"),
        ("CMMD/D1-0001/a/b/1-1.dcm", "cmmd"),
        ("CMMD/D3-0001/a/b/1-1.dcm", "pacs"),
        ("D1-0001", "pacs"),
        ("PAT0/ST0/SE0/IM0", "pacs"),
    ],
)
def test_layout_is_recognised_by_the_path_alone(path: str, layout: str) -> None:
    assert place(path)[0].name == layout


def test_every_layout_is_documented() -> None:
    document = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text(encoding="utf-8")
    for name in LAYOUT_NAMES:
        assert f"`{name}`" in document


def test_unknown_table_has_the_generic_profile() -> None:
    assert profile_of(Table("t.csv", ("image_id", "cancer"), ())) is GENERIC
