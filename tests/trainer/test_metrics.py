from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from trainer.metrics import best_threshold, probabilistic_f1, scores, sensitivity_at

CASES = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1, width=32)), min_size=2, max_size=60)


def split(cases: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    labels, predicted = zip(*cases, strict=True)
    return np.array(labels, np.float64), np.array(predicted, np.float64)


def pf_beta(labels: list[float], predictions: list[float], beta: float) -> float:
    """The challenge's own definition, written as its host published it: image by image."""
    positives, c_tp, c_fp = 0.0, 0.0, 0.0
    for label, prediction in zip(labels, predictions, strict=True):
        bounded = min(max(prediction, 0), 1)
        if label:
            positives += 1
            c_tp += bounded
        else:
            c_fp += bounded
    if c_tp + c_fp == 0 or positives == 0:
        return 0.0
    precision, recall = c_tp / (c_tp + c_fp), c_tp / positives
    if precision <= 0 or recall <= 0:
        return 0.0
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


@given(CASES)
def test_pf1_is_the_challenges(cases: list[tuple[int, float]]) -> None:
    labels, predicted = split(cases)
    assert probabilistic_f1(labels, predicted) == pytest.approx(
        pf_beta(labels.tolist(), predicted.tolist(), 1), abs=1e-12
    )


@pytest.mark.parametrize(
    ("labels", "predicted", "expected"),
    [
        ([1, 0], [1.0, 0.0], 1.0),
        ([1, 0], [0.5, 0.5], 0.5),  # precision 1/2, recall 1/2
        ([1, 1, 0, 0], [0.8, 0.4, 0.2, 0.0], 2 * 1.2 / (1.4 + 2)),
        ([1, 0, 0, 0], [0.0, 1.0, 1.0, 1.0], 0.0),
        ([1] + [0] * 49, [0.02] * 50, 2 * 0.02 / 2.0),  # a constant guess of the prevalence
    ],
)
def test_pf1_by_hand(labels: list[int], predicted: list[float], expected: float) -> None:
    assert probabilistic_f1(np.array(labels, float), np.array(predicted)) == pytest.approx(expected)


@given(CASES)
def test_scores_equal_scikit_learn(cases: list[tuple[int, float]]) -> None:
    labels, predicted = split(cases)
    found = scores(labels, predicted)
    called = predicted >= 0.5
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, called))
    assert found.brier == pytest.approx(np.mean((predicted - labels) ** 2))
    if labels.any():
        assert found.f1 == pytest.approx(sk.f1_score(labels, called, zero_division=0))
        assert found.pr_auc == pytest.approx(sk.average_precision_score(labels, predicted))
        assert found.sensitivity == pytest.approx(sk.recall_score(labels, called))
    if 0 < labels.sum() < labels.size:
        assert found.roc_auc == pytest.approx(sk.roc_auc_score(labels, predicted))
        assert found.specificity == pytest.approx(sk.recall_score(labels, called, pos_label=0))
        assert found.log_loss == pytest.approx(sk.log_loss(labels, np.clip(predicted, 1e-15, 1 - 1e-15)))
    else:
        assert found.roc_auc is None


@given(CASES)
def test_no_threshold_has_a_larger_f1_than_the_best(cases: list[tuple[int, float]]) -> None:
    labels, predicted = split(cases)
    threshold, best = best_threshold(labels, predicted)
    if not labels.any():
        assert best == 0
        return
    assert best == pytest.approx(sk.f1_score(labels, predicted >= threshold))
    for other in {*predicted.tolist(), 0.0, 1.0}:
        assert sk.f1_score(labels, predicted >= other, zero_division=0) <= best + 1e-12


@given(CASES, st.sampled_from([0.5, 0.8, 0.9, 1.0]))
def test_sensitivity_at_a_specificity_is_the_best_that_any_threshold_gives(
    cases: list[tuple[int, float]], specificity: float
) -> None:
    labels, predicted = split(cases)
    if not 0 < labels.sum() < labels.size:
        return
    truth = labels.astype(bool)
    reached = [0.0] + [
        float((predicted >= t)[truth].mean())
        for t in predicted
        if (predicted < t)[~truth].mean() >= specificity - 1e-12
    ]
    assert sensitivity_at(labels, predicted, specificity) == pytest.approx(max(reached))


def test_pf1_and_binarised_f1_differ_as_the_challenge_saw() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(20_000) < 0.02).astype(float)
    predicted = 1 / (1 + np.exp(-(rng.normal(size=labels.size) + 2.0 * labels - 3)))
    found = scores(labels, predicted)
    assert found.pf1 is not None
    assert found.best_f1 is not None
    assert found.best_f1 > found.pf1 > 0.05


@pytest.mark.parametrize(
    ("labels", "predicted"), [([1.0], [0.5, 0.5]), ([0.3], [0.5]), ([1.0], [1.5]), ([1.0], [float("nan")])]
)
def test_what_is_no_prediction_is_refused(labels: list[float], predicted: list[float]) -> None:
    with pytest.raises(ValueError, match=r"labels|predictions|probabilities"):
        scores(np.array(labels), np.array(predicted))


def test_no_cases_have_no_scores() -> None:
    found = scores(np.zeros(0), np.zeros(0))
    assert (found.count, found.roc_auc, found.pf1, found.log_loss) == (0, None, None, None)
