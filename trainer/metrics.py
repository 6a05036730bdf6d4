"""Scores of binary predictions, from gathered predictions: never from Keras's binned metrics.

In:  labels (n,) of 0 and 1, probabilities (n,), both float64 or float32.
Out: Scores; None where a score does not exist (one class only). scikit-learn computes what it has.

`keras.metrics.AUC` bins its thresholds and is wrong at the prevalence of screening (0.67 for a true 0.86).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.floating] | npt.NDArray[np.bool_]

SPECIFICITY = 0.9
"""Sensitivity is told at this specificity."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one set of predictions, at threshold 0.5 where they need one and name no other."""

    count: int
    positives: int
    roc_auc: float | None
    pr_auc: float | None
    """Average precision (step-wise area under the precision-recall curve)."""
    accuracy: float | None
    f1: float | None
    sensitivity: float | None
    specificity: float | None
    sensitivity_at_90_specificity: float | None
    pf1: float | None
    """Probabilistic F1, the challenge's metric, of the probabilities as they are."""
    best_f1: float | None
    """Largest F1 over all thresholds: pF1 after binarising there. Optimistic: chosen on the same data."""
    best_threshold: float | None
    """Predictions ≥ this are positive."""
    brier: float | None
    log_loss: float | None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names in order, `count` and `positives` included."""
        return tuple(field.name for field in fields(cls))


def scores(labels: Vector, probabilities: Vector) -> Scores:
    """All scores of predictions (n,) for labels (n,) of 0 and 1.

    Raises:
        ValueError: lengths differ, labels are not 0 or 1, or a probability is not in [0, 1].
    """
    truth, predicted = _checked(labels, probabilities)
    positives, count = int(truth.sum()), truth.size
    if count == 0:
        return Scores(0, 0, *(None,) * (len(Scores.names()) - 2))
    both = 0 < positives < count
    called = predicted >= 0.5
    threshold, best = best_threshold(truth, predicted)
    clipped = np.clip(predicted, 1e-15, 1 - 1e-15)
    return Scores(
        count=count,
        positives=positives,
        roc_auc=roc_auc(truth, predicted) if both else None,
        pr_auc=_average_precision(truth, predicted) if positives else None,
        accuracy=float(np.mean(called == truth)),
        f1=f1(truth, called) if positives else None,
        sensitivity=float(np.mean(called[truth])) if positives else None,
        specificity=float(np.mean(~called[~truth])) if positives < count else None,
        sensitivity_at_90_specificity=sensitivity_at(truth, predicted, SPECIFICITY) if both else None,
        pf1=probabilistic_f1(truth, predicted) if positives else None,
        best_f1=best if positives else None,
        best_threshold=threshold if positives else None,
        brier=float(np.mean((predicted - truth) ** 2)),
        log_loss=float(-np.mean(np.where(truth, np.log(clipped), np.log1p(-clipped)))),
    )


def probabilistic_f1(labels: Vector, probabilities: Vector) -> float:
    """Probabilistic F1 as the RSNA challenge defines it.

    With c_tp the sum of the positives' probabilities and c_fp that of the negatives', precision is
    c_tp / (c_tp + c_fp), recall c_tp / positives, and the score their harmonic mean; 0 where c_tp is 0.
    Yacouby and Axman, Eval4NLP 2020.
    """
    truth = np.asarray(labels, np.float64)
    predicted = np.clip(np.asarray(probabilities, np.float64), 0.0, 1.0)
    hit = float((predicted * truth).sum())
    total = float(predicted.sum() + truth.sum())
    return 2 * hit / total if hit > 0 else 0.0


def f1(labels: npt.NDArray[np.bool_], called: npt.NDArray[np.bool_]) -> float:
    """F1 of calls (n,) for labels (n,); 0 where nothing is called and nothing is positive."""
    total = int(labels.sum() + called.sum())
    return 2 * int((labels & called).sum()) / total if total else 0.0


def best_threshold(labels: Vector, probabilities: Vector) -> tuple[float, float]:
    """The threshold with the largest F1, and that F1; of equals, the highest threshold.

    A prediction equal to the threshold is called positive. Without positives: (1.0, 0.0).
    """
    truth = np.asarray(labels, np.float64)
    predicted = np.asarray(probabilities, np.float64)
    if not truth.any():
        return 1.0, 0.0
    order = np.argsort(-predicted, kind="stable")
    ends = np.flatnonzero(np.diff(predicted[order], append=-np.inf))
    hits = np.cumsum(truth[order])[ends]
    scored = 2 * hits / (ends + 1 + truth.sum())
    best = int(np.argmax(scored))
    return float(predicted[order[ends[best]]]), float(scored[best])


def roc_auc(labels: Vector, probabilities: Vector) -> float:
    """Area under the ROC curve: the chance that a positive ranks above a negative, ties half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, probabilities))


def sensitivity_at(labels: Vector, probabilities: Vector, specificity: float) -> float:
    """The largest sensitivity among thresholds whose specificity is at least `specificity`."""
    from sklearn.metrics import roc_curve

    false_rate, true_rate, _ = roc_curve(labels, probabilities, drop_intermediate=False)
    return float(true_rate[false_rate <= 1 - specificity + 1e-12].max())


def _average_precision(labels: Vector, probabilities: Vector) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, probabilities))


def _checked(labels: Vector, probabilities: Vector) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    truth, predicted = np.asarray(labels).ravel(), np.asarray(probabilities, np.float64).ravel()
    if truth.shape != predicted.shape:
        raise ValueError(f"{truth.size} labels, {predicted.size} predictions")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not ((predicted >= 0) & (predicted <= 1)).all():
        raise ValueError("probabilities must lie between 0 and 1")
    return truth.astype(bool), predicted
