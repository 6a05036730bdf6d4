from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.pixels import pixel_array

from bench.cli import SYNTAX_NAMES, main
from bench.phantom import PhantomSpec, generate, render_planned
from bench.phantom_anatomy import View
from bench.phantom_dicom import LOSSY, SYNTAXES, DicomSpec, encode
from bench.phantom_machines import MACHINES, with_syntax
from bench.phantom_observer import ceiling
from bench.phantom_plan import FOLDS, plan, positive_patients

SMALL = PhantomSpec(patients=6, size_factor=0.05, seed=3, positive_rate=0.5)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("phantom"), SMALL).out


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def box(row: dict[str, str]) -> tuple[int, int, int, int]:
    return tuple(int(row[name]) for name in ("row", "column", "rows", "columns"))


def test_workers_die_with_the_command(tmp_path: Path) -> None:
    options = ("--patients", "500", "--workers", "2", "--size-factor", "0.1")
    command = [sys.executable, "-m", "bench.cli", "phantom", str(tmp_path / "out"), *options]
    with subprocess.Popen(command) as running:
        await_(lambda: any(tmp_path.rglob("*.dcm")))
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        running.kill()
    assert len(children) >= 2
    await_(lambda: not any(is_alive(pid) for pid in children))


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def await_(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_bytes_do_not_depend_on_workers(small: Path, tmp_path: Path) -> None:
    other = generate(tmp_path / "two", replace(SMALL, workers=2)).out
    assert digests(other) == digests(small)


def test_another_seed_gives_other_pixels_and_ids(small: Path, tmp_path: Path) -> None:
    other = generate(tmp_path / "other", replace(SMALL, seed=4, patients=1, test_patients=0)).out
    assert not set(digests(other)) & {name for name in digests(small) if name.endswith(".dcm")}


def test_columns_are_exactly_rsnas(small: Path) -> None:
    assert (small / "train.csv").read_text().splitlines()[0] == (
        "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,"
        "machine_id,difficult_negative_case"
    )
    assert (small / "test.csv").read_text().splitlines()[0] == (
        "site_id,patient_id,image_id,laterality,view,age,implant,machine_id,prediction_id"
    )


def test_every_row_has_its_file_and_every_file_its_row(small: Path) -> None:
    for part in ("train", "test"):
        rows = table(small / f"{part}.csv")
        named = {f"{row['patient_id']}/{row['image_id']}.dcm" for row in rows}
        found = {
            p.relative_to(small / f"{part}_images").as_posix()
            for p in (small / f"{part}_images").rglob("*.dcm")
        }
        assert named == found
        assert len(named) == len(rows) > 0
    assert all(row["prediction_id"] == f"{row['patient_id']}_{row['laterality']}" for row in rows)


def test_labels_are_of_the_breast_and_views_are_complete(small: Path) -> None:
    by_breast = defaultdict(list)
    for row in table(small / "train.csv"):
        by_breast[row["patient_id"], row["laterality"]].append(row)
    for rows in by_breast.values():
        assert sorted(row["view"] for row in rows) == ["CC", "MLO"]
        for name in (
            "cancer",
            "biopsy",
            "invasive",
            "BIRADS",
            "difficult_negative_case",
            "density",
            "machine_id",
        ):
            assert len({row[name] for row in rows}) == 1
        assert rows[0]["biopsy"] == "1" or rows[0]["cancer"] == "0"
        assert rows[0]["cancer"] == "1" or rows[0]["invasive"] == "0"


def test_positive_breasts_have_malignant_lesions_in_both_views_and_others_none(small: Path) -> None:
    malignant = {row["image_id"] for row in table(small / "lesions.csv") if row["malignant"] == "1"}
    rows = table(small / "train.csv")
    assert {row["image_id"] for row in rows if row["cancer"] == "1"} == malignant & {
        row["image_id"] for row in rows
    }
    assert malignant


def test_lesion_boxes_lie_in_the_breast_box_on_tissue(small: Path) -> None:
    breasts = {row["image_id"]: row for row in table(small / "breast_boxes.csv")}
    lesions = table(small / "lesions.csv")
    assert lesions
    for lesion in lesions:
        row, column, rows, columns = box(lesion)
        top, left, height, width = box(breasts[lesion["image_id"]])
        assert rows > 0
        assert columns > 0
        assert top <= row <= row + rows <= top + height
        assert left <= column <= column + columns <= left + width


def test_breast_box_touches_the_chest_wall_side(small: Path) -> None:
    for truth in table(small / "breast_boxes.csv"):
        part = "train" if list(small.glob(f"train_images/*/{truth['image_id']}.dcm")) else "test"
        dataset = dcmread(small / f"{part}_images/{truth['patient_id']}/{truth['image_id']}.dcm")
        row, column, rows, columns = box(truth)
        assert (column == 0) if truth["laterality"] == "L" else (column + columns == dataset.Columns)
        assert row + rows <= dataset.Rows


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: str(m.machine_id))
def test_files_are_in_the_machines_format(small: Path, machine) -> None:
    row = next(r for r in table(small / "train.csv") if int(r["machine_id"]) == machine.machine_id)
    dataset = dcmread(small / f"train_images/{row['patient_id']}/{row['image_id']}.dcm")
    assert int(row["site_id"]) == machine.site_id
    assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[machine.syntax]
    assert (dataset.BitsStored, dataset.PhotometricInterpretation) == (
        machine.bits,
        machine.photometric_interpretation,
    )
    assert dataset.get("VOILUTFunction") == machine.voi_lut_function
    assert ("PixelSpacing" in dataset) == machine.tells_spacing
    assert (dataset.ImageLaterality, dataset.PatientID) == (row["laterality"], row["patient_id"])
    for keyword in ("Modality", "SOPClassUID", "ViewPosition", "PatientOrientation", "PatientName"):
        assert keyword not in dataset
    assert pixel_array(dataset, raw=True).max() < 1 << machine.bits


