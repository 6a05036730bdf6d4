"""In: a `PhantomSpec`. Out: who is in the data set: patients, their machines, labels and images.

Everything is a pure function of the spec: nothing depends on workers, clocks or order of work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.phantom_anatomy import View
from bench.phantom_dicom import SYNTAXES
from bench.phantom_machines import MACHINES, Machine, scaled, with_syntax

FOLDS = 5
"""Cross-validation folds that positives and negatives shall reach, where the count allows."""

_IDS, _LABELS = 1001, 1002


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSpec:
    """What to generate. Everything but `workers` decides bytes.

    Raises:
        ValueError: a value is out of its range.
    """

    patients: int = 8
    positive_rate: float = 0.04
    """Wanted share of patients with cancer; raised or lowered so that folds have both kinds."""
    size_factor: float = 1.0
    """Scales matrices; pixel spacing grows as they shrink."""
    implants: float = 0.03
    """Share of patients with implants."""
    difficulty: float = 0.5
    """0: large bright lesions; 1: small faint ones."""
    seed: int = 0
    workers: int = 1
    syntax: str | None = None
    """Short name of the transfer syntax for all files; None: each machine's own."""
    test_patients: int = 1
    full_headers: bool = False
    """Modality, view, SOP Class and canaries in place of personal data."""

    ceiling: int = 0
    """Breasts to estimate the observers' AUCs from; 0: leave it out."""

    def __post_init__(self) -> None:
        if (
            self.patients < 1
            or self.test_patients < 0
            or self.workers < 1
            or min(self.seed, self.ceiling) < 0
        ):
            raise ValueError(
                "patients and workers must be at least 1, test_patients, seed, ceiling at least 0"
            )
        for name in ("positive_rate", "implants", "difficulty"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1")
        if not 0.02 <= self.size_factor <= 2:
            raise ValueError("size_factor must be between 0.02 and 2")
        if self.syntax is not None and self.syntax not in SYNTAXES:
            raise ValueError(f"syntax must be one of {', '.join(SYNTAXES)}")


@dataclass(frozen=True, slots=True)
class BreastLabels:
    """Labels of one breast, copied to each of its images."""

    cancer: bool
    biopsy: bool
    invasive: bool
    birads: int | None
    look_alike: bool
    """A benign lesion is there."""
    difficult_negative_case: bool


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One image: `index` of 0…3 within its patient seeds its random generator."""

    index: int
    image_id: int
    laterality: str
    view: View


@dataclass(frozen=True, slots=True)
class PatientPlan:
    """One patient."""

    index: int
    test: bool
    patient_id: int
    machine: Machine
    age: int
    implant: bool
    density: str
    left: BreastLabels
    right: BreastLabels
    images: tuple[ImagePlan, ...]

    def labels(self, laterality: str) -> BreastLabels:
        """Labels of one side."""
        return self.left if laterality == "L" else self.right

    @property
    def positive(self) -> bool:
        """Cancer on either side."""
        return self.left.cancer or self.right.cancer

    @property
    def site_id(self) -> int:
        """The site that the machine stands in."""
        return self.machine.site_id


def plan(spec: PhantomSpec) -> tuple[PatientPlan, ...]:
    """All patients, training first, each part in ascending order of patient_id."""
    count = spec.patients + spec.test_patients
    rng = np.random.default_rng([spec.seed, _IDS])
    patient_ids = rng.choice(np.arange(10, 10 + max(65_000, 2 * count)), count, replace=False)
    patient_ids = np.concatenate(
        [np.sort(patient_ids[: spec.patients]), np.sort(patient_ids[spec.patients :])]
    )
    image_ids = rng.choice(2_100_000_000, 4 * count, replace=False) + 1_000_000
    positive = _positives(spec, rng)
    machines = _machines(spec, count, rng)
    return tuple(
        _patient(
            spec, i, int(patient_ids[i]), machines[i], positive[i], image_ids[4 * i : 4 * i + 4].tolist()
        )
        for i in range(count)
    )


def positive_patients(spec: PhantomSpec) -> int:
    """How many training patients have cancer: the rate's count, moved so that folds can have both kinds."""
    least = min(FOLDS, spec.patients // 2)
    return int(np.clip(round(spec.positive_rate * spec.patients), least, spec.patients - least))


def _positives(spec: PhantomSpec, rng: np.random.Generator) -> list[bool]:
    chosen = rng.permutation(spec.patients) < positive_patients(spec)
    test = rng.random(spec.test_patients) < spec.positive_rate
    return [bool(value) for value in (*chosen, *test)]


def _machines(spec: PhantomSpec, count: int, rng: np.random.Generator) -> list[Machine]:
    """Every machine once, the rest by share (largest shortfall first), then shuffled."""
    shares = np.array([machine.share for machine in MACHINES])
    used = np.zeros(len(MACHINES), int)
    order: list[int] = []
    for n in range(count):
        nearest = int(np.argmax(shares * (n + 1) - used)) if n >= len(MACHINES) else n
        used[nearest] += 1
        order.append(nearest)
    machines = [scaled(MACHINES[order[i]], spec.size_factor) for i in rng.permutation(count)]
    return [with_syntax(machine, spec.syntax) if spec.syntax else machine for machine in machines]


def _patient(
    spec: PhantomSpec, index: int, patient_id: int, machine: Machine, positive: bool, image_ids: list[int]
) -> PatientPlan:
    rng = np.random.default_rng([spec.seed, index, _LABELS])
    side = "L" if rng.random() < 0.5 else "R"
    both = bool(rng.random() < 0.03)
    left, right = (_breast(positive and (both or side == here), machine.site_id, rng) for here in "LR")
    views = [(laterality, view) for laterality in "LR" for view in View]
    images = tuple(
        ImagePlan(i, image_id, laterality, view)
        for i, (image_id, (laterality, view)) in enumerate(zip(image_ids, views, strict=True))
    )
    return PatientPlan(
        index=index,
        test=index >= spec.patients,
        patient_id=patient_id,
        machine=machine,
        age=int(np.clip(rng.normal(63 if positive else 58, 10), 33, 89)),
        implant=bool(rng.random() < spec.implants),
        density=str(rng.choice(list("ABCD"), p=[0.12, 0.40, 0.40, 0.08])),
        left=left,
        right=right,
        images=images,
    )


def _breast(cancer: bool, site_id: int, rng: np.random.Generator) -> BreastLabels:
    """Draw a breast's labels; one site reports no BIRADS."""
    draw = rng.random(5)
    look_alike = bool(not cancer and draw[0] < 0.35)
    recalled = cancer or (look_alike and draw[1] < 0.45)
    birads = 0 if recalled else 1 + int(draw[2] < 0.45)
    return BreastLabels(
        cancer=cancer,
        biopsy=cancer or (recalled and bool(draw[3] < 0.3)),
        invasive=bool(cancer and draw[4] < 0.7),
        birads=birads if site_id == 1 else None,
        look_alike=look_alike,
        difficult_negative_case=bool(recalled and not cancer),
    )
