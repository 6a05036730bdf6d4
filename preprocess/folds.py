"""The fold rule: which patient belongs to which fold.

In:  PatientFacts of every patient, the number of folds, a seed.
Out: patient_id → fold. A function of the set of patients only: never of their order, of a library's random
     generator or of Python's hash. Part of the schema: a change of rule raises SCHEMA_VERSION.

Patients whose label is known are dealt out like cards, stratum by stratum (label × site): every fold gets as
many of a stratum as any other, give or take one, and the odd ones go where the label, then its images, then
patients are fewest. So positives differ by at most one patient between folds; with fewer positives than folds
some folds have none. Patients without a label go by a hash of their id alone: adding patients moves nobody.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from preprocess.errors import UsageError


@dataclass(frozen=True, slots=True)
class PatientFacts:
    """What the fold rule may know of a patient."""

    patient_id: str
    positive: bool | None
    """True if any image is positive, None if no image has the label."""
    site: str | None
    images: int
    positive_images: int


@dataclass(slots=True)
class _Fold:
    """Running totals of one fold while cards are dealt."""

    patients: int = 0
    images: int = 0
    of_label: dict[bool, int] = field(default_factory=lambda: defaultdict(int))
    positive_images: int = 0


def assign_folds(patients: Sequence[PatientFacts], folds: int, seed: int) -> dict[str, int]:
    """Assign every patient to one of `folds` folds; see the module's docstring for the rule.

    Raises:
        UsageError: a patient_id occurs twice, or folds < 1.
    """
    if folds < 1:
        raise UsageError("folds must be at least 1")
    if len({patient.patient_id for patient in patients}) != len(patients):
        raise UsageError("a patient_id occurs twice in the facts given to the fold rule")
    assigned = {p.patient_id: _hash(p, seed) % folds for p in patients if p.positive is None}
    totals = [_Fold() for _ in range(folds)]
    for stratum in _strata(patients):
        assigned |= _deal(stratum, totals, seed)
    return assigned


def _hash(patient: PatientFacts, seed: int) -> int:
    name = patient.patient_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(b"%d\n%s" % (seed, name)).digest())


def _strata(patients: Iterable[PatientFacts]) -> list[list[PatientFacts]]:
    """Labelled patients by (label, site); positives first, small strata first so that large ones even out."""
    strata: dict[tuple[bool, str], list[PatientFacts]] = defaultdict(list)
    for patient in patients:
        if patient.positive is not None:
            strata[not patient.positive, patient.site or ""].append(patient)
    return [
        members
        for _, members in sorted(strata.items(), key=lambda item: (item[0][0], len(item[1]), item[0][1]))
    ]


def _deal(stratum: Sequence[PatientFacts], totals: list[_Fold], seed: int) -> dict[str, int]:
    """Deal one stratum in rounds of one patient per fold, the heaviest patients first."""
    order = sorted(stratum, key=lambda p: (-p.positive_images, -p.images, _hash(p, seed), p.patient_id))
    dealt = [0] * len(totals)
    assigned = {}
    for patient in order:
        label = bool(patient.positive)

        def need(k: int, label: bool = label) -> tuple[int, ...]:
            fold = totals[k]
            return dealt[k], fold.of_label[label], fold.positive_images * label, fold.patients, fold.images, k

        k = min(range(len(totals)), key=need)
        assigned[patient.patient_id] = k
        dealt[k] += 1
        totals[k].of_label[label] += 1
        totals[k].positive_images += patient.positive_images
        totals[k].patients += 1
        totals[k].images += patient.images
    return assigned
