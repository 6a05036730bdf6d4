"""In: a `PhantomSpec`. Out: a folder shaped like RSNA's screening mammography data, with the truth beside it.

    OUT/train.csv, test.csv          RSNA's columns
    OUT/train_images/<patient>/<image>.dcm, test_images/…
    OUT/lesions.csv                  lesion boxes in full-size pixels, malignant or not
    OUT/breast_boxes.csv             box of all tissue (pectoral muscle included) of every image
    OUT/ceiling.json                 if asked for: AUCs of observers that know every lesion

Bytes depend on the spec alone: every image has its own random generator, seeded by (seed, patient, image).
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.phantom_anatomy import Breast, draw_breast
from bench.phantom_dicom import LOSSY, SYNTAXES, DicomSpec, write_dicom
from bench.phantom_lesions import Lesion, draw_lesions
from bench.phantom_machines import Machine
from bench.phantom_observer import ceiling
from bench.phantom_plan import ImagePlan, PatientPlan, PhantomSpec, plan
from bench.phantom_render import Exposure, RenderedView, render_view
from preprocess.executors.worker import settle

__all__ = ["PhantomSpec", "PhantomSummary", "generate", "render_planned"]

TRAIN_COLUMNS = (
    "site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy", "invasive",
    "BIRADS", "implant", "density", "machine_id", "difficult_negative_case",
)  # fmt: skip
TEST_COLUMNS = (
    "site_id", "patient_id", "image_id", "laterality", "view", "age", "implant", "machine_id",
    "prediction_id",
)  # fmt: skip
LESION_COLUMNS = (
    "patient_id", "image_id", "laterality", "view", "kind", "row", "column", "rows", "columns", "malignant",
)  # fmt: skip
BREAST_COLUMNS = ("patient_id", "image_id", "laterality", "view", "row", "column", "rows", "columns")

_BREASTS, _LESIONS = 2001, 2003

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class PhantomSummary:
    """What `generate` wrote."""

    out: Path
    patients: int
    positive_patients: int
    images: int
    lesions: int


@dataclass(frozen=True, slots=True)
class _Truth:
    """What the side tables say of one image."""

    lesions: tuple[Row, ...]
    breast: Row


def generate(out: Path, spec: PhantomSpec) -> PhantomSummary:
    """Write a phantom data set.

    Args:
        out: folder to make; must be absent or empty.
        spec: what to generate.

    Raises:
        FileExistsError: `out` holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty")
    patients = plan(spec)
    jobs = [(patient, image) for patient in patients for image in patient.images]
    truths = list(_run(partial(_write_image, out, spec), jobs, spec.workers))
    out.mkdir(parents=True, exist_ok=True)
    _write_table(out / "train.csv", TRAIN_COLUMNS, (_train_row(p, i) for p, i in jobs if not p.test))
    _write_table(out / "test.csv", TEST_COLUMNS, (_test_row(p, i) for p, i in jobs if p.test))
    lesions = [row for truth in truths for row in truth.lesions]
    _write_table(out / "lesions.csv", LESION_COLUMNS, lesions)
    _write_table(out / "breast_boxes.csv", BREAST_COLUMNS, (truth.breast for truth in truths))
    if spec.ceiling:
        best = ceiling(spec)
        told = {
            "breasts": spec.ceiling,
            "matched_filter_auc": round(best.matched_filter, 4),
            "search_auc": round(best.search, 4),
        }
        (out / "ceiling.json").write_text(json.dumps(told) + "\n", encoding="utf-8")
    positive = sum(patient.positive for patient in patients)
    return PhantomSummary(out, len(patients), positive, len(jobs), len(lesions))


def render_planned(spec: PhantomSpec, patient: PatientPlan, image: ImagePlan) -> RenderedView:
    """Render one planned image without writing it."""
    breast, lesions = _anatomy(spec, patient, image.laterality)
    exposure = Exposure(breast, lesions, image.view, image.laterality, patient.machine)
    return render_view(exposure, np.random.default_rng([spec.seed, patient.index, image.index]))


def _anatomy(spec: PhantomSpec, patient: PatientPlan, laterality: str) -> tuple[Breast, tuple[Lesion, ...]]:
    """A patient's breast of one side and its lesions: the same for both views."""
    side = "LR".index(laterality)
    key = [spec.seed, patient.index]
    left = draw_breast(np.random.default_rng([*key, _BREASTS]), patient.density, patient.implant)
    right_rng = np.random.default_rng([*key, _BREASTS + 1])
    breast = draw_breast(right_rng, patient.density, patient.implant, left) if side else left
    labels = patient.labels(laterality)
    if not (labels.cancer or labels.look_alike):
        return breast, ()
    rng = np.random.default_rng([*key, _LESIONS + side])
    return breast, draw_lesions(breast, labels.cancer, spec.difficulty, rng)


