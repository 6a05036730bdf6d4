"""Confidence intervals of scores: patients are drawn again with replacement, never images.

In:  Cases with labels, and which of them are called positive.
Out: an Interval for each score. A pure function of the cases and the seed.

A drawn patient is a weight on all of his cases, so scores are computed with weights, from one sort of the
probabilities: thousands of resamples of a whole screening set take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.predictions import Cases

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RESAMPLES = 1000
COVERAGE = 0.95
INTERVAL_SCORES = ("roc_auc", "pr_auc", "pf1", "f1", "accuracy", "sensitivity", "specificity")


@dataclass(frozen=True, slots=True)
class Interval:
    """A score and its 95 % percentile interval; None where the score does not exist."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    resamples: int = 0
    """Those in which the score existed."""


def intervals(
    cases: Cases, called: Mask, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Interval, ...]:
    """Intervals of INTERVAL_SCORES by patient bootstrap (Efron and Tibshirani 1993, ch. 13).

    Args:
        cases: with known labels.
        called: (n,) True where a case is called positive, at thresholds chosen on other cases.
        seed: of the resamples.
        resamples: how often patients are drawn.
    """
    scorer = _Scorer(cases.labels, cases.probabilities, called)
    whole = scorer.score(np.ones(len(cases.keys)))
    drawn = np.array([scorer.score(weights) for weights in _draws(cases, seed, resamples)])
    drawn = drawn.reshape(resamples, len(INTERVAL_SCORES))
    return tuple(
        _interval(name, whole[column], drawn[:, column]) for column, name in enumerate(INTERVAL_SCORES)
    )


def _draws(cases: Cases, seed: int, resamples: int) -> Iterator[Doubles]:
    patients, of_case = np.unique(cases.patients.astype(str), return_inverse=True)
    rng = np.random.Generator(np.random.Philox(seed))
    for _ in range(resamples):
        drawn = rng.integers(0, max(patients.size, 1), patients.size)
        yield np.bincount(drawn, minlength=patients.size)[of_case].astype(np.float64)


def _interval(name: str, value: float, drawn: Doubles) -> Interval:
    there = drawn[~np.isnan(drawn)]
    if np.isnan(value):
        return Interval(name, None)
    if there.size == 0:
        return Interval(name, float(value))
    low, high = np.quantile(there, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(name, float(value), float(low), float(high), there.size)


class _Scorer:
    """Scores of weighted cases; NaN where they do not exist. Sorts once."""

    def __init__(self, labels: Doubles, probabilities: Doubles, called: Mask) -> None:
        self._order = np.argsort(-probabilities, kind="stable")
        ranked = probabilities[self._order]
        self._starts = np.flatnonzero(np.diff(ranked, prepend=np.inf))
        self._positive = labels == 1
        self._probabilities = probabilities
        self._called = called

    def score(self, weights: Doubles) -> tuple[float, ...]:
        """In the order of INTERVAL_SCORES."""
        positive, negative = weights * self._positive, weights * ~self._positive
        return (*self._ranked(positive, negative), *self._counted(positive, negative, weights))

    def _ranked(self, positive: Doubles, negative: Doubles) -> tuple[float, float]:
        """ROC-AUC and average precision, ties taken together."""
        if self._order.size == 0 or positive.sum() == 0:
            return np.nan, np.nan
        hits = np.add.reduceat(positive[self._order], self._starts)
        misses = np.add.reduceat(negative[self._order], self._starts)
        all_hits, all_misses = np.cumsum(hits), np.cumsum(misses)
        called = all_hits + all_misses
        precision = np.divide(all_hits, called, out=np.zeros_like(called), where=called > 0)
        average = float((hits * precision).sum() / all_hits[-1])
        if all_misses[-1] == 0:
            return np.nan, average
        below = all_misses[-1] - all_misses + misses / 2
        return float((hits * below).sum() / (all_hits[-1] * all_misses[-1])), average

    def _counted(self, positive: Doubles, negative: Doubles, weights: Doubles) -> tuple[float, ...]:
        """pF1, F1, accuracy, sensitivity, specificity."""
        total, hits = positive.sum(), (positive * self._called).sum()
        false = (negative * self._called).sum()
        if weights.sum() == 0:
            return (np.nan,) * 5
        soft, mass = (positive * self._probabilities).sum(), (weights * self._probabilities).sum()
        return (
            float(2 * soft / (mass + total)) if total else np.nan,
            float(2 * hits / (total + hits + false)) if total else np.nan,
            float((hits + negative.sum() - false) / weights.sum()),
            float(hits / total) if total else np.nan,
            float(1 - false / negative.sum()) if negative.sum() else np.nan,
        )