def test_segmented_machine_has_bright_padding_as_in_the_real_files(small: Path) -> None:
    rows = [row for row in table(small / "train.csv") if row["machine_id"] == "170"]
    assert rows
    for row in rows:
        dataset = dcmread(small / f"train_images/{row['patient_id']}/{row['image_id']}.dcm")
        pixels = pixel_array(dataset, raw=True)
        assert dataset.PixelPaddingValue == pixels.max()
        assert 0.83 <= (pixels == dataset.PixelPaddingValue).mean() <= 0.90
        assert len(dataset.WindowCenter) == 4
        assert (pixels < pixels.max()).all(axis=0).sum() == 1, "one bright line from top to bottom"


def test_sites_share_no_machine() -> None:
    sites = defaultdict(set)
    for machine in MACHINES:
        sites[machine.machine_id].add(machine.site_id)
    assert all(len(found) == 1 for found in sites.values())
    assert abs(sum(machine.share for machine in MACHINES) - 1) < 1e-9


@pytest.mark.parametrize("name", sorted(SYNTAXES))
def test_every_syntax_holds_the_rendered_pixels(name: str, tmp_path: Path) -> None:
    spec = PhantomSpec(patients=1, test_patients=0, size_factor=0.02, seed=5, syntax=name)
    root = generate(tmp_path / "out", spec).out
    patient = plan(spec)[0]
    image = patient.images[1]
    dataset = dcmread(root / f"train_images/{patient.patient_id}/{image.image_id}.dcm")
    assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[name]
    if SYNTAXES[name] in LOSSY:
        assert dataset.LossyImageCompression == "01"
    else:
        rendered = render_planned(spec, patient, image)
        np.testing.assert_array_equal(pixel_array(dataset, raw=True), rendered.pixels)


def test_files_of_two_specs_share_no_uid(small: Path, tmp_path: Path) -> None:
    spec = replace(SMALL, syntax="jpeg-ls", size_factor=0.03, patients=2)
    one, two = (
        {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in root.rglob("*.dcm")}
        for root in (small, generate(tmp_path / "out", spec).out)
    )
    assert not one & two
    assert len(two) == 12


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: str(m.machine_id))
def test_every_machine_can_write_every_syntax(machine) -> None:
    for name, uid in SYNTAXES.items():
        forced = with_syntax(machine, name)
        pixels = np.arange(64 * 64).reshape(64, 64) % (1 << forced.bits)
        spec = DicomSpec(transfer_syntax_uid=uid, bits_stored=forced.bits)
        assert encode(pixels.astype(np.uint8 if forced.bits <= 8 else np.uint16), spec)


def test_narrow_syntaxes_scale_windows_with_the_bits() -> None:
    narrow = with_syntax(MACHINES[0], "jpeg-baseline")
    assert (narrow.bits, narrow.windows) == (8, (("128", "256"),))


@settings(deadline=None, max_examples=40)
@given(patients=st.integers(1, 400), rate=st.floats(0, 1))
def test_folds_can_have_both_kinds_where_the_count_allows(patients: int, rate: float) -> None:
    positives = positive_patients(PhantomSpec(patients=patients, positive_rate=rate))
    least = FOLDS if patients >= 2 * FOLDS else patients // 2
    assert least <= positives <= patients - least
    if least <= round(rate * patients) <= patients - least:
        assert positives == round(rate * patients)


@settings(deadline=None, max_examples=10)
@given(patients=st.integers(1, 60), seed=st.integers(0, 1000))
def test_plan_has_unique_ids_and_the_promised_positives(patients: int, seed: int) -> None:
    spec = PhantomSpec(patients=patients, seed=seed, positive_rate=0.1)
    people = plan(spec)
    assert len({p.patient_id for p in people}) == len(people) == patients + spec.test_patients
    images = [image.image_id for p in people for image in p.images]
    assert len(set(images)) == len(images) == 4 * len(people)
    assert sum(p.positive for p in people if not p.test) == positive_patients(spec)


