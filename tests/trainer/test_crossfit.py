from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.trainer.cases import predicted, rows
from trainer.crossfit import (
    Calibration,
    expected_calibration_error,
    fit,
    groups_of,
    nested_calibration,
    nested_calls,
    reliability,
)
from trainer.metrics import best_threshold
from trainer.predictions import Cases, Level


@pytest.fixture
def cases() -> Cases:
    return predicted(rows(200)).cases(Level.IMAGE)


def test_a_fold_s_threshold_never_sees_its_own_labels(cases: Cases) -> None:
    before = nested_calls(cases)
    own = cases.folds == 2
    changed = dataclasses.replace(cases, labels=np.where(own, 1 - cases.labels, cases.labels))
    after = nested_calls(changed)
    assert dict(before.thresholds)[2] == dict(after.thresholds)[2]
    np.testing.assert_array_equal(before.called[own], after.called[own])
    assert dict(before.thresholds)[0] != dict(after.thresholds)[0]


def test_nested_f1_is_not_the_optimistic_one(cases: Cases) -> None:
    calls = nested_calls(cases).called
    truth = cases.labels == 1
    nested = 2 * (truth & calls).sum() / (truth.sum() + calls.sum())
    _, optimistic = best_threshold(cases.labels, cases.probabilities)
    assert 0.3 < nested <= optimistic


def test_one_fold_is_split_by_patients(cases: Cases) -> None:
    single = dataclasses.replace(cases, folds=np.zeros(len(cases.keys), np.int64))
    groups = groups_of(single)
    assert np.unique(groups).size == 5
    for patient in np.unique(single.patients.astype(str)):
        assert np.unique(groups[single.patients == patient]).size == 1


@pytest.mark.parametrize("how", Calibration)
def test_calibration_repairs_overconfident_predictions_of_other_patients(
    cases: Cases, how: Calibration
) -> None:
    odds = np.log(cases.probabilities / (1 - cases.probabilities))
    overconfident = dataclasses.replace(cases, probabilities=1 / (1 + np.exp(-4 * odds)))
    calibrated = nested_calibration(overconfident, how)
    assert calibrated is not None
    before = expected_calibration_error(overconfident.labels, overconfident.probabilities)
    after = expected_calibration_error(overconfident.labels, calibrated)
    assert after < before
    assert np.mean((calibrated - cases.labels) ** 2) < np.mean(
        (overconfident.probabilities - cases.labels) ** 2
    )


@pytest.mark.parametrize("how", Calibration)
def test_calibration_keeps_the_order(cases: Cases, how: Calibration) -> None:
    grid = np.linspace(0, 1, 101)
    mapped = fit(cases.labels, cases.probabilities, how)(grid)
    assert (np.diff(mapped) >= 0).all()
    assert ((mapped >= 0) & (mapped <= 1)).all()


def test_one_class_cannot_be_calibrated(cases: Cases) -> None:
    negatives = cases.where(cases.labels == 0)
    assert nested_calibration(negatives, Calibration.PLATT) is None


def test_bins_hold_all_cases_and_ece_is_zero_where_they_agree() -> None:
    labels = np.tile([0.0, 1.0], 150)
    agree = np.full(300, 0.5)
    assert sum(part.count for part in reliability(labels, agree)) == 300
    assert expected_calibration_error(labels, agree) == pytest.approx(0)
    assert expected_calibration_error(labels, np.full(300, 0.9)) == pytest.approx(0.4)
