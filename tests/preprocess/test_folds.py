from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.errors import UsageError
from preprocess.folds import PatientFacts, assign_folds


@st.composite
def cohorts(
    draw: st.DrawFn, positives: st.SearchStrategy[int], negatives: st.SearchStrategy[int]
) -> list[PatientFacts]:
    rng = random.Random(draw(st.integers(0, 2**32)))
    facts = []
    counts = {True: draw(positives), False: draw(negatives)}
    for label, count in counts.items():
        for number in range(count):
            images = rng.randint(2, 6)
            facts.append(
                PatientFacts(
                    patient_id=f"{label}{number}",
                    positive=label,
                    site=rng.choice(["1", "1", "2", None]),
                    images=images,
                    positive_images=rng.randint(1, images) if label else 0,
                )
            )
    rng.shuffle(facts)
    return facts


small = cohorts(st.integers(0, 40), st.integers(0, 120))
large = cohorts(st.integers(50, 120), st.integers(0, 600))


@given(small, st.integers(1, 8), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_positives_and_negatives_differ_by_at_most_one_patient(
    patients: list[PatientFacts], folds: int, seed: int
) -> None:
    assigned = assign_folds(patients, folds, seed)
    assert assigned.keys() == {patient.patient_id for patient in patients}
    for label in (True, False):
        for site in ("1", "2", None, "any"):
            members = [p for p in patients if p.positive is label and site in ("any", p.site)]
            counts = Counter(assigned[p.patient_id] for p in members)
            sizes = [counts[fold] for fold in range(folds)]
            assert max(sizes) - min(sizes) <= 1


@given(large)
@settings(max_examples=25, deadline=None)
def test_from_50_positive_patients_on_ratios_are_within_a_tenth(patients: list[PatientFacts]) -> None:
    assigned = assign_folds(patients, 5, seed=0)
    overall = sum(p.positive is True for p in patients) / len(patients)
    for fold in range(5):
        members = [p for p in patients if assigned[p.patient_id] == fold]
        ratio = sum(p.positive is True for p in members) / len(members)
        assert abs(ratio / overall - 1) <= 0.1


def test_image_ratios_of_a_screening_cohort_are_within_a_tenth() -> None:
    rng = random.Random(7)
    patients = [
        PatientFacts(
            str(n), n < 100, rng.choice("12"), images := rng.randint(4, 6), rng.randint(2, images) * (n < 100)
        )
        for n in range(2400)
    ]
    assigned = assign_folds(patients, 5, seed=3)
    overall = sum(p.positive_images for p in patients) / sum(p.images for p in patients)
    for fold in range(5):
        members = [p for p in patients if assigned[p.patient_id] == fold]
        ratio = sum(p.positive_images for p in members) / sum(p.images for p in members)
        assert abs(ratio / overall - 1) <= 0.1


@given(small, st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_patients_does_not_matter(patients: list[PatientFacts], shuffler: random.Random) -> None:
    turned = list(patients)
    shuffler.shuffle(turned)
    assert assign_folds(turned, 5, seed=1) == assign_folds(patients, 5, seed=1)


def test_fewer_positives_than_folds_leave_some_folds_without() -> None:
    patients = [PatientFacts(str(n), n < 2, None, 4, 2 * (n < 2)) for n in range(20)]
    assigned = assign_folds(patients, 5, seed=0)
    assert sorted(Counter(assigned[str(n)] for n in range(2)).values()) == [1, 1]


def test_without_labels_other_patients_move_nobody() -> None:
    patients = [PatientFacts(str(n), None, "1", 4, 0) for n in range(200)]
    all_together = assign_folds(patients, 5, seed=0)
    assert assign_folds(patients[:50], 5, seed=0).items() <= all_together.items()
    sizes = Counter(all_together.values())
    assert min(sizes[fold] for fold in range(5)) > 20


def test_seeds_give_other_folds() -> None:
    patients = [PatientFacts(str(n), n % 5 == 0, "1", 4, n % 5 == 0) for n in range(100)]
    assert assign_folds(patients, 5, seed=0) != assign_folds(patients, 5, seed=1)


def test_the_rule_is_pinned() -> None:
    """If this fails the rule changed: raise SCHEMA_VERSION."""
    patients = [PatientFacts(str(n), [True, False, None][n % 3], "1", 4, int(n % 3 == 0)) for n in range(12)]
    assert "".join(str(assign_folds(patients, 3, seed=0)[str(n)]) for n in range(12)) == PINNED


PINNED = "211021100010"


@pytest.mark.parametrize("folds", [0, -1])
def test_impossible_requests_are_usage_errors(folds: int) -> None:
    with pytest.raises(UsageError):
        assign_folds([], folds, 0)


def test_a_patient_given_twice_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="twice"):
        assign_folds([PatientFacts("a", None, None, 1, 0)] * 2, 2, 0)