def _run(
    work: partial[_Truth], jobs: Sequence[tuple[PatientPlan, ImagePlan]], workers: int
) -> Iterator[_Truth]:
    """Results in the order of `jobs`, whoever finishes first."""
    if workers == 1:
        yield from map(work, jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=settle, initargs=(os.getpid(),)) as pool:
        yield from pool.map(work, jobs)


def _write_image(out: Path, spec: PhantomSpec, job: tuple[PatientPlan, ImagePlan]) -> _Truth:
    patient, image = job
    rendered = render_planned(spec, patient, image)
    folder = out / ("test_images" if patient.test else "train_images") / str(patient.patient_id)
    wrapped = _dicom_spec(spec, patient, image, rendered.pitch_mm)
    write_dicom(folder / f"{image.image_id}.dcm", rendered.pixels, wrapped)
    identity = (patient.patient_id, image.image_id, image.laterality, image.view.value)
    box = rendered.breast_box
    lesions = tuple(
        (*identity, found.kind.value, found.box.row, found.box.column, found.box.rows, found.box.columns,
         int(found.malignant))
        for found in rendered.lesions
    )  # fmt: skip
    return _Truth(lesions, (*identity, box.row, box.column, box.rows, box.columns))


def _dicom_spec(spec: PhantomSpec, patient: PatientPlan, image: ImagePlan, pitch_mm: float) -> DicomSpec:
    machine = patient.machine
    uid = SYNTAXES[machine.syntax]
    rsna_jpeg_2000 = machine.syntax == "jpeg-2000"
    return DicomSpec(
        transfer_syntax_uid=uid,
        bits_stored=machine.bits,
        photometric_interpretation=machine.photometric_interpretation,
        windows=machine.windows,
        voi_lut_function=machine.voi_lut_function,
        padding_value=machine.padding_value,
        patient_id=str(patient.patient_id),
        image_laterality=image.laterality,
        view_position=image.view.value if spec.full_headers else None,
        modality="MG" if spec.full_headers else None,
        pixel_spacing_mm=(pitch_mm, pitch_mm) if machine.tells_spacing else None,
        instance_number=image.image_id,
        study=f"{_named(spec)}/{patient.patient_id}",
        instance=f"{_named(spec)}/{patient.patient_id}/{image.image_id}",
        full_headers=spec.full_headers,
        boxed=rsna_jpeg_2000,
        codestream_bits=16 if rsna_jpeg_2000 else None,
        elements=_more_elements(spec, patient, machine, uid in LOSSY),
    )


def _named(spec: PhantomSpec) -> str:
    """What UIDs are hashed from: all that decides bytes, so that two specs' files are never one instance."""
    return repr(replace(spec, workers=1))


def _more_elements(
    spec: PhantomSpec, patient: PatientPlan, machine: Machine, lossy: bool
) -> tuple[tuple[str, object], ...]:
    """What spec and syntax add: the lossy mark, and canaries that must never be seen outside the file."""
    elements: list[tuple[str, object]] = []
    if lossy:
        elements.append(("LossyImageCompression", "01"))
    if spec.full_headers:
        elements += [
            ("PatientName", f"CANARY^PHANTOM{patient.patient_id}"),
            ("PatientBirthDate", "19010203"),
            ("InstitutionName", f"CANARY HOSPITAL {machine.site_id}"),
            ("ReferringPhysicianName", "CANARY^DOCTOR"),
            ("Manufacturer", "Phantom"),
            ("ManufacturerModelName", f"Phantom {machine.machine_id}"),
            ("PresentationIntentType", "FOR PRESENTATION"),
        ]
    return tuple(elements)


def _train_row(patient: PatientPlan, image: ImagePlan) -> Row:
    labels = patient.labels(image.laterality)
    return (
        patient.site_id, patient.patient_id, image.image_id, image.laterality, image.view.value,
        f"{patient.age}.0", int(labels.cancer), int(labels.biopsy), int(labels.invasive),
        "" if labels.birads is None else f"{labels.birads}.0", int(patient.implant),
        patient.density if patient.site_id == 1 else "", patient.machine.machine_id,
        labels.difficult_negative_case,
    )  # fmt: skip


def _test_row(patient: PatientPlan, image: ImagePlan) -> Row:
    return (
        patient.site_id, patient.patient_id, image.image_id, image.laterality, image.view.value,
        f"{patient.age}.0", int(patient.implant), patient.machine.machine_id,
        f"{patient.patient_id}_{image.laterality}",
    )  # fmt: skip


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
