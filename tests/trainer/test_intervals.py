from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from tests.trainer.cases import predicted, rows
from trainer.intervals import INTERVAL_SCORES, Interval, _Scorer, intervals
from trainer.metrics import probabilistic_f1
from trainer.predictions import Cases, Level

WEIGHTED = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.integers(0, 3)),
    min_size=1,
    max_size=40,
)


@given(WEIGHTED)
def test_scores_with_weights_are_scores_of_repeated_cases(drawn: list[tuple[int, float, int]]) -> None:
    labels, predictions, weights = (np.array(column, float) for column in zip(*drawn, strict=True))
    called = predictions >= 0.5
    found = dict(zip(INTERVAL_SCORES, _Scorer(labels, predictions, called).score(weights), strict=True))
    times = weights.astype(int)
    truth, probability = np.repeat(labels, times), np.repeat(predictions, times)
    call = np.repeat(called, times)
    if truth.size == 0:
        assert np.isnan(found["accuracy"])
        return
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, call))
    if truth.any():
        assert found["pr_auc"] == pytest.approx(sk.average_precision_score(truth, probability))
        assert found["pf1"] == pytest.approx(probabilistic_f1(truth, probability))
        assert found["f1"] == pytest.approx(sk.f1_score(truth, call, zero_division=0))
        assert found["sensitivity"] == pytest.approx(sk.recall_score(truth, call))
    else:
        assert np.isnan(found["pr_auc"])
    if 0 < truth.sum() < truth.size:
        assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, probability))
    else:
        assert np.isnan(found["roc_auc"])


def roc_auc(cases: Cases, seed: int = 0) -> Interval:
    return intervals(cases, cases.probabilities >= 0.5, seed=seed, resamples=200)[0]


def test_the_interval_holds_the_value_and_is_repeatable() -> None:
    cases = predicted(rows()).cases(Level.IMAGE)
    first, again, other = roc_auc(cases), roc_auc(cases), roc_auc(cases, seed=1)
    assert first == again
    assert first != other
    assert first.low is not None
    assert first.high is not None
    assert first.value is not None
    assert first.low < first.value < first.high


def test_patients_are_drawn_not_images() -> None:
    """Ten copies of each image add no patients, so they must not narrow the interval."""
    once = predicted(rows()).cases(Level.IMAGE)
    tenfold = Cases(
        once.keys * 10,
        *(np.tile(part, 10) for part in (once.patients, once.folds, once.labels, once.probabilities)),
    )
    one, ten = roc_auc(once), roc_auc(tenfold)
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high))
    images = dataclasses.replace(tenfold, patients=np.array([str(n) for n in range(len(tenfold.keys))]))
    assert roc_auc(images).high - roc_auc(images).low < 0.5 * (one.high - one.low)


def test_intervals_of_true_skill_hold_the_true_auc_about_as_often_as_they_claim() -> None:
    true_auc = 0.8556  # two normals 1.5 apart: Φ(1.5 / √2)
    held = 0
    for seed in range(40):
        found = roc_auc(predicted(rows(), seed=seed).cases(Level.IMAGE))
        held += found.low <= true_auc <= found.high
    assert held >= 32  # 95 % of 40 is 38; fewer than 32 would come once in 10,000 times


def test_one_class_has_no_auc_but_an_accuracy() -> None:
    cases = predicted(rows()).cases(Level.IMAGE)
    negatives = cases.where(cases.labels == 0)
    found = {i.name: i for i in intervals(negatives, negatives.probabilities >= 0.5, resamples=20)}
    assert found["roc_auc"].value is None
    assert found["sensitivity"].value is None
    assert found["accuracy"].value is not None
