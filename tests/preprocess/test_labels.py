"""Label tables are typed, checked and joined, and what may name a person never gets in."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.errors import UsageError
from preprocess.label_paths import FileName
from preprocess.label_values import typed, why_not_label, widest
from preprocess.labels import LabelSource, LabelTable, Role, build, join
from preprocess.layouts import GENERIC, profile_of
from preprocess.records import Identity, Label, LabelLevel, LabelValue, ScannedFile, SourceFile
from preprocess.schema import COLUMN_NAMES
from preprocess.tables import Table, read_table
from tests.preprocess.trees import text


def table_of(text_of_csv: str) -> Table:
    header, *rows = (line.split(",") for line in text_of_csv.split())
    return Table("t.csv", tuple(header), tuple(tuple(cell or None for cell in row) for row in rows))


def labels(text_of_csv: str) -> LabelTable:
    table = table_of(text_of_csv)
    built = build([LabelSource(table, profile_of(table))])
    assert built is not None
    return built


def values(found: tuple[Label, ...]) -> dict[str, LabelValue]:
    return {label.name: label.value for label in found}


def scan(name: str, uid: str | None = None, **identity: str) -> ScannedFile:
    return ScannedFile(SourceFile(name, f"/data/{name}"), Identity(**identity), uid, 1)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────


def test_image_table_joins_on_uid_image_id_and_stem() -> None:
    table = labels("image_id,y 1.2.3,1 7,2 IM8,3")
    assert values(table.lookup(Identity(image_id="x"), "1.2.3", "x")) == {"y": 1}
    assert values(table.lookup(Identity(image_id="7"), None, "x")) == {"y": 2}
    assert values(table.lookup(Identity(), None, "IM8")) == {"y": 3}
    assert table.lookup(Identity(image_id="9"), "1.2.4", "IM9") == ()


def test_image_ids_may_repeat_between_patients() -> None:
    table = labels("patient_id,image_id,y a,1,10 b,1,20 b,2,30")
    assert values(table.lookup(Identity("a", "1"), None, None)) == {"y": 10}
    assert values(table.lookup(Identity("b", "1"), None, None)) == {"y": 20}
    assert table.lookup(Identity(None, "1"), None, None) == ()
    assert values(table.lookup(Identity(None, "2"), None, None)) == {"y": 30}


def test_file_stem_does_not_join_across_patients_but_a_uid_does() -> None:
    table = labels("patient_id,image_id,y a,1-1,10 a,1.2.3,20")
    assert table.lookup(Identity("other", None), None, "1-1") == ()
    assert values(table.lookup(Identity("other", None), "1.2.3", None)) == {"y": 20}


def test_file_name_column_stands_for_image_ids_but_names_no_image() -> None:
    table = labels("filename,y some/where/IM8.dcm,3 IM9,4")
    found = table.match(Identity(), Identity(image_id="1.2.3"), None, FileName("IM8"))
    assert values(found.labels) == {"y": 3}
    assert found.identity.image_id is None


def named(path: str, *, repeated: bool = True, root: str = "/in/") -> FileName:
    return FileName(path, path.removeprefix(root), repeated)


@pytest.mark.parametrize("cells", [("a/1-1.dcm", "b/1-1"), ("/elsewhere/a/1-1.dcm", "C:\\x\\b\\1-1.dcm")])
def test_paths_tell_files_of_one_name_apart(cells: tuple[str, str]) -> None:
    table = labels(f"path,y {cells[0]},1 {cells[1]},0")
    for folder, value in (("a", {"y": 1}), ("b", {"y": 0}), ("c", {})):
        found = table.match(Identity(), Identity("p"), None, named(f"/in/{folder}/1-1"))
        assert values(found.labels) == value


def test_the_longest_common_end_of_two_paths_counts() -> None:
    table = labels("path,y s/1,1 b/s/1,2")
    assert values(table.match(Identity(), Identity(), None, named("/in/b/s/1")).labels) == {"y": 2}
    assert values(table.match(Identity(), Identity(), None, named("/in/c/s/1")).labels) == {"y": 1}


def test_rows_about_one_path_must_agree_and_those_of_others_need_not() -> None:
    with pytest.raises(UsageError, match="rows 2 and 4 both describe one image and differ in y"):
        labels("path,y a/1.dcm,1 b/1.dcm,0 a/1,0")


def test_a_name_that_several_inputs_have_is_no_image_of_a_path_or_of_another_patient() -> None:
    for rows in ("path,y 1-1.dcm,1", "patient_id,image_id,y p,1-1,1", "patient_id,filename,y p,1-1.dcm,1"):
        table = labels(rows)
        twice, once = named("/in/a/1-1"), named("/in/a/1-1", repeated=False)
        assert table.match(Identity(), Identity(), None, twice).labels == ()
        assert table.match(Identity(), Identity(), None, twice).identity == Identity()
        assert values(table.match(Identity(), Identity(), None, once).labels) == {"y": 1}
        by_patient = table.match(Identity(), Identity("p"), None, twice).labels
        assert values(by_patient) == ({"y": 1} if "patient_id" in rows else {})
        assert table.match(Identity(), Identity("q"), None, twice).labels == ()
    table = labels("image_id,y 1.2.3,1")
    assert values(table.match(Identity(), Identity("q"), "1.2.3", named("/in/a/1.2.3")).labels) == {"y": 1}


def test_an_image_id_without_patients_is_the_same_image_in_every_folder() -> None:
    """Raw and processed pictures, or a copy of a tree."""
    table = labels("image_id,y img1,1 img2,0")
    for folder in ("raw", "processed"):
        assert values(table.match(Identity(), Identity("p"), None, named(f"/in/{folder}/img1")).labels) == {
            "y": 1
        }


def test_names_without_folders_are_told_apart_by_their_patients() -> None:
    table = labels("patient_id,filename,view,y P1,1-1.dcm,CC,0 P2,1-1.dcm,MLO,1")
    for patient, view, y in (("P1", "CC", 0), ("P2", "MLO", 1)):
        found = table.match(Identity(), Identity(patient), None, named(f"/in/{patient}/1-1"))
        assert (found.identity.view, values(found.labels)) == (view, {"y": y})
    same = labels("patient_id,filename,y P1,1-1.dcm,1 P2,1-1.dcm,1")
    assert values(same.match(Identity(), Identity("P2"), None, named("/in/x/1-1")).labels) == {"y": 1}


def test_what_a_path_ends_with_counts_before_what_ends_with_a_name() -> None:
    table = labels("path,y site_a/P1/1-1.dcm,0 site_a/P2/1-1.dcm,0 site_b/P1/1-1.dcm,1")
    found = table.match(Identity(), Identity(), None, named("/x/site_a/P1/1-1", root="/x/site_a/"))
    assert values(found.labels) == {"y": 0}
    two = labels("path,y C:\\d\\train\\P1\\1-1.dcm,0 C:\\d\\validation\\P1\\1-1.dcm,1")
    assert two.match(Identity(), Identity(), None, named("/x/P1/1-1", root="/x/")).labels == ()


def test_a_member_of_an_archive_is_found_by_its_folder() -> None:
    table = labels("path,y site_a/P1/1-1.dcm,0 site_a/P2/1-1.dcm,1")
    for patient, y in (("P1", 0), ("P2", 1)):
        file = SourceFile(f"site_a.zip::{patient}/1-1.dcm", "/x/site_a.zip", f"{patient}/1-1.dcm")
        found = table.match(Identity(), Identity(), None, FileName.of(file, repeated=True))
        assert values(found.labels) == {"y": y}


def test_many_rows_with_one_end_are_found_at_once() -> None:
    rows = " ".join(f"P{number:05}/L_CC/1.dcm,{number % 2}" for number in range(20_000))
    table = labels(f"path,y {rows}")
    for number in range(0, 20_000, 7):
        found = table.match(Identity(), Identity(), None, named(f"/in/P{number:05}/L_CC/1"))
        assert values(found.labels) == {"y": number % 2}


def test_one_name_in_two_paths_of_a_patient_is_told_by_its_folder_only() -> None:
    table = labels("patient_id,path,y p,a/1.dcm,1 p,b/1.dcm,0 q,c/1.dcm,5")
    assert values(table.match(Identity("p"), Identity(), None, named("/in/b/1")).labels) == {"y": 0}
    assert table.match(Identity("p"), Identity(), None, named("/in/x/1")).labels == ()
    assert values(table.match(Identity("q"), Identity(), None, named("/in/x/1")).labels) == {"y": 5}
    assert table.match(Identity("p"), Identity(), None, named("/in/c/1")).labels == ()


def test_breast_table_joins_on_patient_and_laterality() -> None:
    table = labels("patient_id,laterality,y 1,left,0 1,R,1 2,B,5")
    assert values(table.lookup(Identity("1", laterality="L"), None, None)) == {"y": 0}
    assert values(table.lookup(Identity("1", laterality="R"), None, None)) == {"y": 1}
    assert values(table.lookup(Identity("2", laterality="R"), None, None)) == {"y": 5}
    assert table.lookup(Identity("1"), None, None) == ()
    assert [c.level for c in table.columns] == [LabelLevel.BREAST]


def test_patient_table_joins_on_patient_and_all_its_labels_are_the_patients() -> None:
    table = labels("patient_id,cancer,BIRADS 1,1,5 2,0,1")
    assert values(table.lookup(Identity("1", laterality="L"), None, None)) == {"cancer": 1, "BIRADS": 5}
    assert {c.level for c in table.columns} == {LabelLevel.PATIENT}


def test_table_without_a_key_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nothing to join on"):
        labels("cancer,laterality 1,L")


def test_ids_that_passed_through_floats_still_join() -> None:
    assert values(labels("patient_id,y 10006.0,1 ,0").lookup(Identity("10006"), None, None)) == {"y": 1}


def test_leading_zeros_of_ids_are_kept() -> None:
    table = labels("patient_id,y 007,1")
    assert table.lookup(Identity("7"), None, None) == ()
    assert values(table.lookup(Identity("007"), None, None)) == {"y": 1}


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        ("image_id,y a,0 a,1", "rows 2 and 3 both describe one image and differ in y"),
        (
            "patient_id,laterality,y,z p,L,0,0 p,R,0,1 p,L,0,1",
            "rows 2 and 4 both describe one breast and differ in z",
        ),
        ("patient_id,laterality,y p,B,0 p,R,1", "rows 2 and 3 both describe one breast"),
    ],
)
def test_key_with_two_values_is_a_usage_error_that_names_it(csv: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        labels(csv)


def test_repeated_rows_that_agree_are_one_and_their_view_is_nobodys() -> None:
    table = labels("patient_id,laterality,view,y p,L,CC,1 p,L,MLO,1")
    found = table.match(Identity("p", laterality="L"), Identity(), None, None)
    assert (values(found.labels), found.identity.view) == ({"y": 1}, None)
    assert table.unmatched(set(found.rows)) == 0


# ── levels ───────────────────────────────────────────────────────────────────────────────────────────

KEYS = "patient_id,laterality,image_id"


@pytest.mark.parametrize(
    ("csv", "level"),
    [
        (f"{KEYS},cancer p,L,1,1 p,L,2,1 p,R,3,0", LabelLevel.BREAST),
        (f"{KEYS},cancer p,L,1,1 p,L,2,0 p,R,3,0", LabelLevel.IMAGE),
        (f"{KEYS},age p,L,1,50 p,L,2,50 p,R,3,50", LabelLevel.PATIENT),
        (f"{KEYS},age p,L,1,50 p,L,2,50 p,R,3,51", LabelLevel.BREAST),
        (f"{KEYS},age p,L,1,50 p,L,2, p,R,3,50", LabelLevel.PATIENT),
        (f"{KEYS},mine p,L,1,50 p,L,2,50 p,R,3,50", LabelLevel.IMAGE),
        ("image_id,cancer 1,1 2,0", LabelLevel.IMAGE),
    ],
)
def test_level_of_a_well_known_label_is_what_the_table_proves(csv: str, level: LabelLevel) -> None:
    assert [column.level for column in labels(csv).columns] == [level]


# ── types ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cells", "kind", "typed_values"),
    [
        (["0", None, "2"], "int64", [0, None, 2]),
        (["1.0", None, "-2.00"], "int64", [1, None, -2]),
        (["True", "false", None], "int64", [1, 0, None]),
        (["0.5", "1", None], "float64", [0.5, 1.0, None]),
        (["1e-3", ".5"], "float64", [0.001, 0.5]),
        (["007", "8"], "string", ["007", "8"]),
        (["BI-RADS 4", None], "string", ["BI-RADS 4", None]),
        (["inf", "1"], "string", ["inf", "1"]),
        (["9" * 30], "float64", [1e30]),
        ([None, None], "string", [None, None]),
    ],
)
def test_type_of_a_column(cells: list[str | None], kind: str, typed_values: list[LabelValue]) -> None:
    got_kind, got = typed(cells)
    assert got_kind == kind
    assert got == typed_values
    assert [type(value) for value in got] == [type(value) for value in typed_values]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(10**17), 10**17)), min_size=1))
def test_whole_numbers_survive_with_gaps(numbers: list[int | None]) -> None:
    kind, got = typed([None if n is None else str(n) for n in numbers], "int64")
    assert (kind, got) == ("int64", numbers)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_survive_exactly(numbers: list[float]) -> None:
    _, got = typed([repr(n) for n in numbers])
    assert [float(value) for value in got if value is not None] == numbers


def test_tables_that_disagree_about_a_type_widen_it() -> None:
    first, second = table_of("image_id,y a,1"), table_of("image_id,y b,0.5")
    table = build([LabelSource(first, GENERIC), LabelSource(second, GENERIC)])
    assert table is not None
    assert [c.kind for c in table.columns] == ["float64"]
    assert values(table.lookup(Identity(image_id="a"), None, None)) == {"y": 1.0}
    assert widest(["int64", "string", "float64"]) == "string"


# ── privacy ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "column",
    [
        "PatientName",
        "patient_name",
        "Name",
        "surname",
        "BirthDate",
        "birth_date",
        "dob",
        "StudyDate",
        "AcquisitionDateTime",
        "date",
        "address",
        "PatientAddress",
        "phone",
        "mrn",
        "AccessionNumber",
        "report",
        "institution_name",
        "ReferringPhysician",
    ],
)
def test_columns_that_may_name_a_person_are_left_out_with_a_note(column: str) -> None:
    table = labels(f"image_id,{column},cancer 1,x,1")
    assert [c.name for c in table.columns] == ["cancer"]
    assert len(table.notes) == 1
    assert repr(column) in table.notes[0]
    assert "x" not in table.notes[0].split(column)[1].split()


@pytest.mark.parametrize(
    "column", ["cancer", "BIRADS", "subtype", "candidate", "abnormality", "race", "tumour_size"]
)
def test_ordinary_label_names_are_kept(column: str) -> None:
    assert why_not_label(column, ["1"]) is None


@pytest.mark.parametrize("value", ["DOE^JANE", "x" * 201])
def test_free_text_and_person_names_are_left_out_by_value(value: str) -> None:
    table = labels(f"image_id,finding 1,{value}")
    assert table.columns == ()
    assert value not in "".join(table.notes)


def test_label_never_takes_the_name_of_a_fixed_column() -> None:
    for column in COLUMN_NAMES:
        assert column not in [c.name for c in labels(f"image_id,{column},y 1,2,3").columns]


# ── order ──────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_order_of_rows_does_not_matter(data: st.DataObject) -> None:
    keys = data.draw(
        st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from("123")), unique=True, min_size=1)
    )
    cells = st.sampled_from([None, "0", "1", "0.5", "x"])
    rows = [(*key, data.draw(cells), data.draw(cells)) for key in keys]
    columns = ("patient_id", "image_id", "age", "y")
    shuffled = data.draw(st.permutations(rows))
    one, other = (build([LabelSource(Table("t.csv", columns, tuple(r)), GENERIC)]) for r in (rows, shuffled))
    assert one is not None
    assert other is not None
    assert one.columns == other.columns
    for patient, image in [*keys, ("p", "9")]:
        identity = Identity(patient, image)
        assert one.lookup(identity, None, None) == other.lookup(identity, None, None)


# ── join ─────────────────────────────────────────────────────────────────────────────────────────────


def test_join_after_the_scan_completes_identity_and_counts_what_is_left() -> None:
    table = labels("image_id,laterality,site_id,y 1.2.3,R,s1,1 9.9,L,s1,0")
    first = scan("a.dcm", "1.2.3", patient_id="p", image_id="1.2.3", laterality="L", view="CC")
    second = scan("b.dcm", "4.5.6", patient_id="q", image_id="4.5.6")
    joined = join(table, [first, second])
    got = joined.files[0]
    assert got.identity == Identity("p", "1.2.3", "R", "CC", "s1")
    assert got.source.identity == Identity(None, "1.2.3", "R", None, "s1")
    assert values(got.source.labels) == {"y": 1}
    assert joined.files[1] == second
    assert (joined.rows_unmatched, joined.images_unmatched) == (1, 1)


def test_join_is_idempotent() -> None:
    table = labels("image_id,y 1.2.3,1")
    once = join(table, [scan("a.dcm", "1.2.3")])
    assert join(table, once.files) == once


def test_rows_of_rejected_sources_count_as_matched() -> None:
    table = labels("patient_id,image_id,y p,1,1 p,2,0")
    rejected = SourceFile("p/2.dcm", "/p/2.dcm", identity=Identity("p", "2"))
    joined = join(table, [scan("p/1.dcm", patient_id="p", image_id="1")], [rejected])
    assert (len(joined.files), joined.rows_unmatched, joined.images_unmatched) == (1, 0, 0)


def test_join_without_tables_changes_nothing() -> None:
    files = (scan("a.dcm", "1.2.3"),)
    joined = join(None, files)
    assert (joined.files, joined.rows_unmatched, joined.images_unmatched) == (files, 0, 0)


def test_identity_table_leads_to_the_labels_of_another() -> None:
    sides = LabelSource(table_of("patient_id,image_id,laterality,y p,1,R,9"), GENERIC, identity_only=True)
    breasts = LabelSource(table_of("patient_id,laterality,cancer p,R,1"), GENERIC)
    table = build([breasts, sides])
    assert table is not None
    found = table.match(Identity("p", "1"), Identity(), None, None)
    assert (values(found.labels), found.identity.laterality) == ({"cancer": 1}, "R")
    assert [c.name for c in table.columns] == ["cancer"]


def test_list_rows_are_no_table_to_join() -> None:
    table = build([LabelSource(table_of("path,image_id,y a.dcm,a,1"), GENERIC, Role.LIST)])
    assert table is not None
    assert table.lookup(Identity(image_id="a"), None, "a") == ()
    assert values(table.of_list_row(0)[1]) == {"y": 1}


def test_no_tables_give_no_label_table() -> None:
    assert build([]) is None


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────


def test_csv_and_parquet_of_one_frame_read_alike(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "image_id": ["1", "2", "3"],
            "cancer": [True, False, None],
            "BIRADS": [1.0, None, 2.0],
            "score": [0.1, 0.25, 1e-9],
            "density": ["A", None, "C"],
        }
    )
    frame.to_csv(tmp_path / "t.csv")
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    csv, parquet = (read_table(str(tmp_path / f"t.{end}")) for end in ("csv", "parquet"))
    assert csv.columns == parquet.columns == tuple(frame.columns)
    kinds = []
    for table in (csv, parquet):
        built = build([LabelSource(table, GENERIC)])
        assert built is not None
        kinds.append([(c.name, c.kind) for c in built.columns])
        assert values(built.lookup(Identity(image_id="3"), None, None)) == {
            "cancer": None,
            "BIRADS": 2,
            "score": 1e-9,
            "density": "C",
        }
    assert kinds[0] == kinds[1]


def test_byte_order_mark_semicolons_and_short_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfimage_id;cancer;note1\r\n1;1;NA\r\n2\r\n\r\n")
    assert read_table(str(path)) == Table(
        "t.csv", ("image_id", "cancer", "note1"), (("1", "1", None), ("2", None, None))
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "no header"),
        ("t.csv", "a,a\n1,2\n", "same name"),
        ("t.csv", "a,b\n1,2,3\n", "row 2 has more cells"),
        ("t.parquet", "PAR1", "t.parquet"),
        ("t.xlsx", "x", "save spreadsheets as CSV"),
    ],
)
def test_what_is_no_table_is_a_usage_error(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_table(str(tmp_path / name))


def test_table_that_is_not_utf8_is_a_usage_error_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("image_id,y\nÄ,1\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"t\.csv: not a table"):
        read_table(str(tmp_path / "t.csv"))


def test_missing_table_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.csv"):
        read_table(str(tmp_path / "gone.csv"))


def test_table_with_a_header_only_gives_columns_without_rows(tmp_path: Path) -> None:
    table = read_table(str(text(tmp_path / "t.csv", "image_id,cancer")))
    built = build([LabelSource(table, GENERIC)])
    assert built is not None
    assert [(c.name, c.kind) for c in built.columns] == [("cancer", "int64")]