def test_size_factor_scales_the_matrix_and_not_the_breast() -> None:
    sizes = []
    for factor in (0.05, 0.1):
        spec = PhantomSpec(patients=1, test_patients=0, size_factor=factor, seed=9)
        patient = plan(spec)[0]
        rendered = render_planned(spec, patient, patient.images[0])
        assert rendered.pixels.shape == (patient.machine.rows, patient.machine.columns)
        sizes.append(rendered.breast_box.rows * rendered.pitch_mm)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.03)


def test_easier_lesions_are_brighter() -> None:
    def excess(difficulty: float) -> float:
        spec = PhantomSpec(patients=2, test_patients=0, size_factor=0.1, seed=11, difficulty=difficulty)
        patient = next(p for p in plan(spec) if p.positive)
        side = "L" if patient.left.cancer else "R"
        image = next(i for i in patient.images if i.laterality == side and i.view is View.CC)
        found = render_planned(spec, patient, image)
        bare = render_planned(
            spec,
            replace(
                patient,
                left=replace(patient.left, cancer=False, look_alike=False),
                right=replace(patient.right, cancer=False, look_alike=False),
            ),
            image,
        )
        return float(np.abs(found.pixels.astype(float) - bare.pixels).sum())

    assert excess(0.0) > 1.5 * excess(1.0) > 0


def test_implants_are_there_when_asked_for(tmp_path: Path) -> None:
    root = generate(
        tmp_path / "i", PhantomSpec(patients=1, test_patients=0, size_factor=0.03, implants=1.0)
    ).out
    assert {row["implant"] for row in table(root / "train.csv")} == {"1"}


def test_full_headers_carry_canaries(tmp_path: Path) -> None:
    spec = PhantomSpec(patients=1, test_patients=0, size_factor=0.03, full_headers=True)
    path = next(generate(tmp_path / "full", spec).out.rglob("*.dcm"))
    dataset = dcmread(path)
    assert "CANARY" in str(dataset.PatientName)
    assert (dataset.Modality, dataset.ViewPosition in ("CC", "MLO"), "SOPClassUID" in dataset) == (
        "MG",
        True,
        True,
    )


def test_folder_with_something_in_it_is_refused(small: Path) -> None:
    with pytest.raises(FileExistsError, match="not empty"):
        generate(small, SMALL)
    result = CliRunner().invoke(main, ["phantom", str(small)])
    assert result.exit_code == 2


@pytest.mark.parametrize(
    "wrong",
    [{"patients": 0}, {"positive_rate": 2.0}, {"size_factor": 0.0}, {"syntax": "gif"}, {"workers": 0}],
)
def test_values_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        PhantomSpec(**wrong)


def test_command_names_every_syntax_and_reports_what_it_wrote(tmp_path: Path) -> None:
    assert set(SYNTAX_NAMES) == set(SYNTAXES)
    options = ["--patients", "1", "--test-patients", "0", "--size-factor", "0.03", "--syntax", "htj2k"]
    result = CliRunner().invoke(main, ["phantom", str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    assert "4 images of 1 patients" in result.output
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 4


def test_ceiling_falls_with_difficulty_and_is_far_above_chance() -> None:
    easy, hard = (
        ceiling(PhantomSpec(size_factor=0.1, difficulty=difficulty, ceiling=10, seed=1))
        for difficulty in (0.0, 1.0)
    )
    assert 0.6 < hard.matched_filter < easy.matched_filter <= 1.0
    assert easy.matched_filter > 0.95
    assert hard.search < easy.search
    assert hard.search < hard.matched_filter


def test_who_must_search_needs_resolution() -> None:
    coarse, fine = (ceiling(PhantomSpec(size_factor=size, ceiling=16, seed=1)) for size in (0.06, 0.2))
    assert coarse.search < 0.8 < fine.search
    assert fine.matched_filter > 0.99


def test_ceiling_is_published_where_asked_for(small: Path, tmp_path: Path) -> None:
    options = ["--patients", "1", "--test-patients", "0", "--size-factor", "0.03", "--ceiling", "2"]
    assert CliRunner().invoke(main, ["phantom", str(tmp_path / "out"), *options]).exit_code == 0
    published = json.loads((tmp_path / "out/ceiling.json").read_text())
    assert published["breasts"] == 2
    assert 0 <= published["matched_filter_auc"] <= 1
    assert 0 <= published["search_auc"] <= 1
    assert not (small / "ceiling.json").exists()


def test_lesion_is_where_its_centre_is_said_to_be() -> None:
    spec = PhantomSpec(patients=2, test_patients=0, size_factor=0.15, seed=11, difficulty=0.0)
    patient = next(p for p in plan(spec) if p.positive)
    bare = replace(
        patient,
        left=replace(patient.left, cancer=False, look_alike=False),
        right=replace(patient.right, cancer=False, look_alike=False),
    )
    for image in patient.images:
        found = render_planned(spec, patient, image)
        changed = found.pixels != render_planned(spec, bare, image).pixels
        for lesion in found.lesions:
            row, column = lesion.centre
            box = lesion.box
            assert box.row <= row < box.row + box.rows
            assert box.column <= column < box.column + box.columns
            assert changed[box.row : box.row + box.rows, box.column : box.column + box.columns].mean() > 0.01
        assert changed.any() == bool(found.lesions)
